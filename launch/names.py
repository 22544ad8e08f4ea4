"""Values of a sweep as words in file names and in labels of methods."""

import hashlib
import re
from typing import Any

_LONGEST = 80  # characters of a name


def shortened(name: str) -> str:
    """A name that is short enough for file names."""
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[:_LONGEST - len(digest) - 1]}-{digest}"


def word(value: Any) -> str:
    """A value as part of a method's name, with letters, digits, _ and - only: 0.002 is 2e-3."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        digits, exponent = f"{value:.15e}".split("e")
        whole, _, fraction = digits.partition(".")
        fraction = fraction.rstrip("0")
        power = int(exponent) - len(fraction)
        return f"{whole}{fraction}" + (f"e{power}" if power else "")
    if isinstance(value, tuple):
        return "-".join(word(v) for v in value) or "none"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", str(value)).strip("-") or "none"
