"""Variants of a method in one run: the trials of a comparison, and the arms of a study.

A comparison searches for each method's best setting. The arms of a study run one method several
times, each time with other settings and with budgets fixed before. `thesis.unlearn.ARM` holds the
changes of an arm to the section `unlearn`.

All methods get the same share of the cost of retraining, the same number of trials, and the same
rule, which uses only errors on one half of the retained validation samples. No method trains on
that half in any comparison: a method that trains on validation samples (reset) has the other half.
This module trains nothing.
"""

import dataclasses
import importlib.util
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.methods import METHODS, find_method
from unlearn_jax.methods.outside import Found
from unlearn_jax.system.nested import flat

_RESERVED = ("median", "original", "retrain")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,79}")  # begins file names
_TRAINING = ("batch_size", "optimizer", "learning_rate", "schedule", "warmup", "weight_decay",
             "momentum")  # keys of `unlearn` for methods that take steps


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting of a method.

    Attributes:
      config: whole config of a run of this method alone; budgets and forget sets are set later.
      learning_rate: the learning rate; NaN if the method trains nothing.
      strength: value of the first searched option; NaN if there is none.
      option: name of that option; '' if there is none.
    """

    config: ml_collections.ConfigDict
    learning_rate: float
    strength: float
    option: str = ""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budget of a method on a forget set.

    Attributes:
      epochs: epochs of unlearning.
      note: says in words that the budget cannot be used or must be exceeded; else ''.
      exceeded: whether even one epoch costs so much that none would be nearer to the budget; for a
        method without steps, whether its preparation costs too much.
    """

    epochs: int
    note: str = ""
    exceeded: bool = False


@dataclasses.dataclass(frozen=True)
class Selection:
    """The chosen trial, and the reasons.

    Attributes:
      chosen: position of the chosen trial.
      limit: the largest error allowed.
      errors: `[T]` mean over seeds; NaN for a trial with a failed member.
      within: `[T]` bool, whether a trial's error is within the limit.
    """

    chosen: int
    limit: float
    errors: np.ndarray
    within: np.ndarray

    @property
    def at_the_end(self) -> bool:
        """Whether the strongest of several trials is within the limit, so no limit was reached."""
        return len(self.within) > 1 and bool(self.within[-1])


def shared_keys(name: str) -> tuple[str, ...]:
    """The keys of `config.unlearn` that decide a method of the package, its own section included.

    It omits keys that a comparison sets or that all its methods must share: the budget, and the
    seed whose M_O they start from.
    """
    method = METHODS[name]
    return (*(_TRAINING if method.make_step else ()), *method.shared_keys,
            *((name,) if method.options else ()))


def method_config(config: ml_collections.ConfigDict, request: str) -> ml_collections.ConfigDict:
    """The config of one method of a comparison, as for a run of its own.

    Args:
      config: has a section `compare`; the keys in `compare.unlearn.METHOD` replace those of
        `unlearn`.
      request: a method's name, or path/to/file.py:NAME.

    Raises:
      ConfigError: the method does not exist.
    """
    found = find_method(request)
    c = config.copy_and_resolve_references()
    with c.unlocked():
        if found.name in config.compare.unlearn:
            c.unlearn.update(c.compare.unlearn[found.name])  # without references to other keys
        c.unlearn.method = request
        if found.method.make_step is None:
            c.unlearn.epochs = (0,)
        c.compare.methods = ()
        c.compare.unlearn = ml_collections.ConfigDict()
    return c


def spread(ends: Sequence[float], count: int) -> tuple[float, ...]:
    """`count` factors from the first end to the last, evenly spaced in the logarithm.

    A single factor is 1: the method as configured.
    """
    if count == 1:
        return (1.0,)
    first, last = ends
    return tuple(first * (last / first) ** (k / (count - 1)) for k in range(count))


