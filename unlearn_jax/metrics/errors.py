"""Per-sample errors and the metrics that the reference study computes from them.

Arrays have a leading member axis M (here: seeds) and a sample axis N. Shapes are checked and never
broadcast: labels of shape (N,) against outputs of shape (N, 1) would give N x N values.
Source: the reference study, section 4.3.

A new metric of a split's predictions is a function here, with `@per_split(NAME, TASK)` above it,
and a record in `metrics/catalogue.py`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.metrics import pairs
from unlearn_jax.metrics.shapes import Array, check_equal, check_labels, check_rank

Task = Literal["regression", "classification"]
# By the name of the record: the task, and the function of a split's outputs and labels.
PER_SPLIT: dict[str, tuple[Task, Callable[[Any, Any], jax.Array]]] = {}


def per_split(name: str, task: Task):
    """Puts a function `(outputs, labels) -> [M]` into `PER_SPLIT`; results.csv gets its values.

    The function takes outputs `[M, N]` in label units, or logits `[M, N, C]`, and labels `[N]`. A
    member whose outputs are NaN must get NaN.

    Args:
      name: as in its record in `catalogue.py`. A name with SPLIT, as `mae_SPLIT`, is computed for
        every split, and one that ends in a split, as `bias_forget`, for this split alone.
      task: the task whose outputs the function takes.
    """
    def add(function):
        PER_SPLIT[name] = task, function
        return function
    return add


def split_values(split: str, outputs: Array, labels: Array,
                 task: Task) -> Iterator[tuple[str, jax.Array]]:
    """(metric, `[M]`) of the functions of `PER_SPLIT` for a split's outputs and labels."""
    for name, (its_task, function) in PER_SPLIT.items():
        if its_task == task and ("SPLIT" in name or name.endswith(f"_{split}")):
            yield name.replace("SPLIT", split), function(outputs, labels)


