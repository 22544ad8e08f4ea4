"""Interclass confusion test: the labels of two classes are exchanged, and those samples forgotten.

The labels of some samples of classes A and B are exchanged, a model is trained on all samples, and
the samples with exchanged labels are the forget set. A model that still confuses A and B remembers
them; M_R has never seen them. For regression, A and B are bins of labels. `data/inject.py`
exchanges the labels.

Source: Goel et al. 2022, "Towards Adversarial Evaluations for Inexact Machine Unlearning".
"""

import functools

import jax
import jax.numpy as jnp

from unlearn_jax.metrics.shapes import check_classes, check_labels, check_rank

Bin = tuple[float, float]


@functools.partial(jax.jit, static_argnames=("class_a", "class_b"))
def interclass_confusion(logits_MNC: jax.Array, labels_N: jax.Array, *, class_a: int,
                         class_b: int) -> jax.Array:
    """`cm[A, B] + cm[B, A]` `[M]`: samples of A taken for B, and of B taken for A.

    It is a count; for a share, divide it by the number of samples of both classes. NaN for a member
    with logits that are not finite.

    Args:
      logits_MNC: on the test set, or on the training samples of both classes.
      labels_N: the *true* classes.
      class_a, class_b: the two classes.

    Raises:
      ValueError: other shapes, or classes that are the same or not among the C.
    """
    check_classes(logits_MNC, labels_N)
    classes = logits_MNC.shape[2]
    if class_a == class_b or not {class_a, class_b} <= set(range(classes)):
        raise ValueError(f"the classes to compare must be two of 0 to {classes - 1}, not "
                         f"{class_a} and {class_b}")
    predicted = jnp.argmax(logits_MNC, axis=-1)
    return _count(labels_N == class_a, labels_N == class_b, predicted == class_a,
                  predicted == class_b, jnp.isfinite(logits_MNC).all((1, 2)))


@functools.partial(jax.jit, static_argnames=("bin_a", "bin_b"))
def binned_confusion(outputs_MN: jax.Array, labels_N: jax.Array, *, bin_a: Bin,
                     bin_b: Bin) -> jax.Array:
    """For regression `[M]`: samples of bin A predicted in bin B, and the reverse.

    Args:
      outputs_MN: predictions, in label units.
      labels_N: true labels.
      bin_a, bin_b: (low, high); low is inside and high is not, because outputs are continuous.

    Raises:
      ValueError: other shapes, or bins that are empty or overlap.
    """
    _check_bins(outputs_MN, labels_N, bin_a, bin_b)
    return _count(_inside(labels_N, bin_a), _inside(labels_N, bin_b), _inside(outputs_MN, bin_a),
                  _inside(outputs_MN, bin_b), jnp.isfinite(outputs_MN).all(1))


@functools.partial(jax.jit, static_argnames=("bin_a", "bin_b"))
def nearer_confusion(outputs_MN: jax.Array, labels_N: jax.Array, *, bin_a: Bin,
                     bin_b: Bin) -> jax.Array:
    """For regression `[M]`: samples of one bin with an output nearer to the other bin.

    A model that was trained on both labels of a group predicts values between them, which may lie
    in neither bin. So an output shows the wrong labels even if it does not reach the other bin.

    Args, raises: as `binned_confusion`.
    """
    _check_bins(outputs_MN, labels_N, bin_a, bin_b)

    def distance(bounds):
        return jnp.maximum(jnp.maximum(bounds[0] - outputs_MN, outputs_MN - bounds[1]), 0)

    to_a, to_b = distance(bin_a), distance(bin_b)
    return _count(_inside(labels_N, bin_a), _inside(labels_N, bin_b), to_a < to_b, to_b < to_a,
                  jnp.isfinite(outputs_MN).all(1))


def _check_bins(outputs_MN, labels_N, bin_a: Bin, bin_b: Bin) -> None:
    check_rank("outputs", outputs_MN, 2, "[M, N]")
    check_labels(outputs_MN, labels_N)
    (low_a, high_a), (low_b, high_b) = bin_a, bin_b
    if not (low_a < high_a and low_b < high_b and (high_a <= low_b or high_b <= low_a)):
        raise ValueError(f"bins must be (low, high) with low < high that do not overlap, not "
                         f"{bin_a} and {bin_b}")


def _inside(values, bounds: Bin):
    return (values >= bounds[0]) & (values < bounds[1])


def _count(is_a_N, is_b_N, said_a_MN, said_b_MN, good_M):
    confused = (is_a_N[None] & said_b_MN) | (is_b_N[None] & said_a_MN)
    return jnp.where(good_M, jnp.sum(confused, axis=1).astype(jnp.float32), jnp.nan)
