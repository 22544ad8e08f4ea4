"""Changes to chosen training samples that let a test detect whether they were forgotten.

`config.data.inject` names one of

* `confusion:A:B:N`: N / 2 training samples of A and N / 2 of B exchange their labels, pair by
  pair. A model that has forgotten them confuses A and B no more than a retrained one (Goel et
  al. 2022, "Towards Adversarial Evaluations for Inexact Machine Unlearning": the interclass
  confusion test).
* `patch:A:N`: N training samples of A get a white patch in a corner. A model that has forgotten
  them no longer responds to the patch (Izzo et al. 2021, "Approximate Data Deletion from Machine
  Learning Models": the feature injection test, for images).

A and B are classes, or ranges of labels such as 20-28. The chosen samples are the forget set
`injected`.
"""

import dataclasses

import numpy as np

from unlearn_jax.data.dataset import Dataset
from unlearn_jax.errors import ConfigError
from unlearn_jax.labels import find_class, find_integer, find_range, some_classes

_STREAM = 6  # number of the data seed's stream; see splits.py
_ALLOWED = "'', confusion:A:B:N or patch:A:N, where A and B are classes or ranges such as 20-28"


@dataclasses.dataclass(frozen=True, eq=False)
class InjectedGroup:
    """Samples of one class or label range.

    Attributes:
      low, high: first and last label, inclusive; equal for a class.
    """

    low: float
    high: float

    def holds(self, labels: np.ndarray) -> np.ndarray:
        """`[N]` bool: whether each label belongs to the group."""
        return (labels >= self.low) & (labels <= self.high)


@dataclasses.dataclass(frozen=True, eq=False)
class Injection:
    """Which training samples are changed, and how.

    Attributes:
      kind: `confusion` or `patch`.
      groups: A and, for `confusion`, B.
      rows: `[n]` int32, sorted, the changed rows of the data set.
      labels: `[n]` the labels that they are trained with.
    """

    kind: str
    groups: tuple[InjectedGroup, ...]
    rows: np.ndarray
    labels: np.ndarray

    def trained_labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels `[N]` of the whole data set that models are trained with."""
        trained = labels.copy()
        trained[self.rows] = self.labels
        return trained

    def like_injected(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Test samples that correspond to the changed training samples.

        Args:
          labels: `[t]` of the test split.

        Returns:
          Places `[p]` of the groups' samples, and the labels `[p]` that training would have used:
          with `confusion` a label of the other group, with `patch` (stamped) their own.
        """
        groups = [np.flatnonzero(group.holds(labels)) for group in self.groups]
        # The other group may be smaller: its labels repeat. If it has none, there are none.
        given = [np.resize(labels[other], len(own)) if len(other) else labels[own][:0]
                 for own, other in zip(groups, groups[::-1])]
        places = np.concatenate([own[:len(new)] for own, new in zip(groups, given)])
        return places, np.concatenate(given)

    def training_view(self, dataset: Dataset, test: np.ndarray) -> tuple[Dataset, np.ndarray]:
        """The data set that models are trained on, followed by stamped test images.

        Args:
          dataset: as loaded; not changed.
          test: `[t]` rows of the test split.

        Returns:
          The changed data set, `[N + t]` with `patch`, and the rows `[t]` of the stamped test
          images; none with `confusion`.
        """
        labels = self.trained_labels(dataset.labels)
        if self.kind == "confusion":
            return dataclasses.replace(dataset, labels=labels), np.zeros(0, np.int32)
        images = dataset.images.copy()
        images[self.rows] = stamp(images[self.rows])
        n = len(labels)
        extended = dataclasses.replace(
            dataset, images=np.concatenate([images, stamp(dataset.images[test])]),
            labels=np.concatenate([labels, dataset.labels[test]]),
            ids=np.concatenate([dataset.ids, np.char.add("stamped/", dataset.ids[test])]),
            attributes={k: np.concatenate([v, v[test]]) for k, v in dataset.attributes.items()},
            twins=np.arange(n + len(test), dtype=np.int32),  # a stamped image is another image
            given_splits=dataset.given_splits[:0])  # the splits are made
        return extended, np.arange(n, n + len(test), dtype=np.int32)


def stamp(images_NHWC: np.ndarray) -> np.ndarray:
    """Copies of uint8 images with a white square, an eighth of the height wide, at the top left."""
    stamped = images_NHWC.copy()
    size = max(2, images_NHWC.shape[1] // 8)
    stamped[:, :size, :size] = 255
    return stamped


def check_form(request: str) -> None:
    """Refuses a `config.data.inject` of another form, or with a number that cannot be halved.

    Raises:
      ConfigError: the message says what is allowed.
    """
    kind, *parts = request.split(":")
    if request and ((kind, len(parts)) not in (("confusion", 3), ("patch", 2))
                    or find_integer(parts[-1]) is None):
        raise ConfigError(f"config.data.inject is {request!r}; allowed: {_ALLOWED}")
    if request and (int(parts[-1]) < 1 or int(parts[-1]) % len(parts[:-1])):
        raise ConfigError(f"config.data.inject is {request!r}; N must be a positive multiple of "
                          f"{len(parts[:-1])}")


def choose_injection(request: str, dataset: Dataset, train: np.ndarray,
                     seed: int) -> Injection | None:
    """Chooses the samples that are changed.

    Args:
      request: `config.data.inject`.
      dataset: as loaded.
      train: `[n]` rows of the training split.
      seed: `config.data.seed`.

    Returns:
      The injection; None if the request is `''`.

    Raises:
      ConfigError: a request of another form, an unknown class, groups that overlap, or fewer
        samples than requested.
    """
    if not request:
        return None
    check_form(request)
    kind, *parts = request.split(":")
    groups = tuple(_group(part, request, dataset) for part in parts[:-1])
    if len(groups) == 2 and groups[0].low <= groups[1].high and groups[1].low <= groups[0].high:
        raise ConfigError(f"config.data.inject is {request!r}; A and B must not overlap")
    count = int(parts[-1])
    rng = np.random.default_rng([seed, _STREAM])
    chosen = []
    for name, group in zip(parts, groups):
        found = train[group.holds(dataset.labels[train])]
        if len(found) < count // len(groups):
            raise ConfigError(f"config.data.inject is {request!r}; {name} has {len(found)} "
                              f"training samples, and {count // len(groups)} are to be changed")
        chosen.append(rng.permutation(found)[:count // len(groups)])
    rows, labels = np.concatenate(chosen), dataset.labels[np.concatenate(chosen[::-1])]
    order = np.argsort(rows)
    return Injection(kind, groups, rows[order].astype(np.int32), labels[order])


def _group(part: str, request: str, dataset: Dataset) -> InjectedGroup:
    if dataset.task == "classification":
        number = find_class(part, dataset.class_names)
        if number is None:
            raise ConfigError(f"config.data.inject is {request!r}; {part!r} is none of the classes "
                              f"{some_classes(dataset.class_names)}")
        return InjectedGroup(number, number)
    bounds = find_range(part)
    if not bounds or bounds[0] > bounds[1]:
        raise ConfigError(f"config.data.inject is {request!r}; {part!r} is no range of labels such "
                          f"as {dataset.labels.min():g}-{dataset.labels.max():g}")
    return InjectedGroup(*bounds)