def make_trials(config: ml_collections.ConfigDict, request: str) -> tuple[Trial, ...]:
    """The trials of a method, from weak to strong.

    From one trial to the next, the learning rate rises by the factors of `compare.rates`, and the
    options in `Method.searched` change by their own factors at the same time. Values are rounded to
    three digits; integers stay integers.

    Args:
      config: with a section `compare`.
      request: a method's name, or path/to/file.py:NAME.

    Returns:
      `compare.trials` trials; fewer if some would be equal, and one if the method trains nothing
      and has no searched options.
    """
    base, found = method_config(config, request), find_method(request)
    method, count = found.method, config.compare.trials
    searched = method.searched(base.unlearn[found.name]) if found.name in base.unlearn else {}
    option = next(iter(searched), "")
    factors = {key: spread(ends, count) for key, ends in searched.items()}
    trials: list[Trial] = []
    for i, rate in enumerate(spread(config.compare.rates, count)):
        c = base.copy_and_resolve_references()
        with c.unlocked():
            if method.make_step is not None:
                c.unlearn.learning_rate = _rounded(base.unlearn.learning_rate * rate)
            for key, own in factors.items():
                options = c.unlearn[found.name]
                value = _rounded(options[key] * own[i])
                options[key] = round(value) if isinstance(options[key], int) else value
        if all(c != t.config for t in trials):
            trials.append(Trial(
                c, c.unlearn.learning_rate if method.make_step is not None else math.nan,
                float(c.unlearn[found.name][option]) if option else math.nan, option))
    return tuple(trials)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def fit_epochs(fraction: float, prepared: float, of_epoch: Callable[[int], float]) -> Budget:
    """The number of epochs with the cost nearest to the budget, but at least one.

    It is not the largest number that fits: that may use only half of the budget, while one more
    epoch would be nearer to it. If two numbers are equally near, the smaller counts.

    Args:
      fraction: the budget, as a share of the cost of retraining.
      prepared: the method's cost before its first step, in the same unit.
      of_epoch: the cost of an epoch, by its number counted from zero; 0 ends the count.
    """
    first = of_epoch(0)
    epochs, spent = 1, prepared + first
    if _nearer(prepared, spent, fraction):
        parts = f"preparation {_percent(prepared)}, one epoch {_percent(first)}"
        return Budget(1, f"takes {_percent(spent)} of retraining ({parts}) where the budget is "
                      f"{_percent(fraction)}", True)
    while (cost := of_epoch(epochs)) > 0 and not _nearer(spent, spent + cost, fraction):
        epochs, spent = epochs + 1, spent + cost
    return Budget(epochs)


def no_epochs(fraction: float, prepared: float) -> Budget:
    """The budget of a method that only prepares and trains nothing.

    Args:
      fraction, prepared: see `fit_epochs`.
    """
    if prepared > fraction * (1 + 1e-9):
        return Budget(0, f"takes {_percent(prepared)} of retraining (preparation; it trains "
                      f"nothing) where the budget is {_percent(fraction)}", True)
    return Budget(0, f"trains nothing, and its preparation takes {_percent(prepared)} of "
                  f"retraining where the budget is {_percent(fraction)}")


def _nearer(less: float, more: float, target: float) -> bool:
    """Whether the first is as near to the target as the second, up to rounding."""
    return abs(target - less) <= abs(more - target) + 1e-9 * target


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def limit(original: float, tolerance: float, classification: bool) -> float:
    """The largest validation error that a trial may have.

    Args:
      original: M_O's error: its mean loss, or for classes 1 − accuracy.
      tolerance: share by which the loss may rise, or the accuracy may fall.
    """
    if classification:
        return 1 - (1 - tolerance) * (1 - original)
    return (1 + tolerance) * original


def select(errors_TM: np.ndarray, original_M: np.ndarray, tolerance: float,
           classification: bool) -> Selection:
    """The strongest trial whose retained-validation error stays within tolerance of M_O's.

    If none does, it is the trial of lowest error; if all have failed, the weakest. Errors are
    averaged over the seeds whose M_O is finite. Forget samples, test samples and samples that a
    trial was trained on play no part.

    Args:
      errors_TM: errors of T trials, from weak to strong, and M seeds, on D_r's validation samples
        that no method trains on: mean losses, or for classes 1 − accuracy; NaN: a failed member.
      original_M: errors of the M_O that each seed's trials started from.
      tolerance: see `limit`.
      classification: whether the labels are classes.

    Raises:
      ValueError: the shapes do not fit.
    """
    if errors_TM.ndim != 2 or original_M.shape != errors_TM.shape[1:] or not len(errors_TM):
        raise ValueError(f"errors of trials {errors_TM.shape} and of M_O {original_M.shape}; they "
                         "must have shapes [T, M] and [M], with at least one trial")
    finite = np.isfinite(original_M)
    if not finite.any():
        return Selection(0, math.nan, np.full(len(errors_TM), np.nan),
                         np.zeros(len(errors_TM), bool))
    errors = errors_TM[:, finite].mean(1)
    errors[~np.isfinite(errors)] = np.nan
    highest = limit(float(original_M[finite].mean()), tolerance, classification)
    within = errors <= highest  # False for NaN
    if within.any():
        chosen = int(np.flatnonzero(within)[-1])
    else:
        chosen = 0 if np.isnan(errors).all() else int(np.nanargmin(errors))
    return Selection(chosen, highest, errors, within)


