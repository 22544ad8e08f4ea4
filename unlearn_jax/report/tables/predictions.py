"""Files of predictions: the outputs of one population for one split of the data."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unlearn_jax.errors import ReportError
from unlearn_jax.report.tables.files import read_arrays

SPLITS = ("test", "forget", "retain", "validation", "stamped")
_ARRAYS = ("outputs", "labels", "ids", "seeds")


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The outputs of one population for one split.

    Attributes:
      outputs: `[M, N]` label units, or logits `[M, N, C]`; NaN where a member failed.
      labels: `[N]` label units, or classes.
      ids: `[N]` str.
      seeds: `[M]`.
      further: the other arrays of the file, such as `member` (docs/score.md).
    """

    outputs: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    seeds: np.ndarray
    further: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def errors(self) -> np.ndarray:
        """`[M, N]`: absolute errors in label units, or 1 - p(true class)."""
        if self.outputs.ndim == 2:
            return np.abs(self.outputs - self.labels[None, :])
        shifted = self.outputs - self.outputs.max(axis=-1, keepdims=True)
        p = np.exp(shifted)
        p /= p.sum(axis=-1, keepdims=True)
        return 1 - np.take_along_axis(p, self.labels[None, :, None], axis=-1)[..., 0]

    @property
    def losses(self) -> np.ndarray:
        """`[M, N]`: absolute errors in label units, or cross entropies in nats."""
        if self.outputs.ndim == 2:
            return self.errors
        shifted = self.outputs - self.outputs.max(axis=-1, keepdims=True)
        true = np.take_along_axis(shifted, self.labels[None, :, None], axis=-1)[..., 0]
        return np.log(np.exp(shifted).sum(axis=-1)) - true

    @functools.cached_property
    def finite(self) -> "Prediction":
        """The members without a NaN."""
        good = np.isfinite(self.outputs).all(axis=tuple(range(1, self.outputs.ndim)))
        return Prediction(self.outputs[good], self.labels, self.ids, self.seeds[good],
                          self.further)


def parse_prediction_name(name: str) -> tuple[str, str, int, str]:
    """Method, forget set, budget and split of `METHOD.FORGETSET.BUDGET.SPLIT.npz`.

    A forget set's name may hold dots ('random-0.02'); the other parts may not.

    Raises:
      ReportError: the name has another form.
    """
    match = re.fullmatch(r"([^.]+)\.(.+)\.(\d+)\.([^.]+)\.npz", name)
    if not match or match[4] not in SPLITS:
        raise ReportError(f"predictions/{name} is not named METHOD.FORGETSET.BUDGET.SPLIT.npz "
                          f"with SPLIT one of {', '.join(SPLITS)}")
    return match[1], match[2], int(match[3]), match[4]


def read_prediction(path: Path, name: str, classification: bool) -> Prediction:
    """Reads a file.

    Args:
      path: where it is.
      name: what it is called in messages.
      classification: whether outputs are logits `[M, N, C]`.

    Raises:
      ReportError: it is missing, or an array is, or has another shape.
    """
    try:
        found = read_arrays(path, name)
    except FileNotFoundError:
        raise ReportError(f"{name} is missing, but results.csv has its model") from None
    arrays = {key: found[key] for key in _ARRAYS if key in found}
    missing = [key for key in _ARRAYS if key not in arrays]
    if missing:
        raise ReportError(f"{name}: the array {missing[0]!r} is missing")
    outputs, labels, ids, seeds = arrays.values()
    n, rank = len(labels), 3 if classification else 2
    form = "[M, N, C]" if classification else "[M, N]"
    for key, array, good in (
            ("labels", labels, labels.ndim == 1 and n > 0),
            ("outputs", outputs, outputs.ndim == rank and outputs.shape[1] == n),
            ("ids", ids, ids.shape == (n,)),
            ("seeds", seeds, seeds.shape == outputs.shape[:1])):
        if not good:
            raise ReportError(f"{name}: the array {key!r} has shape {list(array.shape)}; it "
                              f"must go with outputs {form}, labels [N], ids [N], seeds [M]")
    if classification:
        labels = labels.astype(np.int64)
        if labels.min() < 0 or labels.max() >= outputs.shape[2]:
            raise ReportError(f"{name}: the array 'labels' runs from {labels.min()} to "
                              f"{labels.max()}; there are {outputs.shape[2]} classes")
    return Prediction(outputs.astype(np.float64), labels, ids.astype(str), seeds,
                      {key: array for key, array in found.items() if key not in _ARRAYS})
