"""Per-sample errors and what the reference study makes of them.

Arrays have a leading member axis M (here: seeds) and a sample axis N; shapes are checked and
never broadcast: labels of shape (N,) against outputs of shape (N, 1) would give N x N values.
Source: the reference study, section 4.3.
"""

import jax
import jax.numpy as jnp


@jax.jit
def absolute_errors(outputs_MN: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`|y - prediction|` `[M, N]`, in label units.

    Raises:
      ValueError: the shapes are not `[M, N]` and `[N]`.
    """
    _check("outputs", outputs_MN, 2, "[M, N]")
    _check_labels(outputs_MN, labels_N)
    return jnp.abs(outputs_MN - labels_N[None])


@jax.jit
def class_errors(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`1 - p(true class)` `[M, N]`: the counterpart of an absolute error for classes.

    Raises:
      ValueError: the shapes are not `[M, N, C]` and `[N]`.
    """
    _check("logits", logits_MNC, 3, "[M, N, C]")
    _check_labels(logits_MNC, labels_N)
    probabilities = jax.nn.softmax(logits_MNC, axis=-1)
    return 1 - jnp.take_along_axis(probabilities, labels_N[None, :, None], axis=-1)[..., 0]


@jax.jit
def accuracy(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """Share `[M]` of samples whose class has the largest logit; NaN for a member with NaN.

    Raises:
      ValueError: the shapes are not `[M, N, C]` and `[N]`.
    """
    _check("logits", logits_MNC, 3, "[M, N, C]")
    _check_labels(logits_MNC, labels_N)
    right = jnp.mean(jnp.argmax(logits_MNC, axis=-1) == labels_N[None], axis=-1)
    return jnp.where(jnp.isfinite(logits_MNC).all((1, 2)), right, jnp.nan)


@jax.jit
def accuracy_within(errors_MN: jax.Array, within: jax.Array) -> jax.Array:
    """Share `[M]` of samples with an error of at most `within` (label units); NaN stays NaN.

    Raises:
      ValueError: the errors are not `[M, N]`.
    """
    _check("errors", errors_MN, 2, "[M, N]")
    share = jnp.mean(errors_MN <= within, axis=-1)
    return jnp.where(jnp.isfinite(errors_MN).all(-1), share, jnp.nan)


@jax.jit
def mean_error(errors_MN: jax.Array) -> jax.Array:
    """MAE `[M]`, in label units.

    Raises:
      ValueError: the errors are not `[M, N]`.
    """
    _check("errors", errors_MN, 2, "[M, N]")
    return jnp.mean(errors_MN, axis=-1)


@jax.jit
def utility(reference_M: jax.Array, evaluated_M: jax.Array) -> jax.Array:
    """`MAE_test(M_R) / MAE_test(M_e)` `[M]`; above 1: better than the reference.

    Raises:
      ValueError: the shapes are not both `[M]`.
    """
    _check("the reference's MAE", reference_M, 1, "[M]")
    _check_equal(reference_M, evaluated_M)
    return reference_M / evaluated_M


@jax.jit
def forgetting(reference_MN: jax.Array, evaluated_MN: jax.Array, alphas_A: jax.Array) -> jax.Array:
    """`mean_i exp(-|r_i - e_i| / alpha)` `[A, M]`, member by member; 1: errors like M_R's.

    Args:
      reference_MN: errors of M_R on the forget set.
      evaluated_MN: errors of the evaluated models on the same samples.
      alphas_A: in the unit of the errors.

    Raises:
      ValueError: other shapes.
    """
    _check("the reference's errors", reference_MN, 2, "[M, N]")
    _check_equal(reference_MN, evaluated_MN)
    _check("alphas", alphas_A, 1, "[A]")
    distance_MN = jnp.abs(reference_MN - evaluated_MN)
    return jnp.mean(jnp.exp(-distance_MN[None] / alphas_A[:, None, None]), axis=-1)


@jax.jit
def retrain_ceiling(reference_MN: jax.Array, alphas_A: jax.Array) -> jax.Array:
    """Forgetting `[A, M]` of each M_R against the M_R of every other seed, averaged over those.

    The noise floor of the metric: two independent retrainings do not reach 1, so neither can
    an unlearned model be asked to. A reference that failed (NaN) is left out of the others'.

    Raises:
      ValueError: other shapes, or fewer than two members.
    """
    _check("the reference's errors", reference_MN, 2, "[M, N]")
    _check("alphas", alphas_A, 1, "[A]")
    members = reference_MN.shape[0]
    if members < 2:
        raise ValueError(f"a ceiling needs two seeds, there is {members}")
    # One partner at a time: all pairs at once would take A x M x M x N numbers.
    pairs = jnp.stack([forgetting(jnp.roll(reference_MN, shift, axis=0), reference_MN, alphas_A)
                       for shift in range(1, members)])
    return jnp.nanmean(pairs, axis=0)


def _check(what: str, array: jax.Array, rank: int, form: str) -> None:
    if array.ndim != rank:
        raise ValueError(f"{what} must have shape {form}, not {array.shape}")


def _check_labels(outputs: jax.Array, labels: jax.Array) -> None:
    if labels.shape != (outputs.shape[1],):
        raise ValueError(f"labels must have shape ({outputs.shape[1]},) to go with outputs of "
                         f"shape {outputs.shape}, not {labels.shape}")


def _check_equal(reference: jax.Array, evaluated: jax.Array) -> None:
    if reference.shape != evaluated.shape:
        raise ValueError(f"the reference has shape {reference.shape} and the evaluated models "
                         f"{evaluated.shape}; they must be the same")
