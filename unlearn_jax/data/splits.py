"""The splits and the forget sets: index arrays into one data set."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unlearn_jax.data import given
from unlearn_jax.data.asked import REFUSE, SKIP, AskedId, read_ids, read_lines, unknown_in_words
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.inject import Injection, choose_injection
from unlearn_jax.data.seen import divide_by_list
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.labels import (
    find_class,
    find_integer,
    find_number,
    find_range,
    some_classes,
    strata,
)
from unlearn_jax.units import label_step

# streams of the data seed: the draws of one step do not depend on those of another; 0 and 5 belong
# to data/synthetic.py, 1 to data/__init__.py, 6 to data/inject.py, 7 to linear_injection.py, 8 to
# data/seen.py
_SPLIT, _BALANCE, _FORGET = 2, 3, 4
_LONGEST = 120  # characters of a forget set's name, which is part of file names


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The samples of a training epoch.

    Attributes:
      source: [n] int32, index into the data set.
      copy: [n] int32, 0 for the image itself, k for its k-th augmented copy.
    """

    source: np.ndarray
    copy: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ForgetSet:
    """D_f: the training and validation samples to be forgotten; never a test sample.

    Attributes:
      name: safe in a file name, starting with a letter or digit: '20-28', 'class-3',
        'random-0.02', 'gender-1', 'ids-requests', 'labels-20--10' (from -20 to -10).
      request: as in the config: '20-28', 'class:3', 'random:0.02', 'gender:1', 'ids:FILE',
        'injected'.
      train: [n] int32, sorted data set rows of D_f in the training split; no copies.
      validation: the same in the validation split; may be empty.
      in_test: number of samples in the test split that a list of ids names.
      left_out: number of ids of such a list whose samples were left out of the data set.
      peers: [p] int32, sorted data set rows of the test split that D_f is compared with: those that
        the request also describes (the same labels, class or attribute). All of the test split, if
        the request describes no kind of sample (random, ids, injected) or none in the test split.
      asked: the ids that such a list asks for, unknown ones among them; () for other requests.
    """

    name: str
    request: str
    train: np.ndarray
    validation: np.ndarray
    in_test: int = 0
    left_out: int = 0
    peers: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    asked: tuple[AskedId, ...] = ()

    @property
    def skipped(self) -> str:
        """The unknown ids that `config.forget.unknown='skip'` goes on without; '' for none."""
        unknown = unknown_in_words(self.asked)
        return f"{unknown}; they were skipped (config.forget.unknown)" if unknown else ""

    @property
    def untrained(self) -> str:
        """The requested samples that no model was trained on, in words; '' if there are none."""
        if not self.in_test + self.left_out:
            return ""
        whole = self.in_test + self.left_out
        were, left, are = ("was" if whole == 1 else "were", "was" if self.left_out == 1 else "were",
                           "is" if self.in_test == 1 else "are")
        return (f"{whole} of the ids asked for {were} never trained on: {self.in_test} {are} in "
                f"the test split, {self.left_out} {left} left out of the data set")


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The three splits, the balanced training set D_o and the forget sets.

    Attributes:
      train, validation, test: int32 data set rows, sorted, disjoint, together all rows.
      rows: D_o, originals and copies, sorted by source and copy.
      forget_sets: in the config's order.
      injection: the changed training samples (`data.inject`), if any.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    rows: Rows
    forget_sets: tuple[ForgetSet, ...]
    injection: Injection | None = None

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training, validation and test rows."""
        return self.train, self.validation, self.test

    def retain_rows(self, forget_set: ForgetSet | None) -> Rows:
        """D_r in the training set, without forgotten samples and their copies. None: all of D_o."""
        return self._rows_where(lambda forgotten: ~forgotten, forget_set)

    def forget_rows(self, forget_set: ForgetSet | None) -> Rows:
        """D_f in the training set, with copies. None: no rows."""
        return self._rows_where(lambda forgotten: forgotten, forget_set)

    def retain_train(self, forget_set: ForgetSet | None) -> np.ndarray:
        """[n] int32: the retained training samples, without copies."""
        return self.train if forget_set is None else _without(self.train, forget_set.train)

    def retain_validation(self, forget_set: ForgetSet | None) -> np.ndarray:
        """[n] int32: the retained validation samples."""
        if forget_set is None:
            return self.validation
        return _without(self.validation, forget_set.validation)

    def forget(self, forget_set: ForgetSet) -> np.ndarray:
        """[n] int32, sorted: D_f, training and validation samples."""
        return np.sort(np.concatenate([forget_set.train, forget_set.validation]))

    def trained_places(self, forget_set: ForgetSet) -> np.ndarray:
        """[n] places of the training samples in `forget(forget_set)`, in the order of `train`."""
        return np.searchsorted(self.forget(forget_set), forget_set.train)

    def _rows_where(self, choose: Callable[[np.ndarray], np.ndarray],
                    forget_set: ForgetSet | None) -> Rows:
        forgotten = np.zeros(0, np.int32) if forget_set is None else forget_set.train
        chosen = choose(np.isin(self.rows.source, forgotten))
        return Rows(self.rows.source[chosen], self.rows.copy[chosen])


def make_splits(dataset: Dataset, data_cfg, forget_cfg, trained_on: str = "") -> Splits:
    """Makes the splits, balances the training set and resolves the forget sets.

    All random choices depend on `data_cfg.seed` and the data set alone. Training and validation
    have round(share * N) samples; the test split has the rest. Given splits: `given.divide`.

    Args:
      dataset: N samples.
      data_cfg: the config's `data` section: split, split_shares, balance, seed, inject.
      forget_cfg: the config's `forget` section: sets, and unknown ('refuse' where it is left out).
      trained_on: file of the ids that an M_O from outside was trained on (seen.py); '': none.

    Raises:
      InputError: an empty split; a forget set of unknown syntax, class, attribute or id, one
        without training samples, or one that leaves nothing to train or validate on.
    """
    divide = given.divide if given.is_given(data_cfg) else _at_random
    train, validation, test = divide(dataset, data_cfg)
    if trained_on:
        parts = train, validation, test
        train, validation, test = divide_by_list(dataset, parts, data_cfg, trained_on)
    by_step: tuple[float, ...] = ()
    if data_cfg.balance and dataset.task == "regression":
        by_step = data_cfg.label_min, label_step(data_cfg)
    rows = balanced_rows(strata(dataset.labels, *by_step), train, data_cfg.balance, data_cfg.seed)
    injection = choose_injection(data_cfg.inject, dataset, train, data_cfg.seed)
    skip = getattr(forget_cfg, "unknown", REFUSE) == SKIP
    forget_sets = tuple(
        _forget_set(request, dataset, (train, validation, test), data_cfg.seed, injection, skip)
        for request in forget_cfg.sets)
    names = [f.name for f in forget_sets]
    for f in forget_sets:
        if len(f.name) > _LONGEST:
            raise InputError(f"{_wish(f.request)}: files would be called after {f.name!r}; allowed:"
                             f" up to {_LONGEST} characters; rename the class, column or file")
    for f in forget_sets:
        if names.count(f.name) > 1:
            same = [g.request for g in forget_sets if g.name == f.name]
            raise InputError(f"config.forget.sets has {' and '.join(map(repr, same))}, which "
                             f"share the name {f.name!r}; rename a file or drop one")
    for f, g in itertools.combinations(forget_sets, 2):
        if np.array_equal(f.train, g.train) and np.array_equal(f.validation, g.validation):
            n = len(f.train) + len(f.validation)
            raise InputError(f"config.forget.sets has {f.request!r} and {g.request!r}, which "
                             f"select the same {n} samples; drop one")
    return Splits(train, validation, test, rows, forget_sets, injection)


def _at_random(dataset: Dataset, data_cfg) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int32 rows of train, validation and test, sorted, drawn by the shares `data_cfg.split`."""
    n = len(dataset.labels)
    shares = data_cfg.split
    first = round(shares[0] * n)
    second = first + round(shares[1] * n)
    order = np.random.default_rng([data_cfg.seed, _SPLIT]).permutation(n).astype(np.int32)
    train, validation, test = (np.sort(part) for part in np.split(order, [first, second]))
    for name, part in zip(given.SPLITS, (train, validation, test)):
        if not len(part):
            raise InputError(f"config.data.split is {tuple(shares)!r}, which leaves no {name} "
                             f"sample of {n}; use more samples or other shares")
    return train, validation, test


