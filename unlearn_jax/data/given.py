"""Splits that come with the data (`data.split='given'`): their names, and what is drawn from train.

Folders, the column `split` of a .csv file and data sets of TFDS may name splits. The training split
must be there. A validation or test split that is missing is drawn from the training split.
"""

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.source import Samples
from unlearn_jax.errors import InputError
from unlearn_jax.labels import some_classes

GIVEN = "given"  # the value of data.split
SPLITS = ("train", "validation", "test")
SPELLINGS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}  # in small letters
WITH_SPLITS = ("folder", "arrays", "tfds")  # sources that may give splits
COLUMN = "split as given"  # among the attributes of a source's samples; `take_splits` removes it
_SPLIT = 2  # the data seed's stream, as for splits that are drawn; see splits.py


def is_given(settings) -> bool:
    """Whether the config's `data` section asks for the data's own splits."""
    return tuple(settings.split) == (GIVEN,)


def find_split(name: str) -> int | None:
    """The place in `SPLITS` of a split's name, in small or capital letters; None: it is none."""
    return SPELLINGS.get(name.lower())


def check_names(names: Iterable[str], where: str) -> dict[str, int]:
    """The place in `SPLITS` of each name.

    Args:
      names: all splits of a source, as it spells them.
      where: the source, for the message.

    Raises:
      InputError: a name is no split, two names mean the same one, or none means the training split.
    """
    found: dict[int, str] = {}
    for name in names:
        number = find_split(name)
        if number is None:
            raise InputError(f"{where} has the split {name!r}, which config.data.split={GIVEN!r} "
                             f"does not know; allowed: {', '.join(SPELLINGS)}")
        if number in found:
            raise InputError(f"{where} has the splits {found[number]!r} and {name!r}, which both "
                             f"mean {SPLITS[number]}; allowed: one of them")
        found[number] = name
    if 0 not in found:
        held = ", ".join(map(repr, found.values())) or "no split"
        raise InputError(f"{where} has {held} and no 'train', which config.data.split={GIVEN!r} "
                         "needs; a missing validation or test split is drawn from it")
    return {name: number for number, name in found.items()}


def take_splits(held: Samples, names: dict[str, int], where: str) -> Samples:
    """The samples with the attribute `COLUMN` as their splits.

    Args:
      held: as the cache has them.
      names: the splits of the source, from `check_names`.
      where: the source, for the message.

    Raises:
      InputError: no image of a split is usable.
    """
    attributes = dict(held.attributes)
    splits = attributes.pop(COLUMN).astype(np.int8)
    for name, number in names.items():
        if not (splits == number).any():
            raise InputError(f"{where} has the split {name!r}, and no usable image in it; mend its "
                             "images" + ("" if number == 0 else ", or remove the split, so that "
                                         "it is drawn from train"))
    return dataclasses.replace(held, attributes=attributes, splits=splits)


def strata_apart(strata: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Strata `[N]` that lie within the given splits `[N]`; unchanged if there are none, `[0]`."""
    if not len(splits):
        return strata
    return np.unique(np.stack([splits, strata]), axis=1, return_inverse=True)[1].reshape(-1)


def check_left(splits: np.ndarray, rows: np.ndarray) -> None:
    """Refuses steps of preparation that leave nothing of a given split.

    Args:
      splits: `[N]` of all samples of a source; `[0]` if it gives no splits.
      rows: `[n]`, the samples that are left.

    Raises:
      InputError: names the split and the number of its samples.
    """
    if not len(splits):
        return
    for number in np.setdiff1d(splits, splits[rows]):
        raise InputError(
            f"config.data.split is {GIVEN!r}, and none of the {(splits == number).sum()} "
            f"{SPLITS[number]} samples is left after the steps of preparation "
            "(config.data.fraction, label_min, label_max, quality, repeats)")


def divide(dataset: Dataset, settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The given splits of a data set; what is missing is drawn from the training split.

    A missing split gets its share of the given training split at random. The shares are those of
    `split_shares` among train and the missing splits: with (0.6, 0.2, 0.2) a missing validation
    split gets 0.2 / (0.6 + 0.2), a quarter. If both are missing, the draw is the usual one.

    Args:
      dataset: N samples with `given_splits`.
      settings: the config's `data` section: split_shares, seed.

    Returns:
      int32 rows of train, validation and test, sorted.

    Raises:
      InputError: a class of the validation or test split has no training sample, or the training
        split has too few samples for what is drawn from it.
    """
    found = [np.flatnonzero(dataset.given_splits == n).astype(np.int32) for n in range(3)]
    if dataset.task == "classification":
        _check_classes(dataset, found)
    drawn = (0, *(n for n in (1, 2) if not len(found[n])))
    shares = np.array([settings.split_shares[n] for n in drawn])
    whole = len(found[0])
    counts = [round(share * whole) for share in (shares / shares.sum())[:-1]]
    order = np.random.default_rng([settings.seed, _SPLIT]).permutation(found[0])
    for n, part in zip(drawn, np.split(order, np.cumsum(counts, dtype=int))):
        if not len(part):
            raise InputError(f"config.data.split is {GIVEN!r}, and {SPLITS[n]} gets none of the "
                             f"{whole} samples of train; use more samples or other "
                             "config.data.split_shares")
        found[n] = np.sort(part)
    return found[0], found[1], found[2]


def _check_classes(dataset: Dataset, parts: list[np.ndarray]) -> None:
    trained = np.unique(dataset.labels[parts[0]])
    for name, rows in zip(SPLITS[1:], parts[1:]):
        labels = dataset.labels[rows]
        for label in np.setdiff1d(labels, trained)[:1]:
            known = some_classes([dataset.class_names[k] for k in trained])
            raise InputError(
                f"config.data.split is {GIVEN!r}, and class {dataset.class_names[label]!r} has "
                f"{(labels == label).sum()} {name} samples and none in train, so that no model "
                f"can learn it; classes in train: {known}")


def drawn(dataset: Dataset) -> tuple[str, ...]:
    """The splits that are drawn at random, of `SPLITS`; all three unless splits are given."""
    if not len(dataset.given_splits):
        return SPLITS
    return tuple(name for n, name in enumerate(SPLITS) if n not in dataset.given_splits)


def digest(ids: np.ndarray, parts: Iterable[np.ndarray]) -> str:
    """A hash of the ids `[N]` in each of the splits, given as rows."""
    text = "\n\n".join("\n".join(ids[rows].tolist()) for rows in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
