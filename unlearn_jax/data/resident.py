"""The images for all members, splits and forget sets, once, as uint8, on the device or the host.

Samples are identified by their row everywhere, so nothing else depends on where the images lie.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.augment import Augmentation, render_copies
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.splits import Rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Resident:
    """Images and labels on the device, from which programs gather batches.

    The first N rows are the data set; the balanced training set's augmented copies follow.
    The copies are drawn once, from (sample, copy, seed), not at every step: the study's copies are
    fixed, and a population would otherwise draw each of them members x epochs times.

    Attributes:
      images: `[R, H, W, 3]` uint8; None where the host sends them (`Streamed`).
      labels: `[R]` float32 in label units, or int32 classes.
    """

    images: jax.Array | None
    labels: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """The same rows on the host, for devices without room for them.

    Attributes:
      images: `[N, H, W, 3]` uint8; may be mapped from a file larger than memory.
      copies: `[R - N, H, W, 3]` uint8, the augmented copies.
      labels: `[R]`, on the device.
    """

    images: np.ndarray
    copies: np.ndarray
    labels: jax.Array

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images `[..., H, W, 3]` of rows `[...]`; a negative row is padding, as in `Batches`."""
        flat = np.where(rows < 0, ~rows, rows).reshape(-1)
        of_copy = flat >= len(self.images)
        if of_copy.any():
            found = np.empty((len(flat), *self.images.shape[1:]), np.uint8)
            found[~of_copy] = self.images[flat[~of_copy]]
            found[of_copy] = self.copies[flat[of_copy] - len(self.images)]
        else:
            found = self.images[flat]
        return found.reshape(*rows.shape, *self.images.shape[1:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batches:
    """K batches of one member, as input of a program.

    Attributes:
      rows: `[K, B]` int32 resident rows; a negative entry is padding, a row's bitwise complement.
      images: `[K, B, H, W, 3]` uint8 if the host sends them; None: the program gathers them.
    """

    rows: jax.Array
    images: jax.Array | None = None

    def __getitem__(self, k: int | jax.Array) -> "Batches":
        """Batch k alone, without the axis K."""
        return jax.tree.map(lambda x: x[k], self)


@dataclasses.dataclass(frozen=True)
class RowIndex:
    """Finds the resident row of an image or of an augmented copy.

    Attributes:
      size: N, images in the data set.
      copies: `[C]` int64, the codes of the copies in resident order, sorted.
      factor: code = source * factor + copy.
    """

    size: int
    copies: np.ndarray
    factor: int

    def __call__(self, rows: Rows) -> np.ndarray:
        """Resident rows `[n]` int32 of (source, copy) pairs.

        Raises:
          KeyError: a copy that was never drawn.
        """
        codes = rows.source.astype(np.int64) * self.factor + rows.copy
        place = np.searchsorted(self.copies, codes)
        is_copy = rows.copy > 0
        if is_copy.any():
            missing = is_copy & ~np.isin(codes, self.copies)
            if missing.any():
                first = int(np.flatnonzero(missing)[0])
                raise KeyError(f"copy {rows.copy[first]} of sample {rows.source[first]} "
                               "was never drawn")
        return np.where(is_copy, self.size + place, rows.source).astype(np.int32)


def make_resident(dataset: Dataset, rows: Rows, augmentation: Augmentation, seed: int,
                  most_bytes: float = math.inf) -> tuple[Resident | Streamed, RowIndex]:
    """Draws the copies of a balanced training set and puts all images on the device or the host.

    Args:
      dataset: N images.
      rows: the balanced training set.
      augmentation: how copies differ from their source.
      seed: seed of the copies (`data.seed`).
      most_bytes: images with more bytes stay on the host.

    Returns:
      The images on the default device or on the host, and the index to find rows in them.
    """
    factor = int(rows.copy.max(initial=0)) + 1
    chosen = rows.copy > 0
    codes = np.unique(rows.source[chosen].astype(np.int64) * factor + rows.copy[chosen])
    source, copy = (codes // factor).astype(np.int32), (codes % factor).astype(np.int32)
    images, labels = dataset.images, np.concatenate([dataset.labels, dataset.labels[source]])
    drawn = render_copies(images, source, copy, seed, augmentation)
    index = RowIndex(len(dataset.labels), codes, factor)
    if images.nbytes + drawn.nbytes > most_bytes:
        return Streamed(images, drawn, jnp.asarray(labels)), index
    if len(drawn):
        images = np.concatenate([images, drawn])
    return Resident(jnp.asarray(images), jnp.asarray(labels)), index
