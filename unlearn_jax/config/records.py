"""The records that the table of the config is made of."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included; an open end is an infinity."""

    low: float
    high: float = math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elements:
    """Tuples.

    Attributes:
      kind: type of the elements; a float may be a whole number, too.
      length: number of elements; None: any.
      low, high: the smallest and the largest element; None: any.
      filled: whether there must be an element.
      choices: what an element may be; (): anything.
      different: what the elements are called, if no two may be equal; '': two may be.
      word: a word that may stand alone in place of the elements, `("given",)`; '': none may.
    """

    kind: type
    length: int | None = None
    low: float | None = None
    high: int | None = None
    filled: bool = False
    choices: tuple[str, ...] = ()
    different: str = ""
    word: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelShare:
    """The smallest and the largest share of the label range that make sense.

    Attributes:
      low, high: the shares.
      otherwise: what happens beyond them.
    """

    low: float
    high: float
    otherwise: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A key of the config.

    Attributes:
      default: its value in `default_config`; a dict makes an open section.
      meaning: one line.
      allowed: a tuple of choices, a range, or the elements of a tuple; None: whatever has the type
        of the default, as far as `relations.py` allows it.
      share: for a key in label units (`label_units.py`): the share of the label range that makes
        sense for a regression. A default in years stands for the same share of any range of
        labels. None: the key has another unit.
    """

    default: Any
    meaning: str
    allowed: tuple[str, ...] | Range | Elements | None = None
    share: LabelShare | None = None
