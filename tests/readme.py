"""The code examples of README.md, for the tests that run them."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return README.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def method_template() -> str:
    """The example method of README.md."""
    (code,) = re.findall(r"```python\n(.*?)```", section("Adding a method"), re.DOTALL)
    return code
