"""Images of one's own: class folders, or a CSV file with a line per image.

Class folders: ROOT/CLASS/anything.jpg (or .png), also deeper; the id is the path below ROOT.
The side of an image must reach 32 pixels, or `data.image_size` where that is less. A class
without a usable image is none; a warning names it. ROOT must not be a folder of splits.

CSV: the header names the columns `path` and `label`; every further column is an attribute of
whole numbers, for forget sets such as `gender:1`. Paths start at the CSV's folder and are the
ids; a file may have one line. Labels are numbers for a regression, and names or numbers of
classes for a classification.
"""

import csv
import dataclasses
import decimal
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from unlearn_jax.data.cache import Sample, cached_samples
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.decode import MIN_SIDE
from unlearn_jax.data.files import IMAGES, SourceFile, plain_file, signature, signature_of, walk
from unlearn_jax.data.source import Samples, Source
from unlearn_jax.errors import InputError

RESERVED = ("class", "random", "ids")  # the other kinds of forget sets
SPLITS = ("train", "val", "valid", "validation", "test")  # names of folders that are no classes


def load_folder(settings, cache: Path) -> Source:
    """All usable images of a folder or CSV; see `Source`.

    Raises:
      InputError: nothing at `settings.path`, no class folder, or a CSV with a mistake; the
        message names the line.
    """
    path = Path(settings.path).expanduser()
    if not settings.path or not path.exists():
        what = "empty" if not settings.path else f"{settings.path!r}, which does not exist"
        raise InputError(f"config.data.path is {what}; give a folder of class folders or a .csv "
                         "file")
    if path.is_dir():
        return _load_classes(path, settings, cache)
    if path.suffix.lower() != ".csv":
        raise InputError(f"config.data.path is {settings.path!r}, a file of another kind; give a "
                         "folder of class folders or a .csv file")
    return _load_csv(path, settings, cache)


def _load_classes(root: Path, settings, cache: Path) -> Source:
    if settings.task != "classification":
        raise InputError("class folders are a classification, but config.data.task is "
                         f"{settings.task!r}; give a .csv file for a regression")
    found = list(walk(root))
    files = [f for f in found if f.path.lower().endswith((*IMAGES, "/"))]
    if not (holders := _folders(f for f in files if not f.path.endswith("/"))):
        raise InputError(f"folder {str(root)!r} has no class folder with a .jpg or .png in it")
    if all(name.lower() in SPLITS for name in holders):
        raise InputError(f"folder {str(root)!r} holds {', '.join(map(repr, holders))}, which are "
                         "splits and no classes; give one of them as config.data.path: the program "
                         "draws splits of its own")
    names = _folders(found)

    def samples() -> Iterator[Sample | Dropped]:
        for file in files:
            if "/" not in file.path:
                yield Dropped(file.path, "read", "not in a class folder")
            elif file.problem:
                yield Dropped(file.path, "read", file.problem)
            else:
                yield Sample(file.path, file.read, names.index(file.path.split("/")[0]))

    held = cached_samples(cache, "folder", {"files": signature(root)}, settings.image_size,
                          samples, min_side=_least_side(settings))
    return Source("folder", "classification", "class", *_used(names, held, root))


def _folders(files: Iterable[SourceFile]) -> tuple[str, ...]:
    """Names of the folders right below the root that these files are in, sorted."""
    return tuple(sorted({f.path.split("/")[0] for f in files if "/" in f.path}))


def _load_csv(path: Path, settings, cache: Path) -> Source:
    text = _read_text(path)
    attributes, rows = _parse(path, text)
    if not rows:
        raise InputError(f"{str(path)!r} has no rows: there is nothing below its header")
    names: tuple[str, ...] = ()
    if settings.task == "classification":
        names = _class_names(path, rows)
    labels = [names.index(label) if names else _number(path, line, "label", label)
              for line, _, label, _ in rows]
    files = [plain_file(path.parent, name) for _, name, _, _ in rows]
    if all(file.problem for file in files):
        raise InputError(f"none of the {len(files)} images of {str(path)!r} is there, such as "
                         f"{str(path.parent / rows[0][1])!r} ({files[0].problem}); paths start at "
                         "the folder of the .csv file")

    def samples() -> Iterator[Sample | Dropped]:
        for file, label, (_, _, _, values) in zip(files, labels, rows):
            if file.problem:
                yield Dropped(file.path, "read", file.problem)
            else:
                yield Sample(file.path, file.read, label, values)

    key = {"csv": hashlib.sha256(text.encode()).hexdigest(), "task": settings.task,
           "files": signature_of(path.parent, [f.path for f in files])}
    held = cached_samples(cache, "folder", key, settings.image_size, samples, attributes,
                          _least_side(settings))
    if names:
        return Source("folder", settings.task, "class", *_used(names, held, path))
    return Source("folder", settings.task, "units", (), held)


