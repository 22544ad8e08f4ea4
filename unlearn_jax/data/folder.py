"""Images of one's own: class folders, or a CSV file with a line per image.

Class folders: ROOT/CLASS/anything.jpg, also deeper, in any format that Pillow reads; the id is the
path below ROOT. Every other file there is listed as left out, with its reason. Each side of an
image must have at least 32 pixels, or `data.image_size` if that is less. A folder without a usable
image is no class; a warning names it. ROOT must not be a folder of splits, unless `data.split` is
'given': then it holds ROOT/SPLIT/CLASS/anything.jpg with a split `train` and, where they are given,
`val` (or `valid`, `validation`) and `test`.

CSV: the header names the columns `path` and `label`, in any order; with `data.split='given'` also
`split`. Every further column is an attribute of whole numbers, for forget sets such as `gender:1`.
Paths are relative to the CSV's folder and are the ids; each file has at most one line. Labels are
numbers for a regression, and names or numbers of classes for a classification. table.py describes
what the file may hold.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from unlearn_jax.data import given
from unlearn_jax.data.cache import Sample, cached_samples
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.decode import MIN_SIDE, has_image_name
from unlearn_jax.data.files import SourceFile, plain_file, signature, signature_of, walk
from unlearn_jax.data.source import Samples, Source
from unlearn_jax.data.table import class_names, label_numbers, read_table
from unlearn_jax.errors import InputError


def load_folder(settings, cache: Path) -> Source:
    """All usable images of a folder or CSV; see `Source`.

    Raises:
      InputError: nothing at `settings.path`, no class folder, or a CSV with a mistake; the
        message names the line.
    """
    path = Path(settings.path).expanduser()
    if not settings.path or not os.path.exists(path):
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
    files = list(walk(root))
    found = [f for f in files if not f.hidden]
    # An image may have any name; but if some files are named like images, only those count.
    holders = _folders(f for f in found if has_image_name(f.path)) or _folders(
        f for f in found if not f.path.endswith("/"))
    if not holders:
        raise InputError(f"folder {str(root)!r} has no class folder with an image in it")
    by_split = given.is_given(settings)
    splits = _split_folders(root, holders) if by_split else {}
    called = [name for name in holders if given.find_split(name) is not None]
    if len(called) > 1 and len(called) < len(holders) and not by_split:
        logging.warning("folder: %s holds %s, which count as classes here, as there are other "
                        "folders beside them; config.data.split=%s allows folders of splits alone",
                        root, ", ".join(map(repr, called)), given.GIVEN)
    if not by_split and len(called) == len(holders):
        raise InputError(f"folder {str(root)!r} holds {', '.join(map(repr, holders))}, which are "
                         "splits and no classes; give one of them as config.data.path, from which "
                         f"splits are drawn, or set config.data.split={given.GIVEN} to take these "
                         "as they are")
    level = int(by_split)  # of the class folders
    names = _folders((f for f in found if not by_split or f.path.split("/")[0] in splits), level)
    numbers = {name: number for number, name in enumerate(names)}

    def samples() -> Iterator[Sample | Dropped]:
        for file in files:
            parts = file.path.split("/")
            if file.problem:
                yield Dropped(file.path, "read", file.problem)
            elif by_split and parts[0] not in splits:
                yield Dropped(file.path, "read", "not in a folder of a split")
            elif len(parts) < level + 2:
                yield Dropped(file.path, "read", "not in a class folder")
            else:
                yield Sample(file.path, file.read, numbers[parts[level]],
                             (splits[parts[0]],) if by_split else ())

    key = {"files": signature(root), **({"splits": splits} if by_split else {})}
    held = cached_samples(cache, "folder", key, settings.image_size, samples,
                          (given.COLUMN,) if by_split else (), _least_side(settings))
    if by_split:
        held = given.take_splits(held, splits, f"folder {str(root)!r}")
    return Source("folder", "classification", "class", *_used(names, held, root))


def _folders(files: Iterable[SourceFile], level: int = 0) -> tuple[str, ...]:
    """Names of the folders that hold these files, `level` levels below the root's own, sorted."""
    parts = (f.path.split("/") for f in files)
    return tuple(sorted({p[level] for p in parts if len(p) > level + 1}))


def _split_folders(root: Path, holders: tuple[str, ...]) -> dict[str, int]:
    """By name of a folder of a split, the place of the split in `given.SPLITS`.

    Args:
      root: the folder of splits.
      holders: names of the folders there that hold images.

    Raises:
      InputError: a folder with images is no split, or see `given.check_names`.
    """
    where = f"folder {str(root)!r}"
    if not any(given.find_split(name) is not None for name in holders):
        raise InputError(f"{where} holds {', '.join(map(repr, holders[:3]))} and no folder 'train';"
                         f" config.data.split={given.GIVEN!r} needs train/CLASS/ and, where there "
                         "are any, val/CLASS/ and test/CLASS/")
    # An empty folder of a split counts as well: its images may have been lost.
    empty = {p.name for p in root.iterdir() if p.is_dir() and given.find_split(p.name) is not None}
    return given.check_names(sorted(empty.union(holders)), where)


def _load_csv(path: Path, settings, cache: Path) -> Source:
    by_split = given.is_given(settings)
    table = read_table(path, by_split)
    names: tuple[str, ...] = ()
    labels: list[float]
    if settings.task == "classification":
        names = class_names(path, table)
        numbers = {name: number for number, name in enumerate(names)}
        labels = [numbers[row.label] for row in table.rows]
    else:
        labels = label_numbers(path, table)
    splits = given.check_names(dict.fromkeys(row.split for row in table.rows),
                               repr(str(path))) if by_split else {}
    files = [plain_file(path.parent, row.path) for row in table.rows]
    if all(file.problem for file in files):
        raise InputError(f"none of the {len(files)} images of {str(path)!r} is there, such as "
                         f"{str(path.parent / table.rows[0].path)!r} ({files[0].problem}); paths "
                         "start at the folder of the .csv file")

    def samples() -> Iterator[Sample | Dropped]:
        for file, label, row in zip(files, labels, table.rows):
            if file.problem:
                yield Dropped(file.path, "read", file.problem)
            else:
                yield Sample(file.path, file.read, label,
                             (*row.attributes, splits[row.split]) if by_split else row.attributes)

    key = {"csv": hashlib.sha256(table.text.encode()).hexdigest(), "task": settings.task,
           "files": signature_of(path.parent, [f.path for f in files])}
    held = cached_samples(
        cache, "folder", key, settings.image_size, samples,
        (*table.attributes, given.COLUMN) if by_split else table.attributes, _least_side(settings))
    if by_split:
        held = given.take_splits(held, splits, repr(str(path)))
    if names:
        return Source("folder", settings.task, "class", *_used(names, held, path))
    return Source("folder", settings.task, "units", (), held)


def _used(names: tuple[str, ...], held: Samples, path: Path) -> tuple[tuple[str, ...], Samples]:
    """The classes with a usable image, and the samples renumbered to these classes.

    A class without a usable image would be an output that nothing trains.
    """
    used, labels = np.unique(held.labels, return_inverse=True)
    without = np.setdiff1d(np.arange(len(names)), used)
    if len(without):
        logging.warning("folder: labels of %s with no usable image, and so no class: %s", path,
                        ", ".join(repr(names[i]) for i in without))
    held = dataclasses.replace(held, labels=labels.astype(np.float64))
    return tuple(names[int(i)] for i in used), held


def _least_side(settings) -> int:
    """Least image side in pixels; smaller if data.image_size is less than 32."""
    return min(MIN_SIDE, settings.image_size)
