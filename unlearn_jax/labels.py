"""What requests say of labels (a class, a range), and how many samples have each.

Needs numpy alone, as the report reads requests too.
"""

import re
from collections.abc import Sequence

import numpy as np

_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)-(-?\d+(?:\.\d+)?)")


def find_class(given: str, names: Sequence[str]) -> int | None:
    """The number of a class given by name or, where no class has that name, by number."""
    if given in names:
        return names.index(given)
    return int(given) if given.isdecimal() and int(given) < len(names) else None


def find_range(given: str) -> tuple[float, float] | None:
    """First and last label of a range such as 20-28, 1.5-2 or -20--10, label units."""
    match = _RANGE.fullmatch(given)
    return (float(match[1]), float(match[2])) if match else None


def strata(labels: np.ndarray, low: float = 0.0, step: float = 1.0) -> np.ndarray:
    """Which stratum each label is in, `[N]` whole numbers: its integer part, or its step.

    Args:
      labels: `[N]`, label units or classes.
      low, step: where steps other than 1 begin, and how long they are (`units.label_step`).
    """
    if step == 1:
        return np.floor(labels)
    # Labels such as 0.3 may lie a rounding below their step.
    return np.floor(np.round((labels.astype(np.float64) - low) / step, 4))


def histogram(labels: np.ndarray) -> dict[str, int]:
    """{label: samples}, ascending; the counts add up to the N of `labels` `[N]`.

    A label is written as the shortest number that is it and no other in float32, in which models
    learn it: '20', '30.000123', '1234567'.
    """
    values, counts = np.unique(np.asarray(labels, np.float32), return_counts=True)
    return {np.format_float_positional(v, trim="-"): int(n) for v, n in zip(values, counts)}
