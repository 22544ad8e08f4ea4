"""Distances between the outputs of unlearned and retrained models on the forget set.

`over="models"` compares, for each of N samples, the outputs of U unlearned and R retrained models:
`[U, N]` and `[R, N]` give `[N]`. `over="samples"` compares, for each of M pairs of models,
the outputs of both for N samples: `[M, N]` twice gives `[M]`. Outputs are predictions in label
units, `confidence.logit_scaled_confidences` or losses, for the same images without augmentation:
the variation from random crops does not belong to the models. Two sets of retrained models also
have a distance; a report should show it for comparison.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from unlearn_jax.metrics.shapes import check_equal, check_rank

Over = Literal["models", "samples"]
BINS = 20
# Smallest probability of a bin of the second distribution if the bin of the first is not empty, as
# in the authors' code of KLoM.
_FLOOR = 1e-5


@functools.partial(jax.jit, static_argnames="over")
def wasserstein(unlearned_UN: jax.Array, retrained_RN: jax.Array, *,
                over: Over = "models") -> jax.Array:
    """Wasserstein-1 distance `[N]` or `[M]`, in the outputs' unit; NaN where an output is NaN.

    Raises:
      ValueError: other shapes, or another `over`.

    Source: the integral of the distance of the distribution functions, Ramdas et al. 2017, "On
    Wasserstein Two-Sample Testing and Related Families of Nonparametric Tests".
    """
    first, second = _rows(unlearned_UN, retrained_RN, over)
    if first.shape == second.shape:
        return jnp.mean(jnp.abs(jnp.sort(first, axis=1) - jnp.sort(second, axis=1)), axis=1)
    # In whole numbers: rounded shares would not add up to 0, and a far outlier of both would
    # magnify the error.
    steps = jnp.concatenate([jnp.full(first.shape, second.shape[1]),
                             jnp.full(second.shape, -first.shape[1])], axis=1)
    values, steps = jax.lax.sort((jnp.concatenate([first, second], axis=1), steps), num_keys=1)
    apart = jnp.abs(jnp.cumsum(steps, axis=1))[:, :-1] / (first.shape[1] * second.shape[1])
    return jnp.sum(apart * jnp.diff(values, axis=1), axis=1)


@functools.partial(jax.jit, static_argnames=("over", "bins"))
def jensen_shannon(unlearned_UN: jax.Array, retrained_RN: jax.Array, *, over: Over = "models",
                   bins: int = BINS) -> jax.Array:
    """Jensen-Shannon divergence `[N]` or `[M]` of histograms, in nats: 0 to ln 2.

    The histograms have `bins` equal bins from the smallest to the largest output of both. NaN
    where an output is not finite.

    Raises:
      ValueError: other shapes, another `over`, or fewer than two bins.

    Source: Lin 1991, "Divergence Measures Based on the Shannon Entropy".
    """
    p, q = _histograms(*_rows(unlearned_UN, retrained_RN, over), bins)
    middle = (p + q) / 2
    return jnp.sum(_relative_entropy(p, middle) + _relative_entropy(q, middle), axis=1) / 2


@functools.partial(jax.jit, static_argnames=("over", "bins"))
def klom(unlearned_UN: jax.Array, retrained_RN: jax.Array, *, over: Over = "models",
         bins: int = BINS, limit: float = 100.0) -> jax.Array:
    """KL divergence of margins `[N]` or `[M]`, of unlearned from retrained, in nats.

    The histograms have `bins` equal bins from the smallest to the largest output of both, after
    outputs are clipped at ±`limit`; a bin without a retrained model counts as 1e-5. NaN where an
    output is NaN.

    Args:
      unlearned_UN, retrained_RN: margins (`confidence.logit_scaled_confidences`); for regression
        predictions or residuals in label units.
      over: see above; models in the source.
      bins, limit: as in the source.

    Raises:
      ValueError: other shapes, another `over`, or fewer than two bins.

    Source: Georgiev et al. 2024, "Attribute-to-Delete: Machine Unlearning via Datamodel
    Matching". The authors' code leaves the largest output out of the histogram; here it is in.
    """
    first, second = (jnp.clip(x, -limit, limit) for x in _rows(unlearned_UN, retrained_RN, over))
    p, q = _histograms(first, second, bins)
    return jnp.sum(_relative_entropy(p, jnp.maximum(q, _FLOOR)), axis=1)


def _rows(unlearned: jax.Array, retrained: jax.Array, over: Over) -> tuple[jax.Array, jax.Array]:
    """One distribution per row."""
    if over not in ("models", "samples"):
        raise ValueError(f'over must be "models" or "samples", not {over!r}')
    check_rank("outputs of the unlearned models", unlearned, 2, "[U, N]")
    check_rank("outputs of the retrained models", retrained, 2, "[R, N]")
    if over == "samples":
        check_equal(retrained, unlearned)
        return unlearned, retrained
    if unlearned.shape[1] != retrained.shape[1]:
        raise ValueError(f"outputs of the unlearned models have shape {unlearned.shape} and of "
                         f"the retrained {retrained.shape}; they must be of the same samples")
    return unlearned.T, retrained.T


def _histograms(first: jax.Array, second: jax.Array, bins: int) -> tuple[jax.Array, jax.Array]:
    """Shares `[B, bins]` of each row, in bins that both have in common."""
    if bins < 2:
        raise ValueError(f"bins must be at least 2, not {bins}")
    low = jnp.minimum(first.min(1), second.min(1))[:, None]
    high = jnp.maximum(first.max(1), second.max(1))[:, None]
    width = jnp.where(high > low, high - low, 1) / bins

    def shares(rows):
        index = jnp.clip(jnp.floor((rows - low) / width), 0, bins - 1).astype(jnp.int32)
        row = jnp.broadcast_to(jnp.arange(len(rows))[:, None], rows.shape)
        counts = jnp.zeros((len(rows), bins)).at[row, index].add(1)
        return jnp.where(jnp.isfinite(low) & jnp.isfinite(high), counts / rows.shape[1], jnp.nan)

    return shares(first), shares(second)


def _relative_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    """`p log(p / q)`, 0 where p is 0."""
    return jnp.where(p == 0, 0, p * jnp.log(jnp.where(p == 0, 1, p) / jnp.where(p == 0, 1, q)))