def balanced_rows(labels: np.ndarray, train: np.ndarray, balance: int, seed: int) -> Rows:
    """The training samples and their augmented copies, up to `balance` rows per label.

    A label with n < balance samples gets balance - n copies, spread evenly: each sample has
    floor((balance - n) / n) copies, and (balance - n) mod n random samples have one more. Labels
    with more samples get none. Labels that are not integers are grouped by integer part; for a
    regression the labels here are strata (`labels.strata`).

    Args:
      labels: [N], of the whole data set.
      train: [n] int32, sorted rows of the training split.
      balance: rows per label; 0: no copies.
      seed: decides which samples have one more copy.
    """
    rng = np.random.default_rng([seed, _BALANCE])
    _, strata, counts = np.unique(np.floor(labels[train]), return_inverse=True,
                                  return_counts=True)
    copies = np.zeros(len(train), np.int64)
    for stratum, n in enumerate(counts):
        need = max(balance - n, 0)
        members = np.flatnonzero(strata == stratum)
        copies[members] = need // n
        copies[rng.permutation(members)[:need % n]] += 1
    source = np.repeat(train, copies + 1)
    first = np.cumsum(copies + 1) - (copies + 1)
    copy = np.arange(len(source)) - np.repeat(first, copies + 1)
    return Rows(source.astype(np.int32), copy.astype(np.int32))


