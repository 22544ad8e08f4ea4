"""Forgetting quality and score of the NeurIPS 2023 Machine Unlearning Challenge.

For each forget sample, an attack guesses from one number f of a model whether the model was
unlearned or retrained: by one threshold on f, or by two (inside or outside an interval). A better
best attack means a larger epsilon of the sample and a lower score.

Source: Triantafillou et al. 2023, "Evaluation for the NeurIPS Machine Unlearning Competition",
and Triantafillou et al. 2024, "Are we making progress in unlearning?". There
thresholds are tried on a grid, which misses the best one. Here all thresholds are tried, with both
sides of each.
The challenge's code has a rule that its description lacks. If the range of f over one kind of
models is below 1 % of the range over the other kind, epsilon is 50, because an interval around the
narrow population separates it. Attacks do not count that case if the interval holds no model of the
other kind and exactly one rate is 0. The rule is an option here, `narrow=0.01`. Without it, the
remaining attacks decide the epsilon of such a sample.
f is `confidence.logit_scaled_confidences`; for regression the output itself.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.metrics.shapes import Array, Refused, check_finite, check_rank

DELTA = 1e-5
LARGEST_EPSILON = 50.0
BIN_WIDTH = 0.5
# Share of the retraining time; a method that takes longer is rejected.
RUN_TIME_LIMIT = 0.2
_NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class ForgettingQuality:
    """Forgetting quality of a population of unlearned models.

    Attributes:
      value: mean of `scores`; 1 is best, but even perfect unlearning stays far below: see
        `perfect_quality`.
      low, high: 95 % interval over models; NaN if none can be computed, as with two models.
      epsilons: `[N]`, in nats.
      scores: `[N]`.
    """

    value: float
    low: float
    high: float
    epsilons: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    """The final score.

    Attributes:
      value: 0 if rejected.
      accepted: True if the run time is within the limit.
      relative_time: run time over that of retraining.
      retain_ratio, test_ratio: utility of the unlearned models over that of the retrained.
    """

    value: float
    accepted: bool
    relative_time: float
    retain_ratio: float
    test_ratio: float


def epsilons(unlearned_UN: Array, retrained_RN: Array, *, delta: float = DELTA,
             narrow: float = 0.0) -> np.ndarray:
    """Epsilon `[N]` of each forget sample, in nats, 0 to 50: the largest over all attacks of

        max(ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR)

    where FNR is the share of unlearned models taken for retrained and FPR the reverse. If both are
    0, epsilon is infinite (50). If exactly one is 0, the attack does not count, because the models
    may be too few to decide. Attacks are all intervals between sorted values, with either kind of
    models inside; one threshold is an interval that is open at one end. Equal values stay together.

    Args:
      unlearned_UN: f of the models unlearned from one original, on the N forget samples.
      retrained_RN: f of the retrained models. They must have been trained: noise around one
        model looks like a narrower population than it is.
      delta: delta in the formula.
      narrow: epsilon is 50 if the range of one kind is below this share of the other's; the
        challenge's code has 0.01; 0: the rule is off.

    Raises:
      ValueError: other shapes, or values that are not finite.
      Refused: fewer than two models of a kind.
    """
    _check_populations(unlearned_UN, retrained_RN)
    ratio, separate = _exact_ratios(unlearned_UN, retrained_RN, delta)[-2:]
    separate = separate | _far_narrower(unlearned_UN, retrained_RN, narrow)
    return np.minimum(np.log(np.where(separate, np.inf, ratio)), LARGEST_EPSILON)


@functools.partial(jax.jit, static_argnames="bins")
def sample_scores(epsilons_N: jax.Array, bins: int = 13) -> jax.Array:
    """`H = 2 / 2^n` with `n = floor(epsilon / 0.5) + 1`, and 0 for n > `bins`; any shape.

    Args:
      epsilons_N: epsilon of each sample.
      bins: 13 in the challenge's description. Its published code uses all bins that fit below
        ceil(ln(models - 1)), which is 14 for 512 models.

    Raises:
      ValueError: `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    n = jnp.floor(epsilons_N / BIN_WIDTH) + 1
    return jnp.where(n > bins, 0, 2 / 2**n)


def forgetting_quality(unlearned_UN: Array, retrained_RN: Array, *, bins: int = 13,
                       narrow: float = 0.0, replicates: int = 100,
                       seed: int = 0) -> ForgettingQuality:
    """Mean score over forget samples, with an interval over models.

    The interval is `value (1 ± 1.96 s)`, s the relative standard deviation of the value over
    random halves of the models of both kinds: a bootstrap without replacement. With replacement,
    models appear twice, attacks get better by this, and intervals get up to twice too wide. s is
    relative because the value of halves is larger, with a spread in proportion (see
    `perfect_quality`). With fewer than about ten models of a kind the interval is still too wide.

    Source: Shao and Wu 1989, "A General Theory for Jackknife Variance Estimation" (half of the
    observations deleted: the variance over halves estimates that over samples).

    Args:
      unlearned_UN, retrained_RN: as in `epsilons`.
      bins: as in `sample_scores`.
      narrow: as in `epsilons`; in halves, for the samples where it holds for all models.
      replicates: number of random halves; 0 leaves the interval NaN.
      seed: seed of the halves.

    Raises:
      ValueError: as `epsilons`, or `replicates` is 1 or negative.
    """
    if replicates < 0 or replicates == 1:
        raise ValueError(f"replicates must be 0 or at least 2, not {replicates}")
    _check_populations(unlearned_UN, retrained_RN)
    order, edges, ratio, separate = _exact_ratios(unlearned_UN, retrained_RN, DELTA)
    narrower = _far_narrower(unlearned_UN, retrained_RN, narrow)
    separate = separate | narrower
    found = np.minimum(np.log(np.where(separate, np.inf, ratio)), LARGEST_EPSILON)
    scores = np.asarray(sample_scores(found, bins))
    value, low, high = float(scores.mean()), np.nan, np.nan
    if replicates:
        halves = _random_halves(len(unlearned_UN), len(retrained_RN), replicates, seed)
        values = np.asarray(_qualities(
            order.astype(np.int32), edges, *halves, ratio.astype(np.float32),
            jnp.float32(DELTA), narrower, bins), np.float64)
        if values.mean() > 0:
            spread = _NORMAL_95 * values.std(ddof=1) / values.mean()
            low, high = max(0.0, value * (1 - spread)), min(1.0, value * (1 + spread))
        elif value == 0:
            low = high = 0.0
    return ForgettingQuality(value, float(low), float(high), found, scores)


def perfect_quality(unlearned: int, retrained: int, *, bins: int = 13, narrow: float = 0.0,
                    samples: int = 500, seed: int = 0) -> float:
    """The forgetting quality of unlearned models that are as good as retrained ones.

    Among so many attacks some succeed by chance. With more models there are more thresholds to
    choose from, and more succeed: the quality is 0.12 for 16 models of a kind, 0.07 for 64, 0.046
    for 512. For continuous f it depends only on the numbers of models, so it is computed by drawing
    both kinds from one distribution.

    Args:
      unlearned, retrained: numbers of models.
      bins: as in `sample_scores`.
      narrow: as in `epsilons`.
      samples: number of drawn samples; the standard error is below 1 / sqrt(samples).
      seed: seed of the draw.
    """
    f = np.random.default_rng(seed).normal(size=(unlearned + retrained, samples))
    return forgetting_quality(f[:unlearned], f[unlearned:], bins=bins, narrow=narrow,
                              replicates=0).value


def score(quality: float, *, retain_unlearned_U: Array, retain_retrained_R: Array,
          test_unlearned_U: Array, test_retrained_R: Array, seconds: float,
          retrain_seconds: float) -> Score:
    """`quality * (RA_U / RA_R) * (TA_U / TA_R)`, or 0 if unlearning takes over 20 % of retraining.

    Args:
      quality: forgetting quality.
      retain_unlearned_U, retain_retrained_R: utility of each model on the retain set, higher is
        better: accuracy; for regression, accuracy within some years, or 1 / MAE.
      test_unlearned_U, test_retrained_R: the same on the test set.
      seconds: wall time of unlearning one model.
      retrain_seconds: wall time of retraining one on the same machine.

    Raises:
      ValueError: other shapes.
      Refused: times or mean utilities of retrained models that are not positive.
    """
    means = {}
    for name, values in (("retain_unlearned", retain_unlearned_U),
                         ("retain_retrained", retain_retrained_R),
                         ("test_unlearned", test_unlearned_U),
                         ("test_retrained", test_retrained_R)):
        check_rank(name, np.asarray(values), 1, "[models]")
        means[name] = float(np.mean(values))
    for name, value in (("seconds", seconds), ("retrain_seconds", retrain_seconds),
                        *((k, v) for k, v in means.items() if k.endswith("retrained"))):
        if not value > 0:
            raise Refused(f"{name} must be positive, not {value}")
    retain = means["retain_unlearned"] / means["retain_retrained"]
    test = means["test_unlearned"] / means["test_retrained"]
    relative_time = seconds / retrain_seconds
    accepted = relative_time <= RUN_TIME_LIMIT
    return Score(quality * retain * test if accepted else 0.0, accepted, relative_time, retain,
                 test)


def _check_populations(unlearned: Array, retrained: Array) -> None:
    check_rank("f of the unlearned models", unlearned, 2, "[U, N]")
    check_rank("f of the retrained models", retrained, 2, "[R, N]")
    if unlearned.shape[1] != retrained.shape[1]:
        raise ValueError(f"f of the unlearned models has shape {unlearned.shape} and of the "
                         f"retrained {retrained.shape}; they must be of the same samples")
    if min(len(unlearned), len(retrained)) < 2:
        raise Refused(f"two models of each kind are needed, there are {len(unlearned)} "
                      f"unlearned and {len(retrained)} retrained")
    check_finite("f of the unlearned models", unlearned)
    check_finite("f of the retrained models", retrained)


def _far_narrower(unlearned_UN: Array, retrained_RN: Array, share: float) -> np.ndarray:
    """`[N]` bool: True if one kind's range of f is below a share of the other's."""
    ranges = [np.ptp(np.asarray(f, np.float64), axis=0) for f in (unlearned_UN, retrained_RN)]
    return np.minimum(*ranges) < share * np.maximum(*ranges)


def _exact_ratios(unlearned_UN: Array, retrained_RN: Array, delta: float):
    """The results of `_order` and `_best_ratios`, computed in float64."""
    f_PN = np.concatenate([np.asarray(unlearned_UN), np.asarray(retrained_RN)])
    is_unlearned = (np.arange(len(f_PN)) < len(unlearned_UN)).astype(np.int32)
    with jax.enable_x64(True):
        order, edges = _order(f_PN)
        ratio, separate = _ratios(order, edges, is_unlearned, 1 - is_unlearned,
                                  np.ones(f_PN.shape[1]), np.float64(delta))
        return jax.device_get((order, edges, ratio, separate))


def _random_halves(unlearned: int, retrained: int, replicates: int, seed: int):
    """Halves of either kind, `[B, P]` twice: 1 for the models in a half, 0 for the others."""
    rng = np.random.default_rng(seed)

    def halves(models):
        # With an odd number, a half is the smaller or the larger one at random.
        sizes = (models + rng.integers(2, size=(replicates, 1))) // 2
        return rng.permuted(np.arange(models)[None] < sizes, axis=1).astype(np.int32)

    drawn = halves(unlearned), halves(retrained)
    return (np.pad(drawn[0], ((0, 0), (0, retrained))), np.pad(drawn[1], ((0, 0), (unlearned, 0))))


@jax.jit
def _order(f_PN):
    """Models in order of f, and the possible thresholds among the P + 1 gaps between them."""
    order = jnp.argsort(f_PN, axis=0)
    f_PN = jnp.take_along_axis(f_PN, order, axis=0)
    end = jnp.ones_like(f_PN[:1], bool)
    return order, jnp.concatenate([end, f_PN[1:] != f_PN[:-1], end])


@functools.partial(jax.jit, static_argnames="bins")
def _qualities(order_PN, edges_EN, unlearned_BP, retrained_BP, ratios_N, delta, narrower_N, bins):
    def quality(weights):
        unlearned_P, retrained_P = weights
        ratio, separate = _best_ratios(order_PN, edges_EN, unlearned_P, retrained_P, ratios_N,
                                       delta)
        found = jnp.where(separate | narrower_N, LARGEST_EPSILON, jnp.log(ratio))
        return jnp.mean(sample_scores(found, bins))

    return jax.lax.map(quality, (unlearned_BP, retrained_BP))


def _best_ratios(order_PN, edges_EN, unlearned_P, retrained_P, start_N, delta):
    """exp(epsilon) `[N]`, at least 1, and `[N]` bool: True if an attack without errors exists.

    There are P^2 / 2 intervals; this takes a few passes over the P + 1 gaps instead. The two
    terms of epsilon are logarithms of fractions, `(1 - delta - g) / m` and `(1 - delta - m) / g`,
    where m is the share of the inner kind that is outside and g the share of the outer kind that
    is inside. Take a guess c of the largest fraction. The largest value of `(1 - delta - g) - c m`
    over intervals shows whether an attack is better than c, and gives a better one. This is
    Dinkelbach's method, which takes about five guesses (Dinkelbach 1967, "On Nonlinear Fractional
    Programming"). The value is a sum over the interval's models, so the largest is found in one
    pass: each gap is tried as the end, and only the best start so far is kept (Kadane's method).

    Args:
      order_PN, edges_EN: from `_order`.
      unlearned_P, retrained_P: integer weight of each model.
      start_N: first guesses, at least 1. All calculations use their type: float64 finds the best
        attack, float32 finds one that is as good to about 1e-4.
    """
    kinds = jnp.arange(4)
    of_retrained, second_term = (kinds >= 2)[:, None], (kinds % 2 == 1)[:, None]
    counts_EN = tuple(
        jnp.concatenate([jnp.zeros_like(order_PN[:1], jnp.int32),
                         jnp.cumsum(weights[order_PN], axis=0, dtype=jnp.int32)])
        for weights in (unlearned_P, retrained_P))

    def by_kind(unlearned, retrained):
        """The values for the inner and the outer kind, `[4, N]`."""
        return (jnp.where(of_retrained, retrained, unlearned),
                jnp.where(of_retrained, unlearned, retrained))

    inner_all, outer_all = by_kind(*(counts[-1:] for counts in counts_EN))

    def better_ratio(guess_N):
        guess = guess_N[None]
        inner_weight = jnp.where(second_term, 1, guess) / inner_all
        outer_weight = jnp.where(second_term, guess, 1) / outer_all

        def step(carry, gap):
            ready, waiting, ready_late, waiting_late, outer_before, best, start, end = carry
            index, edge, *counts = gap
            edge = edge[None]
            inner, outer = by_kind(*(x[None] for x in counts))
            value = inner_weight * inner - outer_weight * outer
            # g > 0: a start counts only after a model of the outer kind has followed it.
            followed = edge & (outer > outer_before)
            ready = _lower(ready, waiting, followed)
            ready_late = _lower(ready_late, waiting_late, followed)
            waiting, waiting_late = (
                (jnp.where(followed, jnp.inf, low), at) for low, at in (waiting, waiting_late))
            # m > 0: an interval that ends after the last of the inner kind starts after the first.
            past_last = inner == inner_all
            low, low_at = (jnp.where(past_last, late, early)
                           for late, early in zip(ready_late, ready))
            better = edge & (value - low > best)
            best = jnp.where(better, value - low, best)
            start, end = jnp.where(better, low_at, start), jnp.where(better, index, end)
            waiting = _lower(waiting, (value, index), edge)
            waiting_late = _lower(waiting_late, (value, index), edge & (inner > 0))
            outer_before = jnp.where(edge, outer, outer_before)
            return (ready, waiting, ready_late, waiting_late, outer_before, best, start, end), None

        infinite = jnp.full(inner_all.shape, jnp.inf, start_N.dtype)
        zero = jnp.zeros(inner_all.shape, jnp.int32)
        nothing = (infinite, zero)
        gaps = jnp.arange(len(edges_EN), dtype=jnp.int32)
        carry, _ = jax.lax.scan(
            step, (nothing, nothing, nothing, nothing, zero, -infinite, zero, zero),
            (gaps, edges_EN, *counts_EN))
        best, start, end = carry[-3:]
        inside, intruders = by_kind(*(
            (jnp.take_along_axis(counts, end, 0) - jnp.take_along_axis(counts, start, 0))
            .astype(start_N.dtype) for counts in counts_EN))
        missed, intruding = 1 - inside / inner_all, intruders / outer_all
        ratio = jnp.where(second_term, (1 - delta - missed) / intruding,
                          (1 - delta - intruding) / missed)
        return jnp.maximum(1, jnp.where(best > -jnp.inf, ratio, 0).max(0))

    def improve(carry):
        guess_N, _, _ = carry
        ratio_N = better_ratio(guess_N)
        # The first guess may be too high; later guesses only rise.
        return ratio_N, jnp.any(ratio_N > guess_N), False

    ratio_N, *_ = jax.lax.while_loop(lambda carry: carry[1] | carry[2], improve,
                                     (start_N, True, True))
    return ratio_N, _separate(counts_EN, edges_EN)


_ratios = jax.jit(_best_ratios)


def _lower(kept, other, where):
    """The lower of two (value, gap) pairs, where allowed."""
    value, index = other
    take = where & (value < kept[0])
    return jnp.where(take, value, kept[0]), jnp.where(take, index, kept[1])


def _separate(counts_EN, edges_EN):
    """`[N]` bool: True if some interval holds all models of one kind and none of the other."""
    def alone(inner_EN, outer_EN):
        before = jnp.where(edges_EN & (inner_EN == 0), outer_EN, 0).max(0)
        after = jnp.where(edges_EN & (inner_EN == inner_EN[-1:]), outer_EN, outer_EN[-1:]).min(0)
        return before == after

    return alone(*counts_EN) | alone(*reversed(counts_EN))
