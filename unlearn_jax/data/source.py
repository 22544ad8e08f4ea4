"""What a data source hands to the selection steps: all its samples, before any choice."""

import dataclasses

import numpy as np

from unlearn_jax.data.dataset import Dropped, image_digests


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """All usable samples of a source at one image size, sorted by id.

    Attributes:
      images: [N, S, S, 3] uint8; may be mapped from disk, and in another order.
      rows: [N] int64, where in `images` each sample is.
      labels: [N] float64: label units or class numbers.
      ids: [N] str.
      attributes: name -> [N] int32.
      digests: [N, 16] uint8, `dataset.image_digests` of each sample's image.
      dropped: what could not be used.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    attributes: dict[str, np.ndarray]
    digests: np.ndarray
    dropped: tuple[Dropped, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A source's samples and what its labels mean.

    Attributes:
      name: 'utkface', 'digits', ...
      task: 'regression' | 'classification'.
      label_unit: 'years', 'class', ...
      class_names: () for regression.
      samples: all of them.
    """

    name: str
    task: str
    label_unit: str
    class_names: tuple[str, ...]
    samples: Samples


def in_memory(images: np.ndarray, labels: np.ndarray, ids: np.ndarray,
              attributes: dict[str, np.ndarray]) -> Samples:
    """Samples from arrays that are sorted by id already."""
    return Samples(images, np.arange(len(images)), np.asarray(labels, np.float64), ids,
                   attributes, image_digests(images), ())
