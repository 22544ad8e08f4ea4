"""Cells of CSV files that no spreadsheet runs as a formula, and how they are read back.

A spreadsheet runs a cell such as `=cmd|...` when the file is opened, and names of files and classes
come with the data, from anywhere. So an apostrophe goes before such a text (OWASP, "CSV
Injection"). Numbers, such as -0.5, stay as they are.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unlearn_jax.labels import find_number

# How a formula begins; apostrophes before it may be those of `safe`, or a text's own.
_RUNS = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NO_NUMBERS = ("-inf", "+inf", "-nan")  # as Python writes them


def safe(value: Any) -> Any:
    """A cell as it may be written: a text that would run gets an apostrophe, all else stays."""
    if not isinstance(value, str) or not _RUNS.match(value):
        return value
    return value if find_number(value) is not None or value in _NO_NUMBERS else f"'{value}"


def plain(text: str) -> str:
    """The text that `safe` has made this cell of."""
    return text[1:] if text.startswith("'") and _RUNS.match(text) else text


def rows_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file of a header and rows, each by column, as they may be written."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    # Until Python 3.13 a carriage return alone goes unquoted, though it ends a row for readers.
    quoting = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        cells = {column: safe(value) for column, value in row.items()}
        broken = any(isinstance(cell, str) and "\r" in cell for cell in cells.values())
        (quoting if broken else writer).writerow(cells)
    return file.getvalue()


def safe_table(table: Any) -> Any:
    """A pandas frame as it may be written."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{column: table[column].map(safe) for column in texts})


def plain_table(table: Any) -> Any:
    """A pandas frame of text as `safe_table` was given it."""
    marked = [c for c in table.columns if table[c].str.startswith("'").any()]
    return table.assign(**{column: table[column].map(plain) for column in marked})