def trained_half(validation: np.ndarray) -> np.ndarray:
    """The retained validation samples `[n]` that a method may train on: every other one."""
    return validation[::2]


def judging_half(validation: np.ndarray) -> np.ndarray:
    """The other half, on which no method trains: a comparison chooses its trials by it."""
    return validation[1::2]


def check_request(request: str, task: str, inject: str = "", allowed: str = "") -> None:
    """Refuses a forget set that no data set could have; a list of ids is read, and must have ids.

    Args:
      request: an element of `config.forget.sets`.
      task: `config.data.task`.
      inject: `config.data.inject`.
      allowed: the allowed requests, in words; '': those known without data.

    Raises:
      ConfigError: the message says what is allowed.
    """
    kind, _, value = request.partition(":")
    bounds = find_range(request)
    if not allowed:
        what = "a range of labels such as 20-28" if task == "regression" else "class:NAME"
        allowed = f"allowed: {what}; ATTRIBUTE:NUMBER; random:SHARE; ids:FILE"
    if request == "injected":
        if not inject:
            raise ConfigError(f"{_wish(request)} needs config.data.inject, which is ''")
    elif kind == "ids" and value:
        read_lines(value, _wish(request))
    elif kind == "random" and value:
        _share(request, value)
    elif kind == "set" and value:
        return  # only the data say which sets they have
    elif kind == "class" and value and task == "regression":
        raise ConfigError(f"{_wish(request)}: a regression has no classes; {allowed}")
    elif bounds and task == "regression":
        if bounds[0] > bounds[1]:
            raise ConfigError(f"{_wish(request)} has its ends reversed; give "
                              f"{bounds[1]:g}-{bounds[0]:g}")
    elif not value or kind != "class" and find_integer(value) is None:
        raise ConfigError(f"{_wish(request)} is not understood; {allowed}")


def _forget_set(request: str, dataset: Dataset, splits: tuple[np.ndarray, ...], seed: int,
                injection: Injection | None, skip: bool) -> ForgetSet:
    train, validation, test = splits
    if request == "injected":
        if injection is None:
            raise InputError(f"{_wish(request)} needs config.data.inject, which is ''")
        return ForgetSet(request, request, injection.rows, np.zeros(0, np.int32), peers=test)
    check_request(request, dataset.task, allowed=_allowed(dataset))
    asked = _asked(request, dataset, skip) if request.startswith("ids:") else ()
    name, mask = _select(request, dataset, np.concatenate([train, validation]), seed, asked)
    if not name[0].isalnum():
        name = "labels" + name
    describes = not request.startswith(("random:", "ids:")) and mask[test].any()
    chosen = ForgetSet(name, request, train[mask[train]], validation[mask[validation]],
                       peers=test[mask[test]] if describes else test)
    if request.startswith("ids:"):
        wanted = sum(len(a.found) for a in asked)
        in_test = int(mask.sum()) - len(chosen.train) - len(chosen.validation)
        chosen = dataclasses.replace(chosen, asked=asked, in_test=in_test,
                                     left_out=wanted - int(mask.sum()))
    wish = _wish(request)
    if not len(chosen.train) and request.startswith("random:"):
        n = len(train) + len(validation)
        raise InputError(f"{wish} selects no training sample of {len(train)}; one of the {n} "
                         f"training and validation samples is a share of {1 / n:.2g}")
    if not len(chosen.train):
        raise InputError(f"{wish} selects no training sample ({int(mask.sum())} of all "
                         f"{len(mask)} samples); {_allowed(dataset)}")
    for split, part, forgotten in (("training", train, chosen.train),
                                   ("validation", validation, chosen.validation)):
        if len(forgotten) == len(part):
            raise InputError(f"{wish} selects all {len(part)} {split} samples, so that none is "
                             f"retained; {_allowed(dataset)}")
    return chosen


