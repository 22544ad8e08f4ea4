"""The ids that a file of deletion requests lists, and the ids of the data set that they name.

Two texts that look the same may differ in their bytes: `é` is one character (NFC) or an `e` with an
accent (NFD), as some file systems write it. Ids match in either form. Where the data set has an id
of exactly the same bytes, that one alone is meant. An id copied from a CSV file may begin with the
apostrophe that stops a spreadsheet from running it (system/cells.py).
"""

import dataclasses
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from unlearn_jax.data.dataset import Dataset
from unlearn_jax.errors import ConfigError
from unlearn_jax.system.cells import plain

REFUSE, SKIP = "refuse", "skip"  # config.forget.unknown


@dataclasses.dataclass(frozen=True)
class AskedId:
    """An id that a file lists.

    Attributes:
      text: the id as the file has it first.
      times: how often the file lists it, in any Unicode form.
      found: the ids of the data set that it names, mostly one; () if it is unknown there.
    """

    text: str
    times: int
    found: tuple[str, ...]


def read_lines(path: str, wish: str) -> list[str]:
    """The lines of a text file in UTF-8 that are not empty, without blanks around them.

    Args:
      path: of the file.
      wish: what asks for it, which begins the message of an error.

    Raises:
      ConfigError: it cannot be read, or has no such line.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{wish}: the file cannot be read ({e}); give a text file "
                         "with one sample id a line") from e
    # not `splitlines`, which also splits a file name at a form feed or U+2028
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if not lines:
        raise ConfigError(f"{wish}: the file lists no sample id")
    return lines


def read_ids(path: str, wish: str, dataset: Dataset) -> tuple[AskedId, ...]:
    """The ids that a file lists, also those of samples that were left out of the data set.

    Args:
      path: of a text file with one id a line; comments begin with #.
      wish: what asks for it, which begins the message of an error.
      dataset: the samples, and the ids of those left out.

    Raises:
      ConfigError: the file cannot be read, or lists no id.
    """
    known = {*dataset.ids.tolist(), *dataset.left_out_ids.tolist(),
             *(d.id for d in dataset.dropped)}
    asked = match(read_lines(path, wish), known)
    if not asked:
        raise ConfigError(f"{wish}: the file lists no sample id")
    return asked


def match(lines: Iterable[str], known: Iterable[str]) -> tuple[AskedId, ...]:
    """The ids that lines ask for, each once, in the order of the lines.

    A line that begins with # is a comment, unless it is a known id.

    Args:
      lines: as in the file.
      known: all ids of the data set, also those that were left out of it.
    """
    exact, forms = set(known), dict[str, list[str]]()
    for own in sorted(exact):
        forms.setdefault(same_form(own), []).append(own)
    found: dict[tuple[str, ...], AskedId] = {}
    for line in lines:
        ids = (line,) if line in exact else tuple(
            forms.get(same_form(line)) or forms.get(same_form(plain(line))) or ())
        if not ids and line.startswith("#"):
            continue
        before = found.setdefault(ids or (same_form(line),), AskedId(line, 0, ids))
        found[ids or (same_form(line),)] = dataclasses.replace(before, times=before.times + 1)
    return tuple(found.values())


def same_form(text: str) -> str:
    """The text in one Unicode form (NFC), equal for all spellings of the same characters."""
    return unicodedata.normalize("NFC", text)


def unknown_in_words(asked: tuple[AskedId, ...]) -> str:
    """How many ids are unknown and which, all of them; '' if all are known."""
    unknown = [a.text for a in asked if not a.found]
    if not unknown:
        return ""
    return (f"{len(unknown)} of {len(asked)} ids {'is' if len(unknown) == 1 else 'are'} unknown: "
            f"{', '.join(map(repr, unknown))}")
