"""Optimisers and learning-rate schedules.

The optimiser gives a direction; the learning rate multiplies it in the train step, so that
it can differ between members of one compiled program.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How one training run moves its parameters.

    Attributes:
      name: `adam` or `sgd`.
      learning_rate: the peak rate.
      schedule: `constant`, `cosine` (down to zero) or `onecycle` (up, then down to 1e-4).
      warmup: share of the steps that `onecycle` rises.
      weight_decay: for `adam` decoupled, multiplied by the learning rate (AdamW); for `sgd` part
        of the gradient, as the published values of the methods mean it.
      momentum: of `sgd`.
    """

    name: str
    learning_rate: float
    schedule: str
    warmup: float
    weight_decay: float
    momentum: float

    @classmethod
    def from_config(cls, section: ml_collections.ConfigDict) -> "OptimizerSettings":
        """From `config.train` or `config.unlearn`."""
        return cls(section.optimizer, section.learning_rate, section.schedule, section.warmup,
                   section.weight_decay, section.momentum)


def make_optimizer(settings: OptimizerSettings) -> optax.GradientTransformation:
    """The update direction, to be multiplied by minus the learning rate."""
    decay = optax.add_decayed_weights(settings.weight_decay)
    if settings.name == "adam":
        return optax.chain(optax.scale_by_adam(), decay)
    return optax.chain(decay, optax.trace(decay=settings.momentum))


def per_kind(optimizer: optax.GradientTransformation,
             kinds: int) -> optax.GradientTransformationExtraArgs:
    """The optimiser with a state of its own (momentum, moments, count) for each kind of batch.

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

    return optax.GradientTransformationExtraArgs(init, update)


def rate_at(settings: OptimizerSettings, fraction: jax.Array) -> jax.Array:
    """The learning rate, relative to its peak.

    Args:
      settings: names the schedule.
      fraction: share of all steps already taken, in [0, 1].

    Returns:
      A factor in [0, 1]. `onecycle` rises from 1/25 to 1 and falls to 1/10,000, both along
      a half cosine (Smith and Topin 2018). That is the form of PyTorch and Optax but for its end:
      with their defaults they fall to 1/250,000, as their `final_div_factor` of 10,000 divides
      the first rate and not the peak. 400 there is the schedule here.
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