def _select(request: str, dataset: Dataset, trained: np.ndarray, seed: int,
            asked: tuple[AskedId, ...]) -> tuple[str, np.ndarray]:
    """The set's name, and [N] bool: the samples that the request describes, in any split."""
    kind, _, value = request.partition(":")
    if kind == "ids" and value:
        named = np.array([own for a in asked for own in a.found], str)
        return "ids-" + _file_name(Path(value).stem), np.isin(dataset.ids, named)
    if kind == "set" and value in dataset.sets:
        return _file_name(value), np.isin(dataset.ids, list(dataset.sets[value]))
    if kind == "random" and value:
        return "random-" + _file_name(value), _random_mask(request, value, dataset, trained, seed)
    if kind == "class" and value and dataset.task == "classification":
        return "class-" + _file_name(value), dataset.labels == _class(request, value, dataset)
    if kind in dataset.attributes and find_integer(value) is not None:
        return f"{_file_name(kind)}-{int(value)}", dataset.attributes[kind] == int(value)
    bounds = find_range(request)
    if bounds and dataset.task == "regression":
        low, high = bounds
        return request, (dataset.labels >= low) & (dataset.labels <= high)
    raise InputError(f"{_wish(request)} is not understood; {_allowed(dataset)}")


def _class(request: str, value: str, dataset: Dataset) -> int:
    number = find_class(value, dataset.class_names)
    if number is None:
        raise InputError(f"{_wish(request)} names no class; {_allowed(dataset)}")
    return number


def _random_mask(request: str, value: str, dataset: Dataset, trained: np.ndarray,
                 seed: int) -> np.ndarray:
    """A random share of training and validation; a larger share contains a smaller one."""
    share = _share(request, value)
    order = np.random.default_rng([seed, _FORGET]).permutation(np.sort(trained))
    mask = np.zeros(len(dataset.labels), bool)
    mask[order[:round(share * len(trained))]] = True
    return mask


def _share(request: str, value: str) -> float:
    share = find_number(value)
    if share is None or not 0 < share < 1:
        raise ConfigError(f"{_wish(request)} needs a share between 0 and 1, such as random:0.02")
    return share


def _asked(request: str, dataset: Dataset, skip: bool) -> tuple[AskedId, ...]:
    """The ids that a file lists.

    Raises:
      InputError: some are unknown, and they are not to be skipped.
    """
    asked = read_ids(request.removeprefix("ids:"), _wish(request), dataset)
    if (unknown := unknown_in_words(asked)) and not skip:
        raise InputError(f"{_wish(request)}: {unknown}\nids look like {str(dataset.ids[0])!r} "
                         "(unlearn-jax list ids writes them all); config.forget.unknown='skip' "
                         "goes on without the unknown ones")
    return asked


def _allowed(dataset: Dataset) -> str:
    """The forget sets that are possible for this data set, in words."""
    kinds = []
    if dataset.task == "regression":
        low, high = dataset.labels.min(), dataset.labels.max()
        kinds.append(f"a range of labels within {low:g} to {high:g}, such as "
                     f"{low:g}-{(low + high) / 2:g}")
    else:
        kinds.append(f"class:NAME with one of {some_classes(dataset.class_names)}")
    for name, column in sorted(dataset.attributes.items()):
        values = np.unique(column)
        some = ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
        kinds.append(f"{name}:NUMBER with one of {some}")
    if dataset.sets:
        kinds.append(f"set:NAME with one of {', '.join(sorted(dataset.sets))}")
    return "allowed: " + "; ".join([*kinds, "random:SHARE", "ids:FILE"])


def _wish(request: str) -> str:
    return f"forget set {request!r} (config.forget.sets)"


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)


def _without(rows: np.ndarray, removed: np.ndarray) -> np.ndarray:
    return rows[~np.isin(rows, removed)]
