"""Relearn time: the steps that an unlearned model takes to learn the forgotten samples again.

A step is the training between two losses. The public code of the source (Tarun et al. 2022,
functions `relearn_time` and `ain`) trains on all training data. It takes the loss on the validation
samples of the forget set after each batch and counts batches. If 10 epochs were not enough, it
takes their number of batches as the relearn time.
`stages/relearn.py` trains on D_f alone and takes the loss on its training samples after each epoch,
so its steps are epochs. If they were not enough, it gives bounds. Only the criterion is the
source's, within 5 % of M_O's loss. So the two indices cannot be compared.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.metrics.shapes import check_equal, check_rank


class Ain(NamedTuple):
    """The Anamnesis index, with bounds if training stopped too early.

    Attributes:
      value: `[M]`; 1: relearns as slowly as M_R; below 1: some memory of the samples remains; above
        1: they are even harder to learn than for M_R. NaN if only bounds are known, if neither
        model has anything to relearn, and for a member that failed.
      low, high: `[M]` bounds, both equal to `value` if that is known.
      unlearned_steps, retrained_steps: `[M]` steps; inf where the loss did not come down.
    """

    value: jax.Array
    low: jax.Array
    high: jax.Array
    unlearned_steps: jax.Array
    retrained_steps: jax.Array


@jax.jit
def relearn_steps(losses_MT: jax.Array, original_M: jax.Array, within: jax.Array) -> jax.Array:
    """Steps `[M]` until the forget loss is at most `(1 + within)` times M_O's.

    inf if the T - 1 steps that were made did not suffice (it takes at least T); NaN for a member if
    its loss became NaN before.

    Args:
      losses_MT: forget loss before the first step, after one step, and so on.
      original_M: forget loss of M_O, not negative.
      within: 0.05 for 5 %.

    Raises:
      ValueError: other shapes.
    """
    check_rank("losses", losses_MT, 2, "[M, T]")
    if original_M.shape != losses_MT.shape[:1]:
        raise ValueError(f"there must be one original loss per member, {losses_MT.shape[:1]}, not "
                         f"{original_M.shape}")
    there = losses_MT <= ((1 + within) * original_M)[:, None]
    steps = jnp.where(there.any(1), jnp.argmax(there, axis=1).astype(jnp.float32), jnp.inf)
    broken = jnp.isnan(losses_MT)
    broke_at = jnp.where(broken.any(1), jnp.argmax(broken, axis=1).astype(jnp.float32), jnp.inf)
    return jnp.where((broke_at < steps) | jnp.isnan(original_M), jnp.nan, steps)


@jax.jit
def ain(unlearned_MT: jax.Array, retrained_MT: jax.Array, original_M: jax.Array,
        within: jax.Array) -> Ain:
    """Relearn time of the unlearned models over that of the retrained.

    If both take 0 steps, there is nothing to relearn: the value is NaN, with bounds 0 and inf. If
    only M_R takes 0 steps, the value is inf. If a loss did not come down in the T - 1 steps that
    were made, it takes T or more steps, which bounds the index.

    Args:
      unlearned_MT, retrained_MT: forget loss before the first step, after one step, and so on,
        while both are trained on the forget set with the same settings.
      original_M: forget loss of M_O.
      within: 0.05 in the source: within 5 % of the original.

    Raises:
      ValueError: other shapes.

    Source: Tarun et al. 2022, "Deep Regression Unlearning", after Chundawat et al. 2023,
    "Zero-Shot Machine Unlearning" (there by accuracy).
    """
    check_equal(retrained_MT, unlearned_MT)
    mine, theirs = (relearn_steps(x, original_M, within) for x in (unlearned_MT, retrained_MT))
    steps_made = unlearned_MT.shape[1]
    low = _ratio(jnp.where(jnp.isinf(mine), steps_made, mine), theirs)
    high = _ratio(mine, jnp.where(jnp.isinf(theirs), steps_made, theirs))
    low = jnp.where(jnp.isinf(theirs) | ((mine == 0) & (theirs == 0)), 0, low)
    failed = jnp.isnan(mine) | jnp.isnan(theirs)
    low, high = jnp.where(failed, jnp.nan, low), jnp.where(failed, jnp.nan, high)
    return Ain(jnp.where(low == high, low, jnp.nan), low, high, mine, theirs)


def _ratio(mine, theirs):
    return jnp.where(theirs == 0, jnp.inf, mine / jnp.where(theirs == 0, 1, theirs))
