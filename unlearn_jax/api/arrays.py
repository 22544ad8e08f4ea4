"""The data of a study, as arrays in memory."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from unlearn_jax.config.keys import TASKS
from unlearn_jax.data import given
from unlearn_jax.data.arrays import ATTRIBUTE, FORGET, check_positions, checked, position_ids
from unlearn_jax.errors import InputError

_WHERE = "unlearn_jax.Data"
_NAME = re.compile(r"[A-Za-z0-9].*")


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Images with labels, and the sets of samples to be forgotten.

    A position is the index of a sample in `images`.

    Attributes:
      images: `[N, H, W, 3]`, `[N, H, W, 1]` or `[N, H, W]` uint8, grey levels from 0 to 255. Images
        that are not square are cut to the central square.
      labels: `[N]`: whole numbers or names of classes; label units for a regression.
      task: 'classification' or 'regression'.
      forget: positions `[K]` by the name of the forget set, such as `{"class 3": positions}`. Those
        in the training and validation splits are D_f. Those in the test split stay there: attacks
        compare D_f with them, or with the whole test split if there are none. Instead, requests as
        the config has them: `("class:3", "random:0.02")`.
      splits: positions by name ('train', 'validation', 'test'); each sample is in one of them. A
        missing validation or test split is drawn from the training split. {}: all are drawn.
      class_names: `[C]`; () for the different labels in their order.
      label_unit: of a regression, such as 'years'.
      ids: `[N]` names of the samples, all different, which tables and deletion requests use; None
        for their positions.
      attributes: whole numbers `[N]` by name, for requests such as `gender:1`.

    Raises:
      InputError: a field has another shape or type, or contradicts another; the message names it
        and says what is allowed.
    """

    images: ArrayLike
    labels: ArrayLike
    task: str = "classification"
    _: dataclasses.KW_ONLY
    forget: Mapping[str, ArrayLike] | Sequence[str]
    splits: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
    class_names: Sequence[str] = ()
    label_unit: str = ""
    ids: ArrayLike | None = None
    attributes: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"{_WHERE}: task is {self.task!r}; allowed: "
                             f"{', '.join(map(repr, TASKS))}")
        if isinstance(self.forget, str) or not len(self.forget):
            raise InputError(f"{_WHERE}: forget is {self.forget!r}; allowed: positions by name, "
                             "such as {'class 3': [7, 12, 40]}, or requests such as ('class:3',)")
        for name in self.forget if isinstance(self.forget, Mapping) else ():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InputError(f"{_WHERE}: forget has the name {name!r}; allowed: text that "
                                 "begins with a letter or a digit")
        checked(self.arrays(), self.task, _WHERE)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the names that `unlearn_jax.data.arrays` lists."""
        found = {"images": np.asarray(self.images), "labels": _plain(self.labels)}
        # Always, so that the store knows whose pixels the file has.
        found["ids"] = (position_ids(len(found["labels"])) if self.ids is None
                        else _plain(self.ids))
        if len(self.class_names):
            found["class_names"] = _plain(self.class_names)
        if self.splits:
            found["split"] = self._split(len(found["labels"]))
        found |= {ATTRIBUTE + name: np.asarray(column) for name, column in self.attributes.items()}
        if isinstance(self.forget, Mapping):
            found |= {FORGET + name: np.asarray(rows) for name, rows in self.forget.items()}
        return found

    def _split(self, n: int) -> np.ndarray:
        """`[N]`: the name of each sample's split.

        Raises:
          InputError: a split has an unknown name, or a sample is in none or in two.
        """
        found = np.full(n, "", "U10")
        given.check_names(self.splits, _WHERE)
        for name, rows in self.splits.items():
            positions = np.asarray(rows)
            check_positions(_WHERE, f"splits[{name!r}]", positions, n)
            if (taken := found[positions] != "").any():
                first = positions[taken][0]
                raise InputError(f"{_WHERE}: sample {first} is in the splits {str(found[first])!r} "
                                 f"and {name!r}; allowed: one")
            found[positions] = name
        if (left := np.flatnonzero(found == "")).size:
            raise InputError(f"{_WHERE}: {len(left)} of {n} samples, such as {left[0]}, are in no "
                             "split; allowed: each in one")
        return found

    @property
    def requests(self) -> tuple[str, ...]:
        """The forget sets as `config.forget.sets` names them."""
        if isinstance(self.forget, Mapping):
            return tuple(f"set:{name}" for name in self.forget)
        return tuple(self.forget)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return len(checked(self.arrays(), self.task, _WHERE)[3])

    @property
    def label_range(self) -> tuple[float, float]:
        """The smallest and the largest label of a regression, label units."""
        labels = np.asarray(self.labels, np.float64)
        return float(labels.min()), float(labels.max())

    @property
    def image_size(self) -> int:
        """The shorter side of the images, pixels."""
        return min(np.asarray(self.images).shape[1:3])


def _plain(column: ArrayLike) -> np.ndarray:
    """A column as an array of numbers or text; that of a data frame is an array of objects."""
    array = np.asarray(column)
    return np.array(array.tolist()) if array.dtype == object else array
