"""What README.md tells its readers to write, for the tests that do so."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return README.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def method_template() -> str:
    """The method that README.md has written out."""
    (code,) = re.findall(r"```python\n(.*?)```", section("Adding a method"), re.DOTALL)
    return code