@jax.jit
def absolute_errors(outputs_MN: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`|y - prediction|` `[M, N]`, in label units.

    Raises:
      ValueError: the shapes are not `[M, N]` and `[N]`.
    """
    check_rank("outputs", outputs_MN, 2, "[M, N]")
    check_labels(outputs_MN, labels_N)
    return jnp.abs(outputs_MN - labels_N[None])


@jax.jit
def class_errors(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """`1 - p(true class)` `[M, N]`: the counterpart of an absolute error for classes.

    It is computed as the sum of the other classes' probabilities, which stays precise where p is
    nearly 1.

    Raises:
      ValueError: the shapes are not `[M, N, C]` and `[N]`.
    """
    check_rank("logits", logits_MNC, 3, "[M, N, C]")
    check_labels(logits_MNC, labels_N)
    is_label = jax.nn.one_hot(labels_N, logits_MNC.shape[2], dtype=bool)[None]
    return jnp.sum(jax.nn.softmax(logits_MNC, axis=-1), axis=-1, where=~is_label)


@per_split("accuracy_SPLIT", "classification")
@jax.jit
def accuracy(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """Share `[M]` of samples where the true class has the largest logit; NaN for members with NaN.

    Raises:
      ValueError: the shapes are not `[M, N, C]` and `[N]`.
    """
    check_rank("logits", logits_MNC, 3, "[M, N, C]")
    check_labels(logits_MNC, labels_N)
    right = jnp.mean(jnp.argmax(logits_MNC, axis=-1) == labels_N[None], axis=-1)
    return jnp.where(jnp.isfinite(logits_MNC).all((1, 2)), right, jnp.nan)


@jax.jit
def accuracy_within(errors_MN: jax.Array, within: jax.Array) -> jax.Array:
    """Share `[M]` of samples with an error of at most `within` (label units); NaN stays NaN.

    Raises:
      ValueError: the errors are not `[M, N]`.
    """
    check_rank("errors", errors_MN, 2, "[M, N]")
    share = jnp.mean(errors_MN <= within, axis=-1)
    return jnp.where(jnp.isfinite(errors_MN).all(-1), share, jnp.nan)


@jax.jit
def mean_error(errors_MN: jax.Array) -> jax.Array:
    """Mean `[M]` over samples, in the unit of the errors.

    Raises:
      ValueError: the errors are not `[M, N]`.
    """
    check_rank("errors", errors_MN, 2, "[M, N]")
    return jnp.mean(errors_MN, axis=-1)


@per_split("mae_SPLIT", "regression")
def mae(outputs_MN: jax.Array, labels_N: jax.Array) -> jax.Array:
    """Mean absolute error `[M]`, in label units.

    Raises:
      ValueError: the shapes are not `[M, N]` and `[N]`.
    """
    return mean_error(absolute_errors(outputs_MN, labels_N))


@per_split("error_SPLIT", "classification")
def mean_class_error(logits_MNC: jax.Array, labels_N: jax.Array) -> jax.Array:
    """Mean `[M]` of `1 - p(true class)`.

    Raises:
      ValueError: the shapes are not `[M, N, C]` and `[N]`.
    """
    return mean_error(class_errors(logits_MNC, labels_N))


@jax.jit
def output_distance(outputs_MN: jax.Array, original_MN: jax.Array) -> jax.Array:
    """Mean distance `[M]` of outputs from those of M_O; NaN for members with NaN.

    Args:
      outputs_MN: `[M, N]` label units, or logits `[M, N, C]`.
      original_MN: those of M_O for the same samples.

    Returns:
      `|output - M_O's|` in label units, or the total variation of the class probabilities.

    Raises:
      ValueError: the shapes differ.
    """
    check_equal(outputs_MN, original_MN)
    if outputs_MN.ndim == 2:
        return jnp.mean(jnp.abs(outputs_MN - original_MN), axis=1)
    p, q = (jax.nn.softmax(x, axis=-1) for x in (outputs_MN, original_MN))
    return jnp.mean(jnp.sum(jnp.abs(p - q), axis=-1), axis=1) / 2


@jax.jit
def utility(reference_M: jax.Array, evaluated_M: jax.Array) -> jax.Array:
    """`MAE_test(M_R) / MAE_test(M_e)` `[M]`; above 1: better than the reference.

    Raises:
      ValueError: the shapes are not both `[M]`.
    """
    check_rank("the reference's MAE", reference_M, 1, "[M]")
    check_equal(reference_M, evaluated_M)
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
    check_rank("the reference's errors", reference_MN, 2, "[M, N]")
    check_equal(reference_MN, evaluated_MN)
    check_rank("alphas", alphas_A, 1, "[A]")
    return _means(len(alphas_A), _decays(alphas_A), reference_MN, evaluated_MN)


class StudyMetrics(NamedTuple):
    """The metrics that the reference study reports for M models; errors in label units.

    Attributes:
      mae_test, mae_forget: `[M]`.
      accuracy_test, accuracy_forget: `[M]` share of samples with an error of at most `within`.
      utility: `[M]`.
      forgetting: `[A, M]`.
      f: `[A, M]`, utility times forgetting.
    """

    mae_test: jax.Array
    mae_forget: jax.Array
    accuracy_test: jax.Array
    accuracy_forget: jax.Array
    utility: jax.Array
    forgetting: jax.Array
    f: jax.Array


@jax.jit
def study_metrics(reference_test_MK: jax.Array, evaluated_test_MK: jax.Array,
                  reference_MN: jax.Array, evaluated_MN: jax.Array, alphas_A: jax.Array,
                  within: jax.Array) -> StudyMetrics:
    """All metrics of the study in one pass over the errors.

    Args:
      reference_test_MK, evaluated_test_MK: errors of M_R and of the evaluated models, test set.
      reference_MN, evaluated_MN: the same on the forget set.
      alphas_A, within: in the unit of the errors.

    Raises:
      ValueError: other shapes.
    """
    for reference, evaluated in ((reference_test_MK, evaluated_test_MK),
                                 (reference_MN, evaluated_MN)):
        check_rank("the reference's errors", reference, 2, "[M, N]")
        check_equal(reference, evaluated)
    check_rank("alphas", alphas_A, 1, "[A]")

    def size(errors):
        return errors, (errors <= within).astype(errors.dtype)

    forgetting_AM = _means(len(alphas_A), _decays(alphas_A), reference_MN, evaluated_MN)
    mae_forget, near_forget = _means(2, size, evaluated_MN)
    mae_test, near_test = _means(2, size, evaluated_test_MK)
    ideal = _means(1, lambda errors: errors, reference_test_MK)
    better = ideal / mae_test
    return StudyMetrics(
        mae_test=mae_test, mae_forget=mae_forget,
        accuracy_test=jnp.where(jnp.isfinite(mae_test), near_test, jnp.nan),
        accuracy_forget=jnp.where(jnp.isfinite(mae_forget), near_forget, jnp.nan),
        utility=better, forgetting=forgetting_AM, f=better[None] * forgetting_AM)


def forgetting_across(reference_MN: Array, evaluated_MN: Array, alphas_A: Array,
                      started_M: Array) -> jax.Array:
    """`pairs.forgetting_across` `[A, M]` of `forgetting`, on the device."""
    found: Any = pairs.forgetting_across(  # JAX's, as `mean` makes it
        reference_MN, evaluated_MN, alphas_A, started_M, forgetting=forgetting,
        mean=lambda values: jnp.nanmean(jnp.asarray(values), axis=0))
    return found


def retrain_ceiling(reference_MN: jax.Array, alphas_A: jax.Array) -> jax.Array:
    """Mean Forgetting `[A, M]` of each M_R against the M_Rs of the other seeds.

    Such models share only the task and, if used, the pretrained weights, so two independent
    retrainings do not reach 1. A perfect method has this value in `forgetting_across`.
    Forgetting itself can exceed it, because there the model and M_R share a seed.
    A reference that failed (NaN) is left out of the others' means.

    Raises:
      ValueError: other shapes, or fewer than two members.
    """
    check_rank("the reference's errors", reference_MN, 2, "[M, N]")
    return forgetting_across(reference_MN, reference_MN, alphas_A,
                             jnp.arange(len(reference_MN)))


def _decays(alphas_A: jax.Array):
    """`(r, e) -> exp(-|r - e| / alpha)` `[A, M, N]`."""
    def decays(reference_MN, evaluated_MN):
        distance_MN = jnp.abs(reference_MN - evaluated_MN)
        return jnp.exp(-distance_MN[None] / alphas_A[:, None, None])
    return decays


# The largest count of numbers in the running sums of `_means`: in float32, 2 MiB of cache.
RUNNING = 2**19


def _means(values: int, fun, *arrays_MN: jax.Array):
    """Means over samples of the arrays `[..., M, N]` that `fun(*arrays)` gives, `[..., M]` each.

    The samples are processed in blocks, which are added up element by element: on a CPU, a plain
    sum over the last axis computes its summands one at a time, ten times slower than vectors.

    Args:
      values: how many numbers `fun` returns for each number in one of the arrays.
    """
    members, samples = arrays_MN[0].shape
    if samples == 0:
        raise ValueError("there are no samples to average over")
    block = max(1, min(samples, RUNNING // max(1, values * members)))

    def of_block(start):
        return fun(*(jax.lax.dynamic_slice_in_dim(x, start, block, axis=1) for x in arrays_MN))

    def add(sums, start):
        return jax.tree.map(jnp.add, sums, of_block(start)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_block, 0))
    whole = samples // block * block
    # Several blocks are added up before the sums are written back.
    sums, _ = jax.lax.scan(add, zeros, jnp.arange(0, whole, block), unroll=4)
    rest = fun(*(x[:, whole:] for x in arrays_MN))
    return jax.tree.map(lambda a, b: (a.sum(-1) + b.sum(-1)) / samples, sums, rest)
