"""Reads and checks single files: every refusal names the file and the column or field."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearn_jax.errors import ReportError
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.system.cells import plain_table, safe_table


def field(mapping: Any, file: str, path: str, kind: type | tuple[type, ...]) -> Any:
    """The value at a dotted path of a JSON file.

    Raises:
      ReportError: it is missing or of another type; names the file and the path.
    """
    value = mapping
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ReportError(f"{file}: the field {path!r} is missing")
        value = value[part]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise ReportError(f"{file}: the field {path!r} is {value!r:.80}; it must be {names}")
    return value


def checked(workdir: Path, name: str) -> Path:
    """The path of a file that may be missing, and is what the run wrote where there is a manifest.

    Raises:
      ReportError: it was changed since.
    """
    try:
        manifest.check(workdir, name)
    except manifest.ManifestError as error:
        raise ReportError(str(error)) from None
    return workdir / name


def read_json(workdir: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ReportError: it is missing, or holds something else.
    """
    path = checked(workdir, name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: is {workdir} the work directory of a finished "
                          "run?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ReportError(f"{path} holds a {type(value).__name__}; it must hold an object")
    return value


def read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file.

    Args:
      path: where it is.
      name: what it is called in messages.

    Raises:
      ReportError: it cannot be read.
      FileNotFoundError: it is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # for damaged files NumPy and zipfile raise a dozen types
        raise ReportError(f"{name} cannot be read: {error}") from None


def read_csv(workdir: Path, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV table as text.

    Raises:
      ReportError: it is missing, is no table, or lacks one of the columns.
    """
    path = checked(workdir, name)
    try:
        # As text: pandas would take the forget set 'NA' or '' for a missing value. As Python's
        # strings: pandas' own are slower in small tables.
        table = pd.read_csv(path, dtype=object, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: is {workdir} the work directory of a finished "
                          "run?") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ReportError(f"{path} is not a CSV table: {error}") from None
    table = plain_table(table)
    missing = [c for c in columns if c not in table.columns]
    if missing:
        raise ReportError(f"{name}: the column {missing[0]!r} is missing; columns are "
                          + ", ".join(map(str, table.columns)))
    return table


def rows_of(workdir: Path, name: str, columns: tuple[str, ...], forget_set: str,
            whole: tuple[str, ...], real: tuple[str, ...]) -> pd.DataFrame | None:
    """The rows of a forget set in a table that not every run has; None where there are none.

    Args:
      name: the file's name.
      columns: all that it must have.
      whole, real: those that are whole numbers, and numbers or nan.

    Raises:
      ReportError: the table is malformed.
    """
    if not (workdir / name).exists():
        return None
    table = read_csv(workdir, name, columns)
    table = table.assign(**{c: numbers(table, name, c, whole=True) for c in whole},
                         **{c: numbers(table, name, c) for c in real})
    table = table[table.forget_set == forget_set]
    return None if table.empty else table


def numbers(table: pd.DataFrame, file: str, column: str, whole: bool = False) -> pd.Series:
    """A column of text as numbers; 'nan' is NaN, and an empty cell is refused.

    Args:
      whole: only whole numbers are allowed.

    Raises:
      ReportError: names the line and the value.
    """
    text = table[column].str.strip()
    values = pd.to_numeric(text, errors="coerce").astype(float)
    bad = values.isna() & (text.str.lower() != "nan")
    if whole:
        bad |= ~np.isfinite(values) | (values % 1 != 0)
    refuse(table, bad, file, column, "a whole number" if whole else "a number or nan")
    return values.astype(int) if whole else values


def refuse(table: pd.DataFrame, bad: pd.Series, file: str, column: str, allowed: str) -> None:
    """Raises ReportError for the first bad row, naming the line, the value and what is allowed."""
    if bad.any():
        row = table[bad].iloc[0]
        raise ReportError(f"{file}, line {row.name + 2}: the column {column!r} holds "
                          f"{row[column]!r}; allowed: {allowed}")


def refuse_repeats(table: pd.DataFrame, file: str, identity: list[str]) -> None:
    """Raises ReportError where two rows agree in all of the columns."""
    repeated = table.duplicated(identity)
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ReportError(f"{file}, line {row.name + 2}: a second row for "
                          + ", ".join(f"{c}={row[c]}" for c in identity))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a CSV table of computed numbers, to ten digits."""
    disk.write_file(path, safe_table(table).to_csv(index=False, float_format="%.10g"))


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
