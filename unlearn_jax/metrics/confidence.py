"""Scores of single samples, [M, N], that attacks use.

For regression the loss is `errors.absolute_errors`, and `residuals` takes the place of the
logit-scaled confidence.
"""

import jax
import jax.numpy as jnp

from unlearn_jax.metrics.shapes import check_classes, check_labels, check_rank


@jax.jit
def logit_scaled_confidences(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`log p_y - log sum_{j != y} p_j` `[M, N]`; 0 if the label is as likely as the
    other classes together.

    From logits it is `z_y - logsumexp_{j != y} z_j`, which stays finite where p_y rounds to 1.
    NaN for a label that is not among the classes.

    Raises:
      ValueError: the shapes are not `[M, N, C]`, C > 1, and `[N]` of integers.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles" (there
    with the sum over the other classes written as 1 - p_y).
    """
    check_classes(logits_MNC, labels_N)
    return _of_label(logits_MNC, labels_N) - _logsumexp_but(logits_MNC, labels_N[None])


@jax.jit
def cross_entropies(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """Losses `-log p_y` `[M, N]`, in nats; NaN for a label that is not among the classes.

    Computed as `log(1 + exp(-c))` from the logit-scaled confidence c. The difference of two logits
    would give 0 for all losses below about 1e-6, and attacks that order losses could not
    distinguish them.

    Raises:
      ValueError: the shapes are not `[M, N, C]`, C > 1, and `[N]` of integers.
    """
    return jax.nn.softplus(-logit_scaled_confidences(logits_MNC, labels_N))


@jax.jit
def residuals(outputs_MN: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`y - prediction` `[M, N]` with its sign, in label units.

    Raises:
      ValueError: the shapes are not `[M, N]` and `[N]`.
    """
    check_rank("outputs", outputs_MN, 2, "[M, N]")
    check_labels(outputs_MN, labels_N)
    return labels_N[None] - outputs_MN


@jax.jit
def entropies(logits_MNC: jax.Array) -> jax.Array:
    """`-sum_i p_i log p_i` `[M, N]` over classes, in nats; low where the model is sure.

    Raises:
      ValueError: the shape is not `[M, N, C]`.

    Source: Salem et al. 2019, "ML-Leaks".
    """
    check_rank("logits", logits_MNC, 3, "[M, N, C]")
    log_p = jax.nn.log_softmax(logits_MNC, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _of_label(values_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values_MNC, labels_N[None, :, None], axis=-1, mode="fill")[..., 0]


def _logsumexp_but(logits_MNC: jax.Array, classes_MN: jax.Array) -> jax.Array:
    """logsumexp `[M, N]` over all classes except one per sample."""
    left_out = jax.nn.one_hot(classes_MN, logits_MNC.shape[-1], dtype=bool)
    return jax.nn.logsumexp(jnp.where(left_out, -jnp.inf, logits_MNC), axis=-1)
