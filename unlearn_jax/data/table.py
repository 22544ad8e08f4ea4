"""A CSV file of paths and labels from a user or a spreadsheet; it is read whole or refused.

Python's csv module reads the whole text, so that quoted fields may hold commas, quotes and line
breaks. Only a line feed, a carriage return or both end a line. The error for a mistake names the
line where the row begins.
"""

import csv
import dataclasses
import decimal
import io
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from unlearn_jax.data.given import GIVEN, SPELLINGS, find_split
from unlearn_jax.errors import InputError
from unlearn_jax.labels import find_integer, find_number

RESERVED = ("class", "random", "ids")  # the other kinds of forget sets

_MONTH = "(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)"
# Forms that spreadsheets give a 3-9 or 10-12 read as a date: 9-Mar, Mar-09, 12-Oct-24.
_DATE = re.compile(rf"[0-9]{{1,2}}-{_MONTH}(?:-[0-9]{{2,4}})?|{_MONTH}-[0-9]{{2,4}}", re.IGNORECASE)
_ERRORS = ("#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!")  # of spreadsheets


@dataclasses.dataclass(frozen=True)
class CsvRow:
    """A line of the table.

    Attributes:
      line: the line where it begins, counted from 1.
      path: path of the image, relative to the folder of the table.
      label: the label as written.
      attributes: in the order of the table's columns.
      split: the split as written; '' where the column is not asked for.
    """

    line: int
    path: str
    label: str
    attributes: tuple[int, ...]
    split: str


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """The content of a CSV file.

    Attributes:
      text: the whole file.
      attributes: names of the columns other than path, label and, where it is asked for, split.
      rows: the rows, at least one.
    """

    text: str
    attributes: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_table(path: Path, with_split: bool = False) -> CsvTable:
    """Reads a table, whose columns may have any order.

    Args:
      path: the .csv file.
      with_split: whether the column split names the split of each image (`data.split='given'`).

    Raises:
      InputError: no text, no header with path and label (and split), or a mistake in a row; the
        message names the line.
    """
    text = _read_text(path)
    lines = _fields(path, text)
    header = next(lines, (1, []))[1]
    needed = ("path", "label", "split") if with_split else ("path", "label")
    attributes = tuple(name for name in header if name not in needed)
    if set(needed) - set(header) or len(set(header)) != len(header) or "" in header:
        raise InputError(f"{str(path)!r} begins with {','.join(header)!r}; the first line must "
                         f"name the columns {', '.join(needed[:-1])} and {needed[-1]}, and each "
                         "further one once" + f" (config.data.split={GIVEN!r})" * with_split)
    if reserved := set(attributes) & set(RESERVED):
        raise InputError(f"{str(path)!r} has a column {sorted(reserved)[0]!r}, a name that forget "
                         "sets use otherwise; rename it")
    rows: list[CsvRow] = []
    first: dict[str, tuple[int, str, str]] = {}  # line, path and split, by the real file
    for line, fields in lines:
        if not fields:
            continue
        if len(fields) != len(header):
            raise _wrong(path, line, f"has {len(fields)} fields; its header has {len(header)}")
        row = dict(zip(header, fields))
        if not row["path"] or not row["label"]:
            raise _wrong(path, line, "has an empty path or label")
        split = row["split"] if with_split else ""
        if with_split and find_split(split) is None:
            raise _wrong(path, line, f"has the split {split!r}; allowed: {', '.join(SPELLINGS)}")
        # './a.png', links and 'x/../a.png' are the same file, which must not be in two splits
        other, name, earlier = first.setdefault(os.path.realpath(path.parent / row["path"]),
                                                (line, row["path"], split))
        if other != line:
            apart = f", and puts it in {split} after {earlier}" if split != earlier else ""
            raise _wrong(path, line, (
                f"repeats the path {name!r} of line {other}{apart}" if name == row["path"] else
                f"holds {row['path']!r}, the file of line {other}, {name!r}{apart}; an image may "
                "have one line"))
        rows.append(CsvRow(line, row["path"], row["label"],
                           tuple(_integer(path, line, a, row[a]) for a in attributes), split))
    if not rows:
        raise InputError(f"{str(path)!r} has no rows: there is nothing below its header")
    return CsvTable(text, attributes, tuple(rows))


def label_numbers(path: Path, table: CsvTable) -> list[float]:
    """The labels of a regression.

    Raises:
      InputError: a label is no number; the message names the line.
    """
    found: list[float] = []
    for row in table.rows:
        value = find_number(row.label)
        if value is None:
            raise _wrong(path, row.line, f"has the label {row.label!r}, which is no number such as "
                         "-2, 30.5 or 1e2; for names of classes set config.data.task to "
                         "'classification'")
        found.append(value)
    return found


def class_names(path: Path, table: CsvTable) -> tuple[str, ...]:
    """Returns the names of the classes, sorted so that '2' precedes '10'.

    Raises:
      InputError: labels such as '1' and '1.0', which are the same number, or a label such as
        '9-Mar', which a spreadsheet has made of another one. The message names the line.
    """
    lines: dict[str, int] = {}
    spelled: dict[decimal.Decimal, str] = {}
    for row in table.rows:
        lines.setdefault(row.label, row.line)
    for label, line in lines.items():
        if _DATE.fullmatch(label) or label in _ERRORS:
            kind = "an error" if label in _ERRORS else "a date"
            raise _wrong(path, line, f"has the label {label!r}, which is {kind} as spreadsheets "
                         "write it, in place of 3-9, say; write the class as it is meant, or in "
                         "other letters")
        plain = unicodedata.normalize("NFKC", label)  # full-width digits become plain ones
        if find_number(plain) is None:
            continue
        first = spelled.setdefault(decimal.Decimal(plain), label)  # exact: long numbers stay two
        if first != label:
            raise _wrong(path, line, f"has the label {label!r}, the number {first!r} of line "
                                     f"{lines[first]} spelled otherwise; spell a class in one way")
    return tuple(sorted(lines, key=_natural))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise InputError(f"{str(path)!r} cannot be read: {e.strerror}") from e
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content[:e.start].count(b"\n") + 1
        raise InputError(f"{str(path)!r} line {line} is no text in UTF-8: {e}") from e


def _fields(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, fields) of each row; blanks around fields are removed."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as e:  # an unclosed field, or one longer than csv.field_size_limit()
            raise _wrong(path, line, f"cannot be read: {e}") from e
        if any("\0" in field for field in fields):
            raise _wrong(path, line, "holds a NUL character; write the file anew as text in UTF-8")
        yield line, [field.strip() for field in fields]


def _integer(path: Path, line: int, column: str, text: str) -> int:
    value = find_integer(text)
    if column == "split" and find_split(text) is not None:
        raise _wrong(path, line, f"has the split {text!r}: set config.data.split={GIVEN} to take "
                     "the splits of the file, or remove the column to have splits drawn")
    if value is None or not -2**31 <= value < 2**31:
        raise _wrong(path, line, f"has the {column} {text!r}, which is no whole number of 32 bits; "
                                 "attributes must be coded by whole numbers")
    return value


def _wrong(path: Path, line: int, what: str) -> InputError:
    return InputError(f"{str(path)!r} line {line} {what}")


def _natural(name: str) -> tuple:
    """A sort key that puts '2' before '10', and numbers before names."""
    return (0, int(name), name) if re.fullmatch("[0-9]{1,4000}", name) else (1, 0, name)