def method_file(config_file: str, found: Found) -> str:
    """FILE:SCALE of the method's config beside a comparison's; ft's for a method from a file."""
    file, colon, scale = config_file.partition(":")
    name = "ft" if found.code else found.name
    return f"{Path(file).with_name(name + '.py')}{colon}{scale}"


def load_config(config_file: str) -> ml_collections.ConfigDict:
    """The config that `--config=FILE:SCALE` would give.

    Raises:
      InputError: the file does not exist, or has no `get_config`.
    """
    file, colon, scale = config_file.partition(":")
    if not Path(file).is_file():
        raise InputError(f"a comparison reads each method's config beside its own, and {file} is "
                         "no file")
    spec = importlib.util.spec_from_file_location(f"unlearn_jax_config_{Path(file).stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no file of Python; its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as e:
        raise InputError(f"{file} calls sys.exit({e.code!r}); it must define get_config") from e
    if not hasattr(module, "get_config"):
        raise InputError(f"{file} has no get_config")
    return module.get_config(scale) if colon else module.get_config()


def command(config_file: str, base: ml_collections.ConfigDict, wanted: ml_collections.ConfigDict,
            workdir: str) -> str:
    """The command that runs a config, as flags on top of a config file.

    Args:
      config_file: FILE:SCALE.
      base: the config that the file gives.
      wanted: the config to run; its section `compare` is left out.
      workdir: the work directory.
    """
    before, after = flat(base.to_dict()), flat(wanted.to_dict())
    changed = {key: value for key, value in after.items()
               if not key.startswith("compare.") and (key not in before or before[key] != value)}
    return shlex.join(["python", "-m", "unlearn_jax.main", f"--config={config_file}",
                       f"--workdir={workdir}",
                       *(f"--config.{key}={value}" for key, value in changed.items())])


def arm_config(config: ml_collections.ConfigDict, arm: str) -> ml_collections.ConfigDict:
    """The config of one arm, as for a run of its method alone.

    Args:
      config: has a section `thesis`; the keys in `thesis.unlearn.ARM`, including `method`, replace
        those of `unlearn`.
      arm: one of `thesis.arms`.

    Raises:
      ConfigError: the arm is not described.
    """
    if arm not in config.thesis.unlearn:
        known = ", ".join(map(repr, config.thesis.unlearn)) or "none"
        raise ConfigError(f"config.thesis.arms has {arm!r}, which config.thesis.unlearn does not "
                          f"describe; described: {known}")
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.unlearn.update(config.thesis.unlearn[arm])
        c.thesis.arms = ()
        c.thesis.unlearn = ml_collections.ConfigDict()
        c.thesis.elsewhere = ml_collections.ConfigDict()
    return c


def budgets(config: ml_collections.ConfigDict, arm: str,
            forget_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The epochs of an arm by forget set: all its budgets for the first, `elsewhere` for others.

    Args:
      config: has a section `thesis`.
      arm: one of `thesis.arms`.
      forget_names: names in the config's order.
    """
    own = tuple(arm_config(config, arm).unlearn.epochs)
    others = tuple(config.thesis.elsewhere.get(arm, own))
    return {name: others if i else own for i, name in enumerate(forget_names)}


def check_arms(config: ml_collections.ConfigDict) -> None:
    """Refuses arms that cannot be distinguished, or that do not unlearn M_O.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    names = config.thesis.arms
    if len(set(names)) != len(names):
        raise ConfigError(f"config.thesis.arms is {names!r}; allowed: different names")
    if config.compare.methods:
        raise ConfigError("config.thesis.arms and config.compare.methods are both set; allowed: "
                          "one of the two")
    for arm in names:
        if arm in _RESERVED or not _NAME.fullmatch(arm):
            raise ConfigError(f"config.thesis.arms has {arm!r}; allowed: up to 80 letters, digits "
                              f"and _ + -, and none of {', '.join(_RESERVED)}")
        request = arm_config(config, arm).unlearn.method
        found = find_method(request)
        if found.name == "retrain" or found.method.scheme:
            raise ConfigError(f"config.thesis.unlearn.{arm}.method is {request!r}; allowed: "
                              "methods that unlearn M_O")
    for arm, epochs in config.thesis.elsewhere.items():
        whole = isinstance(epochs, tuple) and all(type(e) is int and e >= 0 for e in epochs)
        if not whole or len(set(epochs)) != len(epochs):
            raise ConfigError(f"config.thesis.elsewhere.{arm} is {epochs!r}; allowed: a tuple of "
                              "different whole numbers of at least 0")
