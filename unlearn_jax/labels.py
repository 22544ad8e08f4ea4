"""Labels in texts (a number, a class, a range), and the number of samples with each label.

It needs NumPy alone, because the report reads requests, too.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

# ASCII digits only: Python's float() and int() also accept '2_0' and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?0*[0-9]{1,18}")
_RANGE = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)-(-?[0-9]+(?:\.[0-9]+)?)")


def find_number(text: str) -> float | None:
    """The finite number that a text states, such as -2, 30.5 or 1e2; None for any other text."""
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def find_integer(text: str) -> int | None:
    """The whole number that a text states, such as 12 or -7; None for any other text."""
    return int(text) if _INTEGER.fullmatch(text) else None


def find_class(given: str, names: Sequence[str]) -> int | None:
    """The number of a class given by name or, where no name is a number itself, by number.

    With folders named 1 to 12, '0' is no class: as a number it would mean folder 1, whose name
    is '1'.
    """
    if given in names:
        return names.index(given)
    number = find_integer(given)
    if number is None or any(find_number(name) is not None for name in names):
        return None
    return number if 0 <= number < len(names) else None


def some_classes(names: Sequence[str]) -> str:
    """The first class names, for an error message."""
    return ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")


def find_range(given: str) -> tuple[float, float] | None:
    """First and last label of a range such as 20-28, 1.5-2 or -20--10, label units."""
    match = _RANGE.fullmatch(given)
    return (float(match[1]), float(match[2])) if match else None


def strata(labels: np.ndarray, low: float = 0.0, step: float = 1.0) -> np.ndarray:
    """The stratum of each label, `[N]` whole numbers: its integer part, or its step.

    Args:
      labels: `[N]`, label units or classes.
      low, step: start and length of the steps, if they are not 1 long (`units.label_step`).
    """
    if step == 1:
        return np.floor(labels)
    # Rounding may put labels such as 0.3 just below their step.
    return np.floor(np.round((labels.astype(np.float64) - low) / step, 4))


def histogram(labels: np.ndarray) -> dict[str, int]:
    """{label: samples}, ascending; the counts add up to the N of `labels` `[N]`.

    A label is written as the shortest number that float32 tells from all others ('20',
    '30.000123', '1234567'), because models learn labels in float32.
    """
    values, counts = np.unique(np.asarray(labels, np.float32), return_counts=True)
    return {np.format_float_positional(v, trim="-"): int(n) for v, n in zip(values, counts)}
