"""Arrays in one .npz file: images, labels, and lists of samples to be forgotten.

    images      [N, H, W, 3], [N, H, W, 1] or [N, H, W] uint8
    labels      [N] numbers; or [N] names or numbers of classes for a classification
    ids         [N] text, all different; without it the position of a sample, such as 0000012
    class_names [C] text; without it the classes are the different labels, in their order
    split       [N] train, validation (or val, valid) or test, for `data.split='given'`
    attribute_NAME  [N] whole numbers, for forget sets such as gender:1
    forget_NAME     [K] positions of samples, for the forget set set:NAME

`unlearn_jax.study` writes such a file into the store; `numpy.savez` writes one by hand. Images of
another size than `data.image_size` are cut to the central square and resized.
"""

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.data import given
from unlearn_jax.data.decode import UnusableImage, decode_image
from unlearn_jax.data.source import Source, in_memory
from unlearn_jax.errors import InputError
from unlearn_jax.system import disk

ATTRIBUTE, FORGET = "attribute_", "forget_"
_ARRAYS = ("images", "labels", "ids", "class_names", "split")
_KEY = "config.data.path"


def load_arrays(settings, cache: Path) -> Source:
    """All samples of a .npz file; see `Source`.

    Raises:
      InputError: no such file, or an array of it is missing or cannot be used.
    """
    del cache  # the file holds the pixels already
    found = _read(settings.path)
    where = f"{_KEY} is {settings.path!r}"
    images, labels, ids, class_names = checked(found, settings.task, where)
    images = _resized(images, settings.image_size, where)
    sets = {name.removeprefix(FORGET): frozenset(ids[rows].tolist())
            for name, rows in found.items() if name.startswith(FORGET)}
    attributes = {name.removeprefix(ATTRIBUTE): column.astype(np.int32)
                  for name, column in found.items() if name.startswith(ATTRIBUTE)}
    splits = _splits(found, where) if given.is_given(settings) else np.zeros(0, np.int8)
    order = np.argsort(ids, kind="stable")
    if (order != np.arange(len(order))).any():  # else the images are not copied
        images, labels, ids = images[order], labels[order], ids[order]
        attributes = {name: column[order] for name, column in attributes.items()}
        splits = splits[order] if len(splits) else splits
    samples = dataclasses.replace(in_memory(images, labels, ids, attributes), splits=splits)
    unit = "class" if settings.task == "classification" else "units"
    return Source("arrays", settings.task, unit, class_names, samples, sets)


def checked(found: Mapping[str, np.ndarray], task: str, where: str,
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """The arrays of a file, checked.

    Args:
      found: by the names that the head of this module lists.
      task: of the config.
      where: begins the messages.

    Returns:
      images as given; labels `[N]` float64, label units or numbers of classes; ids `[N]` str; names
      of the classes, () for a regression.

    Raises:
      InputError: an array is missing, has another shape or type, or contradicts another; the
        message names it and says what is allowed.
    """
    for name in found:
        if name not in _ARRAYS and not name.startswith((ATTRIBUTE, FORGET)):
            raise InputError(f"{where}: {name!r} is no array that is read; allowed: "
                             f"{', '.join(_ARRAYS)}, {ATTRIBUTE}NAME, {FORGET}NAME")
    for name in ("images", "labels"):
        if name not in found:
            raise InputError(f"{where}: the array {name!r} is missing; there are "
                             f"{', '.join(found) or 'none'}")
    images, n = found["images"], len(np.atleast_1d(found["labels"]))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in (
            (), (1,), (3,)):
        raise InputError(f"{where}: images are {_text(images)}; allowed: uint8 [N, H, W, 3], "
                         "[N, H, W, 1] or [N, H, W], grey levels from 0 to 255")
    _check_column(where, "labels", found["labels"], len(images), "images")
    ids = found["ids"] if "ids" in found else position_ids(n)
    _check_column(where, "ids", ids, n, "labels")
    if "split" in found:
        _check_column(where, "split", found["split"], n, "labels")
    ids = ids.astype(str)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) != n:
        raise InputError(f"{where}: the id {str(values[counts > 1][0])!r} stands "
                         f"{counts.max()} times in ids; allowed: different ids")
    for name, array in found.items():
        if name.startswith(FORGET):
            check_positions(where, name, array, n)
        elif name.startswith(ATTRIBUTE):
            _check_column(where, name, array, n, "labels")
            if array.dtype.kind not in "iub":
                raise InputError(f"{where}: {name} is {array.dtype}; allowed: whole numbers")
    if task == "regression":
        return images, _numbers(found["labels"], where), ids, ()
    labels, class_names = _classes(found["labels"], found.get("class_names"), where)
    return images, labels, ids, class_names


def position_ids(n: int) -> np.ndarray:
    """`[n]`: the ids of samples that have none of their own."""
    return np.array([f"{i:07d}" for i in range(n)], "U")


