"""Forgetting over pairs of seeds. NumPy only, because the report loads no JAX and uses it too."""

from collections.abc import Callable

import numpy as np

from unlearn_jax.metrics.shapes import Array, check_equal, check_rank


def forgetting(reference_MN: np.ndarray, evaluated_MN: np.ndarray,
               alphas_A: np.ndarray) -> np.ndarray:
    """`errors.forgetting` `[A, M]`: `mean_i exp(-|r_i - e_i| / alpha)`, model by model."""
    distance_MN = np.abs(reference_MN - evaluated_MN)
    return np.exp(-distance_MN[None] / np.asarray(alphas_A)[:, None, None]).mean(-1)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis without NaN; NaN where all values are NaN."""
    count = (~np.isnan(values)).sum(0)
    return np.divide(np.nansum(values, 0), count, out=np.full(values.shape[1:], np.nan),
                     where=count > 0)


def forgetting_across(reference_MN: Array, evaluated_MN: Array, alphas_A: Array,
                      started_M: Array, *, forgetting: Callable = forgetting,
                      mean: Callable = _mean) -> np.ndarray:
    """Forgetting `[A, M]` of models against M_Rs that started from other initial weights.

    A model and the M_R of its own seed started from the same initial weights. Their errors are
    similar for that reason alone. Here, as in the retrain ceiling, the two models of a pair started
    from different weights (pretrained weights excepted: all seeds start from those).

    The value of a seed is the mean over its pairs: its M_e against the other seeds' M_Rs, and their
    M_e against its M_R. So the mean over seeds is the mean over all pairs. The seeds' values show
    how much the mean depends on each seed, and the interval is computed from them
    (`report/tables/stats.py`). If the model or the M_R of a seed failed (NaN), the seed's value is
    NaN, and the other seeds' means leave it out.

    Args:
      reference_MN: errors of M_R on the forget set.
      evaluated_MN: errors of the evaluated models on the same samples.
      alphas_A: in the unit of the errors.
      started_M: for each evaluated model, the position of the seed that gave its initial weights;
        `arange(M)`, unless all unlearned models came from one M_O. -1: none of the M seeds.
      forgetting: `[A, M]` of `(reference_MN, evaluated_MN, alphas_A)`.
      mean: over the first axis, NaN left out.

    Raises:
      ValueError: other shapes, or fewer than two members.
    """
    check_rank("the reference's errors", reference_MN, 2, "[M, N]")
    check_equal(reference_MN, evaluated_MN)
    check_rank("alphas", alphas_A, 1, "[A]")
    check_rank("the positions", started_M, 1, "[M]")
    check_equal(started_M, reference_MN[:, 0])
    members = reference_MN.shape[0]
    if members < 2:
        raise ValueError(f"models of other seeds need two seeds, there is {members}")
    errors = np.asarray(reference_MN), np.asarray(evaluated_MN)
    failed_M = ~np.all(np.logical_and(*map(np.isfinite, errors)), axis=1)
    reference_MN, evaluated_MN = (np.where(failed_M[:, None], np.nan, x).astype(x.dtype)
                                  for x in errors)
    of_evaluated, of_reference = [], []
    # One partner at a time: all pairs at once would take A x M x M x N numbers.
    for shift in range(1, members):
        # Each model against the M_R `shift` places before its own ...
        value_AM = np.array(forgetting(np.roll(reference_MN, shift, axis=0), evaluated_MN,
                                       alphas_A))
        same_M = np.asarray(started_M) == (np.arange(members) - shift) % members
        value_AM[:, same_M] = np.nan
        of_evaluated.append(value_AM)
        # ... which is a value of the seed of that M_R, too.
        of_reference.append(np.roll(value_AM, -shift, axis=1))
    return mean(np.stack([*of_evaluated, *of_reference]))
