"""U-LiRA: for each sample, decides whether a model forgot it or never saw it.

Source: Hayes et al. 2024, "Inexact Unlearning Needs More Careful Evaluations to Avoid a False
Sense of Privacy" (U-LiRA), after the LiRA of Carlini et al. 2022. Scores are
`confidence.logit_scaled_confidences` or, for regression, `confidence.residuals`: values that are
roughly normal over models, never a model's right or wrong.

Variances divide by n - 1, because the n models are a sample of all models that could have been
trained. The public code divides by n (`ddof=0`), which makes both distributions too narrow: with
six or seven models of a kind, probabilities differ by up to 0.07.

Calculations are in float64: models differ by little where scores are large, and the two densities
of a score far from both means are nearly the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.metrics.shapes import Array, Refused, check_finite, check_rank


def u_lira(scores_MN: Array, forgot_KN: Array, never_LN: Array, ddof: int = 1) -> np.ndarray:
    """`N(z; mu_u, sd_u) / (N(z; mu_u, sd_u) + N(z; mu_n, sd_n))` `[M, N]` of other models.

    Above 0.5, a model is more like the models that forgot the sample. The M models must not be
    among the K + L; for those see `u_lira_leave_pair_out`.

    Args:
      scores_MN: scores of the models that are judged.
      forgot_KN: scores of models that trained on each sample and forgot it.
      never_LN: scores of models that never saw it.
      ddof: variances divide by the number of models minus this: 1, or 0 as in the public code.

    Raises:
      ValueError: other shapes; another `ddof`; scores that are not finite or are all 0 or 1.
      Refused: fewer than two models in a group, or scores that do not differ between them.
    """
    _check_ddof(ddof)
    scores_MN, forgot_KN, never_LN = _float64(scores_MN, forgot_KN, never_LN)
    _check_groups(forgot_KN, never_LN, models=2)
    check_rank("scores", scores_MN, 2, "[M, N]")
    if scores_MN.shape[1] != forgot_KN.shape[1]:
        raise ValueError(f"the scores judged have shape {scores_MN.shape} and those of the models "
                         f"that forgot {forgot_KN.shape}; they must be of the same samples")
    check_finite("the scores judged", scores_MN)
    _check_spread("forgot the samples", forgot_KN)
    _check_spread("never saw the samples", never_LN)
    with jax.enable_x64(True):
        return jax.device_get(_probabilities(scores_MN, forgot_KN, never_LN, ddof))


def u_lira_leave_pair_out(forgot_KN: Array, never_KN: Array,
                          ddof: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """`u_lira` of the models themselves, `[K, N]` twice; pair k is left out when k is judged.

    Both fits are made from K - 1 models, without the judged model and its counterpart. If only the
    model itself were left out, the other group's fit would be the better one. It would also contain
    the counterpart, which may have started from the same seed. Then attacks on models that do not
    differ would be right in less than half of the cases (40 % for three models of a kind, 30 %
    if counterparts correlate at 0.7). With the pair left out it is half of the cases, for any K.

    Args:
      forgot_KN, never_KN: as for `u_lira`; pair k is row k of either.
      ddof: as for `u_lira`.

    Raises:
      ValueError: as `u_lira`, or groups of different sizes.
      Refused: as `u_lira`, with three models in a group at least, and scores that still differ
        when any one model is left out.
    """
    _check_ddof(ddof)
    forgot_KN, never_KN = _float64(forgot_KN, never_KN)
    _check_groups(forgot_KN, never_KN, models=3)
    if len(forgot_KN) != len(never_KN):
        raise ValueError(f"there must be as many models that forgot as never saw the samples, not "
                         f"{len(forgot_KN)} and {len(never_KN)}")
    for what, scores in (("forgot the samples", forgot_KN), ("never saw the samples", never_KN)):
        scores = np.sort(scores, axis=0)
        # Without the largest or the smallest score, the rest must not all be the same.
        for rest in (scores[1:], scores[:-1]):
            _check_spread(what, rest, " when one model is left out")
    with jax.enable_x64(True):
        return jax.device_get(_leave_pair_out(forgot_KN, never_KN, ddof))


def attack_accuracy(forgot_KN: Array, never_LN: Array) -> np.ndarray:
    """Share `[N]` of correctly classified models, both groups weighted equally; 0.5 is chance.

    With few models the largest value over samples is far above 0.5 by chance alone. For models that
    do not differ and 60 samples it is 0.9 with four models of a kind and 0.6 with 64.

    Args:
      forgot_KN, never_LN: probabilities from `u_lira` or `u_lira_leave_pair_out`; exactly 0.5
        counts as a half.

    Raises:
      ValueError: other shapes.
    """
    _check_groups(forgot_KN, never_LN, models=1)
    forgot_KN, never_LN = _float64(forgot_KN, never_LN)
    return (np.mean(np.heaviside(forgot_KN - 0.5, 0.5), axis=0)
            + np.mean(np.heaviside(0.5 - never_LN, 0.5), axis=0)) / 2


@functools.partial(jax.jit, static_argnames="ddof")
def _probabilities(scores_MN, forgot_KN, never_LN, ddof):
    return _compare(scores_MN, _fit(forgot_KN, jnp.ones(len(forgot_KN)), ddof),
                    _fit(never_LN, jnp.ones(len(never_LN)), ddof))


@functools.partial(jax.jit, static_argnames="ddof")
def _leave_pair_out(forgot_KN, never_KN, ddof):
    pairs = jnp.arange(len(forgot_KN))

    def judge(k):
        forgot, never = (_fit(x, (pairs != k).astype(x.dtype), ddof)
                         for x in (forgot_KN, never_KN))
        return _compare(forgot_KN[k], forgot, never), _compare(never_KN[k], forgot, never)

    return jax.lax.map(judge, pairs)


def _fit(scores_KN, weights_K, ddof):
    """Mean and variance (of n - ddof) over models with weight 1, `[N]` each."""
    weights = weights_K[:, None]
    mean = jnp.sum(weights * scores_KN, axis=0) / jnp.sum(weights)
    squares = jnp.sum(weights * (scores_KN - mean[None])**2, axis=0)
    return mean, squares / (jnp.sum(weights) - ddof)


def _compare(scores, forgot, never):
    """Computed from logarithms: far from both means, both densities would round to 0."""
    def log_density(fit):
        mean, variance = (jnp.broadcast_to(x, scores.shape) for x in fit)
        return -(scores - mean)**2 / (2 * variance) - jnp.log(variance) / 2

    return jax.nn.sigmoid(log_density(forgot) - log_density(never))


def _check_ddof(ddof: int) -> None:
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof!r}; allowed: 1, or 0 as the public code")


def _float64(*arrays: Array) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(x, np.float64) for x in arrays)


def _check_groups(forgot: Array, never: Array, models: int) -> None:
    check_rank("those of the models that forgot", forgot, 2, "[K, N]")
    check_rank("those of the models that never saw the samples", never, 2, "[L, N]")
    if forgot.shape[1] != never.shape[1]:
        raise ValueError(f"the models that forgot have shape {forgot.shape} and those that never "
                         f"saw the samples {never.shape}; they must be of the same samples")
    if min(len(forgot), len(never)) < models:
        raise Refused(f"{models} models of each group are needed, there are {len(forgot)} that "
                      f"forgot and {len(never)} that never saw the samples")


def _check_spread(what: str, scores: np.ndarray, when: str = "") -> None:
    check_finite(f"the scores of the models that {what}", scores)
    if np.isin(scores, (0, 1)).all():
        raise ValueError(f"the scores of the models that {what} are all 0 or 1: give logit-scaled "
                         "confidences or residuals, not whether a model was right")
    same = (scores == scores[:1]).all(0)
    if same.any():
        raise Refused(f"the models that {what} all have the score "
                      f"{scores[0, same][0]:g} on sample {np.flatnonzero(same)[0]}{when}"
                      f" ({same.sum()} such samples): without variance there is no likelihood."
                      " Leave the samples out, or see whether the models are independent")