def check_positions(where: str, name: str, positions: np.ndarray, n: int) -> None:
    """Refuses positions that are not those of different samples among `n`.

    Raises:
      InputError: the message says what is allowed.
    """
    if positions.ndim != 1 or positions.dtype.kind not in "iu" or not len(positions):
        hint = " (numpy.flatnonzero makes positions of it)" if positions.dtype == bool else ""
        raise InputError(f"{where}: {name} is {_text(positions)}{hint}; allowed: positions of "
                         f"samples, whole numbers [K] from 0 to {n - 1}")
    if positions.min() < 0 or positions.max() >= n:
        bad = positions[(positions < 0) | (positions >= n)][0]
        raise InputError(f"{where}: {name} holds {bad}; allowed: positions from 0 to {n - 1}")
    if len(np.unique(positions)) != len(positions):
        raise InputError(f"{where}: {name} holds a position twice; allowed: different ones")


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes arrays as a .npz file that is named by their digest, unless it is there.

    Args:
      folder: made where it is missing.
      arrays: by the names that the head of this module lists.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array)
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes() if array.dtype.kind == "U" else array.data)
    path = folder / f"arrays-{digest.hexdigest()}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        disk.require_space(folder, sum(array.nbytes for array in arrays.values()))
        named: dict[str, Any] = dict(arrays)
        disk.write_file(path, lambda f: np.savez(f, **named))
    return path


def _read(path: str) -> dict[str, np.ndarray]:
    file = Path(path).expanduser()
    if not path or not file.is_file() or file.suffix != ".npz":
        what = ("empty" if not path else f"{path!r}, which "
                + ("is of another kind" if file.exists() else "does not exist"))
        raise InputError(f"{_KEY} is {what}; allowed with config.data.source='arrays': a .npz file "
                         "with images and labels")
    try:
        with file.open("rb") as f, np.load(f) as arrays:
            return dict(arrays)
    except MemoryError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as e:
        raise InputError(f"{_KEY} is {path!r}, which cannot be read ({e}); allowed: a file that "
                         "numpy.savez wrote, with no arrays of objects") from e


def _splits(found: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """`[N]` int8: the places of the samples' splits in `given.SPLITS`."""
    if "split" not in found:
        raise InputError(f"{where}: the array 'split' is missing, which config.data.split="
                         f"{given.GIVEN!r} needs; allowed: [N] text, train, validation or test")
    names, numbers = np.unique(found["split"].astype(str), return_inverse=True)
    places = given.check_names(names.tolist(), where)
    return np.array(list(places.values()), np.int8)[numbers.reshape(-1)]


def _resized(images: np.ndarray, image_size: int, where: str) -> np.ndarray:
    """`[N, image_size, image_size, 3]`."""
    if images.shape[1:] == (image_size, image_size, 3):
        return images
    try:
        return np.stack([decode_image(image, image_size, min_side=1) for image in images])
    except UnusableImage as e:
        raise InputError(f"{where}: images are {_text(images)}, which is {e}") from e


def _check_column(where: str, name: str, column: np.ndarray, n: int, other: str) -> None:
    if column.shape != (n,):
        raise InputError(f"{where}: {name} is {_text(column)} beside {n} {other}; allowed: [{n}]")


def _numbers(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "fiub":
        raise InputError(f"{where}: labels are {labels.dtype}; allowed for "
                         "config.data.task='regression': numbers")
    found = labels.astype(np.float64)
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise InputError(f"{where}: labels[{row}] is {found[row]}; allowed: finite numbers")
    return found


def _classes(labels: np.ndarray, names: np.ndarray | None, where: str,
             ) -> tuple[np.ndarray, tuple[str, ...]]:
    """`[N]` numbers of classes as float64, and the names."""
    if labels.dtype.kind not in "iubU":
        raise InputError(f"{where}: labels are {labels.dtype}; allowed for "
                         "config.data.task='classification': whole numbers or text")
    if names is None:
        values, numbers = np.unique(labels, return_inverse=True)
        return numbers.reshape(-1).astype(np.float64), tuple(map(str, values.tolist()))
    names = names.astype(str)
    if names.ndim != 1 or len(set(names.tolist())) != len(names):
        raise InputError(f"{where}: class_names is {_text(names)}; allowed: different names [C]")
    if labels.dtype.kind == "U":
        places = {name: number for number, name in enumerate(names.tolist())}
        unknown = sorted(set(labels.tolist()) - set(places))
        if unknown:
            raise InputError(f"{where}: labels hold {unknown[0]!r}; allowed: one of class_names, "
                             f"{', '.join(map(repr, names.tolist()))}")
        return np.array([places[label] for label in labels.tolist()], np.float64), tuple(places)
    found = labels.astype(np.int64)
    if found.min() < 0 or found.max() >= len(names):
        raise InputError(f"{where}: labels run from {found.min()} to {found.max()}; allowed with "
                         f"{len(names)} class_names: 0 to {len(names) - 1}")
    return found.astype(np.float64), tuple(names.tolist())


def _text(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
