"""Progress of long work on the terminal: how much is done, and the time that is left."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import tqdm

T = TypeVar("T")
PATIENCE = 2  # seconds of work without a bar
# Called like `tqdm.tqdm`; None: no bar is shown.
MakeBar = Callable[..., Any] | None


def work_bar() -> Callable[..., Any]:
    """A maker of progress bars, called like `tqdm.tqdm`; bars in a file are rarely redrawn."""
    return functools.partial(tqdm.tqdm, mininterval=0.5 if sys.stderr.isatty() else 10,
                             leave=False)


def tracked(bar: MakeBar, items: Iterable[T], text: str, unit: str) -> Iterator[T]:
    """The items, one by one; work that takes longer than `PATIENCE` gets a bar.

    Args:
      bar: makes it.
      items: to work on.
      text: what the work is.
      unit: of one item, in the plural.
    """
    items = list(items)
    if bar is None:
        yield from items
        return
    with bar(desc=text, total=len(items), unit=f" {unit}", delay=PATIENCE) as shown:
        for item in items:
            yield item
            shown.update(1)
