"""What a method is and what it may know."""

import dataclasses
from collections.abc import Callable

import ml_collections
import optax

from unlearn_jax.models import Model
from unlearn_jax.train import Loss, Step


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """The labels a method may draw from.

    Attributes:
      low, high: smallest and largest label, inclusive, label units (regression).
      num_classes: classes; 0 for regression.
      scale: label units per unit of normalised label (`model.output_scale`).
    """

    low: float
    high: float
    num_classes: int
    scale: float


@dataclasses.dataclass(frozen=True)
class Setting:
    """What `Method.make_step` is given.

    Attributes:
      model: the network.
      optimizer: update direction; the step multiplies it by minus the learning rate.
      loss: the loss that the original model was trained with.
      labels: the label space of the data.
      config: the section `unlearn` of the config.
    """

    model: Model
    optimizer: optax.GradientTransformation
    loss: Loss
    labels: LabelSpace
    config: ml_collections.ConfigDict


@dataclasses.dataclass(frozen=True)
class Method:
    """An unlearning method: where it starts, what it walks over, and its step.

    Attributes:
      start: `original` (the weights of M_O) or `initial` (the weights that M_O started from).
      walks_forget: whether an epoch walks over D_r and D_f, or over D_r alone.
      make_step: makes the single-member step that the engine loops over.
      options: the keys of the section `unlearn` that this method alone reads; its results
        are kept apart by them.
    """

    start: str
    walks_forget: bool
    make_step: Callable[[Setting], Step]
    options: tuple[str, ...] = ()
