"""The result of a data source for the selection steps: samples, and their pixels on demand."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from unlearn_jax.data.dataset import Dropped, image_digests


@dataclasses.dataclass(frozen=True)
class Filter:
    """Refuses images: `reasons` maps [n, S, S, 3] uint8 to [n] str, '' for images to keep.

    `key` (JSON values) holds everything but the images that the reasons depend on.
    """

    key: dict
    reasons: Callable[[np.ndarray], list[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The images of chosen samples.

    Attributes:
      images: [k, S, S, 3] uint8, the images that were not refused; may be mapped from disk.
      digests: [k, 16] uint8, `dataset.image_digests(images)`.
      reasons: [n] str, why each chosen sample was refused; '' for the k kept ones.
    """

    images: np.ndarray
    digests: np.ndarray
    reasons: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """All usable samples of a source, sorted by id, without their pixels.

    Attributes:
      ids: [N] str.
      labels: [N] float64: label units or class numbers.
      attributes: name -> [N] int32.
      dropped: images that could not be used.
      pixels: (rows [n] int64, sorted; a filter or None) -> Pixels.
      splits: [N] int8, the place of each sample's split in `given.SPLITS`; [0]: not given.
    """

    ids: np.ndarray
    labels: np.ndarray
    attributes: dict[str, np.ndarray]
    dropped: tuple[Dropped, ...]
    pixels: Callable[[np.ndarray, Filter | None], Pixels]
    splits: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int8))


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A source's samples and the meaning of its labels.

    Attributes:
      name: 'utkface', 'digits', ...
      task: 'regression' | 'classification'.
      label_unit: 'years', 'class', ...
      class_names: () for regression.
      samples: all of them.
      sets: ids of the samples to be forgotten, by the NAME of the forget set `set:NAME`.
    """

    name: str
    task: str
    label_unit: str
    class_names: tuple[str, ...]
    samples: Samples
    sets: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)


def in_memory(images: np.ndarray, labels: np.ndarray, ids: np.ndarray,
              attributes: dict[str, np.ndarray]) -> Samples:
    """Samples from arrays that are already sorted by id."""

    def pixels(rows: np.ndarray, refuse: Filter | None) -> Pixels:
        chosen = images[rows]
        reasons = np.array(refuse.reasons(chosen) if refuse else [""] * len(rows), str)
        kept = chosen[reasons == ""]
        return Pixels(kept, image_digests(kept), reasons)

    return Samples(ids, np.asarray(labels, np.float64), attributes, (), pixels)
