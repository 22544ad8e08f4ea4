"""The record of a method, and the information that a method gets."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np
import optax

from unlearn_jax import moved
from unlearn_jax.members import Pass
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings, make_optimizer, per_kind
from unlearn_jax.train import Loss, Step

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """The labels a method may draw from.

    Attributes:
      low, high: smallest and largest label, inclusive, label units (regression).
      num_classes: classes; 0 for regression.
      scale: label units per unit of normalised label (`model.output_scale`).
      mean, std: moments of the training split's labels, label units (regression).
      frequencies: share of each class in the training split; empty for regression.
      step: label units that stand for a year (`units.label_step`; regression).
    """

    low: float
    high: float
    num_classes: int
    scale: float
    mean: float = 0.0
    std: float = 1.0
    frequencies: tuple[float, ...] = ()
    step: float = 1.0

    @property
    def values(self) -> np.ndarray:
        """`[K]` the whole numbers of a regression's range, or its ends and every step between."""
        if self.step == 1:
            return np.arange(math.ceil(self.low), math.floor(self.high) + 1)
        return np.linspace(self.low, self.high, round((self.high - self.low) / self.step) + 1)


@dataclasses.dataclass(frozen=True)
class Setting:
    """The inputs from which a method makes its step, its passes and its preparation.

    Attributes:
      model: the network.
      optimizer: update direction; the step multiplies it by minus the learning rate.
      loss: the loss that the original model was trained with.
      labels: the label space of the data.
      config: the section `unlearn` of the config.
      options: the method's own keys, `config.unlearn.METHOD`.
      train: the section `train`, with the training settings of M_O.
    """

    model: Model
    optimizer: optax.GradientTransformation
    loss: Loss
    labels: LabelSpace
    config: ml_collections.ConfigDict
    options: ml_collections.ConfigDict
    train: ml_collections.ConfigDict


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The results of a method's preparation, before its first step.

    Attributes:
      variables: `[M, ...]`; the steps start from them.
      context: `[M, ...]` tree that every step reads: a teacher, a mask; None: nothing.
      touched: by layer, `[M, n]` bool: True for channels or weights that were perturbed or may
        move.
    """

    variables: Variables
    context: Any = None
    touched: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def over_retain(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """Each epoch is one pass over D_r."""
    del setting, epoch
    return (Pass("retain"),)


def over_all(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """Each epoch is one pass over D_r and D_f, mixed."""
    del setting, epoch
    return (Pass("all"),)


@moved.renamed_arguments({"reads": "shared_keys", "numbers": "version", "dials": "searched_options",
                           "own_runs": "budgets_run_apart"})
@dataclasses.dataclass(frozen=True)
class Method:
    """An unlearning method: its start, its preparation, its passes over the data, its step.

    Attributes:
      start: `original` (the weights of M_O) or `initial` (the weights that M_O started from).
      make_step: makes the single-member step that the engine loops over. A method that only
        prepares (budgets of 0 epochs) has none.
      passes: returns the passes of an epoch; epochs count from zero.
      prepare: runs before the first step; None: nothing to prepare.
      check: raises InputError before any training if the configuration cannot work.
      options: the method's own keys, `config.unlearn.METHOD.KEY`, with their published values.
      shared_keys: shared keys of `config.unlearn` that this method reads beyond the training ones.
      published: training keys of `config.unlearn` as the source gives them.
      optimizers: optimiser states, one for each `Pass.kind` from 0 on; 1: all kinds share one.
      budgets_run_apart: a longer run does not begin like a shorter one, even at a constant rate.
      strength: the option that decides the size of the change; a comparison searches it along with
        the learning rate; '': none.
      strengths: factors of its configured value, in the weakest and in the strongest trial.
      searched_options: for a method with options that decide which option is searched. A function
        of its options; returns, by name, the factors of each option that a comparison searches. The
        first one is shown first in trials.csv. None: `strength` alone.
      version: part of the key of its models; raised when the same config starts to give different
        models.
      later: options that were added after models had been stored. Their defaults change nothing
        and are left out of the key, so those models are still found.
      source: paper and equation or public code, for tables.
      scheme: '' for a method that changes M_O or trains like it. Otherwise the name of a training
        scheme in `stages.SCHEMES`, which makes its own models with the options and settings of
        `train`. A scheme has no budgets; of the attributes above it uses only `check`, `options`
        and `source`.
    """

    start: str = "original"
    make_step: Callable[[Setting], Step] | None = None
    passes: Callable[[Setting, int], tuple[Pass, ...]] = over_retain
    prepare: "Callable[[Setting, Preparation], Prepared] | None" = None
    check: Callable[[Setting], None] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared_keys: tuple[str, ...] = ()
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizers: int = 1
    budgets_run_apart: bool = False
    strength: str = ""
    strengths: tuple[float, float] = (0.25, 4.0)
    searched_options: Callable[
        [ml_collections.ConfigDict], Mapping[str, tuple[float, float]]] | None = None
    version: int = 1
    later: tuple[str, ...] = ()
    source: str = ""
    scheme: str = ""

    def __post_init__(self) -> None:
        if self.strength and self.strength not in self.options:
            raise ValueError(f"strength={self.strength!r} is none of the method's options: "
                             + (", ".join(self.options) or "it has none"))
        if self.strength and type(self.options[self.strength]) not in (int, float):
            raise ValueError(f"strength={self.strength!r} is {self.options[self.strength]!r}; it "
                             "must be a number")
        if unknown := [key for key in self.later if key not in self.options]:
            raise ValueError(f"later={unknown!r}: none of the method's options")
        if len(self.strengths) != 2 or min(self.strengths) <= 0:
            raise ValueError(f"strengths={self.strengths}; allowed: two positive factors")

    def searched(self, options: ml_collections.ConfigDict) -> Mapping[str, tuple[float, float]]:
        """The options that a comparison searches, with the factors of the two ends."""
        if self.searched_options:
            return self.searched_options(options)
        return {self.strength: self.strengths} if self.strength else {}

    def make_optimizer(self, settings: OptimizerSettings) -> optax.GradientTransformation:
        """The optimiser of these settings, with as many states as the method needs."""
        optimizer = make_optimizer(settings)
        return per_kind(optimizer, self.optimizers) if self.optimizers > 1 else optimizer
