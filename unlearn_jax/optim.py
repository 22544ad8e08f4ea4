"""Optimisers and learning-rate schedules.

The optimiser gives a direction. The train step multiplies it by the learning rate, which can so
differ between members of one compiled program.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from unlearn_jax.system.made_once import made_once


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Optimiser and learning rate of one training run.

    Attributes:
      name: `adam` or `sgd`.
      learning_rate: the peak rate.
      schedule: `constant`, `cosine` (down to zero) or `onecycle` (up, then down to 1e-4).
      warmup: share of the steps in which `onecycle` rises.
      weight_decay: for `adam` decoupled, multiplied by the learning rate (AdamW); for `sgd` part
        of the gradient, as in the published values of the methods.
      momentum: momentum of `sgd`.
    """

    name: str
    learning_rate: float
    schedule: str
    warmup: float
    weight_decay: float
    momentum: float

    @classmethod
    def from_config(cls, section: ml_collections.ConfigDict) -> "OptimizerSettings":
        """The settings in `config.train` or `config.unlearn`."""
        return cls(section.optimizer, section.learning_rate, section.schedule, section.warmup,
                   section.weight_decay, section.momentum)


class Bounded(optax.GradientTransformationExtraArgs):
    """An optimiser whose weights and state stay finite while the values of `decisive` do.

    With Adam an update is at most about 7 and the moments at most the gradient and its square; with
    SGD an update is at most the largest gradient over 1 - momentum. Where squares are finite,
    gradients are below 1.9e19, so that at rates up to `LARGEST_RATE` no weight can overflow in
    fewer than millions of steps. With momentum 1 the steps add up, and it still takes 100,000.
    """


class Decaying(Bounded):
    """A bounded optimiser with weight decay; a decay above 2 / rate makes weights grow.

    So the weights before the step are checked, too.
    """


# A step with a higher rate counts as not finite.
LARGEST_RATE = 1e6


def decisive(optimizer: Bounded, gradients: Any, params: Any) -> Any:
    """A tree of arrays; if all are finite, the optimiser's result from a finite state is, too.

    Args:
      optimizer: from `make_optimizer` or `per_kind`.
      gradients, params: trees before the step.
    """
    squares = jax.tree.map(jnp.square, gradients)  # Adam's second moment holds them
    return (squares, jax.tree.map(jnp.square, params)) if isinstance(optimizer, Decaying) \
        else squares


@made_once
def make_optimizer(settings: OptimizerSettings) -> Bounded:
    """Makes the optimiser of these settings, without the learning rate.

    The training step multiplies its updates by minus the learning rate.
    """
    decay = optax.add_decayed_weights(settings.weight_decay)
    kind = Decaying if settings.weight_decay else Bounded
    if settings.name == "adam":
        return kind(*optax.chain(optax.scale_by_adam(), decay))
    return kind(*optax.chain(decay, optax.trace(decay=settings.momentum)))


def per_kind(optimizer: optax.GradientTransformation,
             kinds: int) -> optax.GradientTransformationExtraArgs:
    """The optimiser with a separate state (momentum, moments, count) for each kind of batch.

    Args:
      optimizer: gives the direction.
      kinds: the kinds are 0 to `kinds` - 1.

    Returns:
      An optimiser whose `update` takes the batch's `kind`; the states are stacked, `[kinds, ...]`.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return jax.tree.map(lambda x: jnp.stack([x] * kinds), optimizer.init(params))

    def update(updates, state, params=None, *, kind, **extra):
        own = jax.tree.map(lambda x: x[kind], state)
        updates, own = optimizer.update(updates, own, params, **extra)
        return updates, jax.tree.map(lambda x, new: x.at[kind].set(new), state, own)

    kind_of_optimizer = type(optimizer) if isinstance(optimizer, Bounded) \
        else optax.GradientTransformationExtraArgs
    return kind_of_optimizer(init, update)


def rate_at(settings: OptimizerSettings, fraction: jax.Array) -> jax.Array:
    """The learning rate, relative to its peak.

    Args:
      settings: names the schedule.
      fraction: share of all steps already taken, in [0, 1].

    Returns:
      A factor in [0, 1]. `onecycle` rises from 1/25 to 1 and falls to 1/10,000, both along
      a half cosine (Smith and Topin 2018). PyTorch and Optax have the same form with another end:
      by default they fall to 1/250,000, since their `final_div_factor` of 10,000 divides the first
      rate and not the peak. A `final_div_factor` of 400 gives the schedule here.
    """
    if settings.schedule == "constant":
        return jnp.ones_like(fraction)
    if settings.schedule == "cosine":
        return _half_cosine(1.0, 0.0, fraction)
    rise = _half_cosine(1 / 25, 1.0, fraction / max(settings.warmup, 1e-9))
    fall = _half_cosine(1.0, 1e-4, (fraction - settings.warmup) / max(1 - settings.warmup, 1e-9))
    return jnp.where(fraction < settings.warmup, rise, fall)


def _half_cosine(start: float, end: float, x: jax.Array) -> jax.Array:
    return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(x, 0, 1)))
