"""A loaded data set: one uint8 image array, labels, ids, and the samples that were left out."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Dropped:
    """One sample that was left out: its id, the step that left it out, and the reason."""

    id: str
    step: str  # 'read', 'quality', ...
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled image data set held in memory.

    Raises:
      ValueError: an array has another dtype or shape than stated here, an id is repeated,
        or a class label is outside [0, num_classes); the message names the field.
    """

    name: str  # 'synthetic', 'utkface', ...
    images: np.ndarray  # [N, H, W, 3] uint8
    labels: np.ndarray  # [N] float32 in label units (regression) or int32 classes
    ids: np.ndarray  # [N] str, unique and stable: a file name in the source, or a number
    task: str  # 'regression' | 'classification'
    label_unit: str  # 'years', 'class', ...
    num_classes: int  # 0 for regression
    class_names: tuple[str, ...]  # () for regression
    attributes: dict[str, np.ndarray]  # {'gender': [N] int32, ...}; {} where there are none
    dropped: tuple[Dropped, ...]  # everything left out so far
    histograms: dict[str, dict[str, int]]  # step -> {label: count}, for the report
    fingerprint: str  # see `fingerprint`
    # [K] str: samples of the source outside the configured fraction or label range
    left_out_ids: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "U1"))
    # [N] int32: the first row with the same pixels, mostly the row itself; () means always itself
    twins: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    # [N] int8: place of the sample's own split in `given.SPLITS`; (): the splits are to be drawn
    given_splits: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int8))
    # ids by the NAME of the forget set `set:NAME`; some may be left out of the data set
    sets: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not len(self.twins):
            object.__setattr__(self, "twins", np.arange(n, dtype=np.int32))
        _check_column(self.name, "twins", self.twins, n, np.int32)
        if len(self.given_splits):
            _check_column(self.name, "given_splits", self.given_splits, n, np.int8)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"images of {self.name!r} are {_shape_text(self.images)}; "
                             "they must be uint8 [N, H, W, 3]")
        if self.task not in ("regression", "classification"):
            raise ValueError(f"task of {self.name!r} is {self.task!r}; "
                             "allowed: 'regression', 'classification'")
        wanted = np.float32 if self.task == "regression" else np.int32
        _check_column(self.name, "labels", self.labels, n, wanted)
        if len(self.images) != n:
            raise ValueError(f"{self.name!r} has {len(self.images)} images for {n} labels")
        if self.ids.shape != (n,) or self.ids.dtype.kind != "U":
            raise ValueError(f"ids of {self.name!r} are {_shape_text(self.ids)}; "
                             f"they must be str [{n}]")
        values, counts = np.unique(self.ids, return_counts=True)
        if len(values) != n:
            raise ValueError(f"id {str(values[counts > 1][0])!r} of {self.name!r} occurs "
                             f"{np.max(counts)} times; ids must be unique")
        for key, column in self.attributes.items():
            _check_column(self.name, f"attribute {key!r}", column, n, np.int32)
        if self.task == "regression":
            if self.num_classes or self.class_names:
                raise ValueError(f"{self.name!r} is a regression with {self.num_classes} classes; "
                                 "num_classes must be 0 and class_names ()")
            if not np.isfinite(self.labels).all():
                row = int(np.flatnonzero(~np.isfinite(self.labels))[0])
                raise ValueError(f"label of {str(self.ids[row])!r} is {self.labels[row]}; "
                                 "labels must be finite")
        else:
            if len(self.class_names) != self.num_classes:
                raise ValueError(f"{self.name!r} has {self.num_classes} classes and "
                                 f"{len(self.class_names)} class names")
            if n and not (self.labels.min() >= 0 and self.labels.max() < self.num_classes):
                raise ValueError(f"class labels of {self.name!r} run from {self.labels.min()} to "
                                 f"{self.labels.max()}; allowed: 0 to {self.num_classes - 1}")


    def repeated(self, rows: np.ndarray, among: np.ndarray) -> int:
        """How many of the samples `rows` `[n]` have the same pixels as one of `among` `[m]`."""
        return int(np.isin(self.twins[rows], self.twins[among]).sum())


def image_digests(images: np.ndarray) -> np.ndarray:
    """[N, 16] uint8: the first 16 bytes of each image's SHA-256, from [N, H, W, C] uint8."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest()[:16] for image in images]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def first_equal(digests: np.ndarray) -> np.ndarray:
    """`[N]` int32: the first row with the digest of each; from `[N, 16]` uint8."""
    _, first, which = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    return first[which.reshape(-1)].astype(np.int32)


def fingerprint(images: np.ndarray, labels: np.ndarray, ids: np.ndarray,
                digests: np.ndarray | None = None) -> str:
    """A digest of the data that models learn from; equal arrays have equal digests everywhere.

    Files play no part, since archives and shards of the same images differ in their bytes. The
    width of the id array's dtype does not matter. Attributes only serve to choose forget sets, and
    those are identified by their ids.

    Args:
      images: [N, H, W, C] uint8.
      labels: [N].
      ids: [N] str.
      digests: `image_digests(images)` if already computed; then the images are not read.

    Returns:
      32 hexadecimal digits (BLAKE2b of 128 bits).
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.data)

    digest.update(f"images of {images.shape}|".encode())
    add("image digests", image_digests(images) if digests is None else digests)
    add("labels", labels)
    # lengths first, so that no two lists of ids share an encoding
    encoded = [str(i).encode() for i in ids]
    add("id lengths", np.asarray([len(i) for i in encoded], np.int64))
    digest.update(b"".join(encoded))
    return digest.hexdigest()


def _check_column(name: str, field: str, column: np.ndarray, n: int, dtype: type) -> None:
    if column.shape != (n,) or column.dtype != dtype:
        raise ValueError(f"{field} of {name!r} are {_shape_text(column)}; "
                         f"they must be {np.dtype(dtype)} [{n}]")


def _shape_text(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
