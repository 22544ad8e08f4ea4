"""Writes CSV cells that no spreadsheet runs as a formula, and reads them back.

A spreadsheet runs a cell such as `=cmd|...` when the file is opened, and names of files and classes
come with data of any origin. So such a text gets an apostrophe in front (OWASP, "CSV Injection").
Numbers, such as -0.5, do not change.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unlearn_jax.labels import find_number

# The beginning of a formula; apostrophes before it may come from `safe` or from the text itself.
_RUNS = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NO_NUMBERS = ("-inf", "+inf", "-nan")  # as Python writes them


def safe(value: Any) -> Any:
    """A cell that is safe to write: a text that would run gets an apostrophe, no other changes."""
    if not isinstance(value, str) or not _RUNS.match(value):
        return value
    return value if find_number(value) is not None or value in _NO_NUMBERS else f"'{value}"


def plain(text: str) -> str:
    """The text that `safe` made this cell from."""
    return text[1:] if text.startswith("'") and _RUNS.match(text) else text


def rows_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of a CSV file with safe cells; each row maps columns to values."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    # Before Python 3.13 a lone carriage return is not quoted, though readers end a row there.
    quoting = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        cells = {column: safe(value) for column, value in row.items()}
        broken = any(isinstance(cell, str) and "\r" in cell for cell in cells.values())
        (quoting if broken else writer).writerow(cells)
    return file.getvalue()


def safe_table(table: Any) -> Any:
    """A pandas frame with safe cells."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{column: table[column].map(safe) for column in texts})


def plain_table(table: Any) -> Any:
    """The pandas frame of text that `safe_table` made this one from."""
    marked = [c for c in table.columns if table[c].str.startswith("'").any()]
    return table.assign(**{column: table[column].map(plain) for column in marked})