def _used(names: tuple[str, ...], held: Samples, path: Path) -> tuple[tuple[str, ...], Samples]:
    """The classes with a usable image, and the samples with these classes' numbers.

    A class without one would be an output that nothing trains.
    """
    used, labels = np.unique(held.labels, return_inverse=True)
    without = np.setdiff1d(np.arange(len(names)), used)
    if len(without):
        logging.warning("folder: labels of %s with no usable image, and so no class: %s", path,
                        ", ".join(repr(names[i]) for i in without))
    held = dataclasses.replace(held, labels=labels.astype(np.float64))
    return tuple(names[int(i)] for i in used), held


def _least_side(settings) -> int:
    """Pixels; who asks for fewer than a photograph must have has images of another kind."""
    return min(MIN_SIDE, settings.image_size)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{str(path)!r} is no text in UTF-8: {e}") from e


def _parse(path: Path, text: str) -> tuple[tuple[str, ...], list]:
    """Attribute names, and (line, path, label, attribute values) of each row."""
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    attributes = tuple(name for name in header if name not in ("path", "label"))
    if {"path", "label"} - set(header) or len(set(header)) != len(header) or "" in header:
        raise InputError(f"{str(path)!r} begins with {','.join(header)!r}; the first line must "
                         "name the columns path and label, and each further one once")
    if reserved := set(attributes) & set(RESERVED):
        raise InputError(f"{str(path)!r} has a column {sorted(reserved)[0]!r}, a name that forget "
                         "sets use otherwise; rename it")
    rows, first = [], {}
    for fields in reader:
        line = reader.line_num
        if not fields:
            continue
        if len(fields) != len(header):
            raise InputError(f"{str(path)!r} line {line} has {len(fields)} fields; "
                             f"its header has {len(header)}")
        row = dict(zip(header, (f.strip() for f in fields)))
        # './a.png', links and 'x/../a.png' are a.png, which must not be in two splits
        other, name = first.setdefault(os.path.realpath(path.parent / row["path"]),
                                       (line, row["path"]))
        if other != line and name == row["path"]:
            raise InputError(f"{str(path)!r} line {line} repeats the path {name!r} of line {other}")
        if other != line:
            raise InputError(f"{str(path)!r} line {line}: {row['path']!r} is the file of line "
                             f"{other}, {name!r}; an image may have one line")
        values = tuple(_integer(path, line, name, row[name]) for name in attributes)
        if not row["path"] or not row["label"]:
            raise InputError(f"{str(path)!r} line {line} has an empty path or label")
        rows.append((line, row["path"], row["label"], values))
    return attributes, rows


def _class_names(path: Path, rows: list) -> tuple[str, ...]:
    """The labels in their natural order; '1' and '1.0' are hardly meant to be two classes."""
    lines, spelled = {}, {}
    for line, _, label, _ in rows:
        lines.setdefault(label, line)
    for label, line in lines.items():
        try:
            value = decimal.Decimal(label)  # exact, so that long numbers stay two
        except decimal.InvalidOperation:
            continue
        first = spelled.setdefault(value, label) if value.is_finite() else label
        if first != label:
            raise InputError(f"{str(path)!r} line {line}: label {label!r} is the number {first!r} "
                             f"of line {lines[first]} spelled otherwise; spell a class in one way")
    return tuple(sorted(lines, key=_natural))


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{str(path)!r} line {line}: {column} {text!r} is no number; for names "
                         "of classes set config.data.task to 'classification'")
    return value


def _integer(path: Path, line: int, column: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 2**31
    if not -2**31 <= value < 2**31:
        raise InputError(f"{str(path)!r} line {line}: {column} {text!r} is no whole number of 32 "
                         "bits; attributes must be coded by whole numbers")
    return value


def _natural(name: str) -> tuple:
    """Sorts '2' before '10', and numbers before names."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
