"""Tests, corrections, ranks and fronts, by hand and against SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_rel

from unlearn_jax.report.tables.stats import (
    estimate,
    estimate_metric,
    estimate_pairs,
    holm,
    independent,
    paired_p,
    pareto,
    ranks,
    summarise,
)


def test_an_infinite_value_makes_the_mean_infinite_and_nan_is_left_out():
    e = estimate([1.0, np.inf, np.nan, 2.0])
    assert (e.mean, e.n, e.infinite) == (np.inf, 3, 1)
    assert np.isnan([e.std, e.low, e.high]).all()
    assert (estimate([1.0, np.nan, 3.0]).mean, estimate([1.0, np.nan]).infinite) == (2, 0)


def over_pairs(evaluated, reference):
    """By seed the mean over its pairs with other seeds, exp(-|r - e| / 15) over samples."""
    pairs = np.exp(-np.abs(evaluated[:, None] - reference[None]) / 15).mean(-1)
    np.fill_diagonal(pairs, np.nan)
    return np.nanmean([*zip(pairs, pairs.T)], axis=(1, 2))


def test_the_interval_over_pairs_is_the_jackknifes():
    reference = np.random.default_rng(0).gamma(2, 4, (5, 30))
    found = estimate_pairs(over_pairs(reference, reference))
    without = [over_pairs(*[np.delete(reference, i, 0)] * 2).mean() for i in range(5)]
    error = np.sqrt(4 / 5 * np.sum((np.array(without) - np.mean(without))**2))
    assert found.half == pytest.approx(t.ppf(0.975, 4) * error)
    assert (found.mean, found.std) == (np.mean(over_pairs(reference, reference)), np.std(
        over_pairs(reference, reference), ddof=1)) and found.n == 5


@pytest.mark.parametrize("seeds", [3, 10])
def test_intervals_over_pairs_cover_as_they_say(seeds):
    rng, faces = np.random.default_rng(seeds), np.random.default_rng(1).normal(8, 6, 40)

    def models(count):
        """M_R and what comes of the same start: both err as their seed does."""
        own = rng.normal(0, 1.5, (count, 1)) + rng.normal(0, 4, (count, 40))
        noise = rng.normal(0, 1, (count, 1)) + rng.normal(0, 2, (count, 40))
        return np.abs(faces + own), np.abs(faces - 3 + 0.7 * own + noise)

    reference, evaluated = models(1000)
    ceiling, across = (over_pairs(e, reference).mean() for e in (reference, evaluated))
    cover = np.zeros(4)
    for _ in range(1000):
        reference, evaluated = models(seeds)
        of_m_r, of_m_e = over_pairs(reference, reference), over_pairs(evaluated, reference)
        below = estimate(independent("ceiling@1", of_m_r)
                         - independent("forgetting_across@1", of_m_e))
        for i, (e, true) in enumerate((
                (estimate_pairs(of_m_r), ceiling), (estimate_pairs(of_m_e), across),
                (below, ceiling - across), (estimate(of_m_r), ceiling))):
            cover[i] += (e.low <= true <= e.high) / 1000
    assert (cover[:3] > 0.92).all() and cover[3] < 0.8, cover


def test_two_seeds_have_one_pair_and_no_interval():
    found = estimate_pairs([0.5, 0.5, np.nan])
    assert (found.mean, found.n, found.has_interval) == (0.5, 2, False)
    assert np.isnan(independent("ceiling@15", np.array([0.5, 0.5]))).all()
    assert estimate([0.5, 0.6]).has_interval and not estimate([0.5]).has_interval


def test_the_summary_has_the_interval_over_pairs():
    rows = pd.DataFrame([("retrain", "a", 1, metric, value) for metric in ("ceiling@2", "utility")
                         for value in (1.0, 2.0, 4.0)],
                        columns=["method", "forget_set", "epochs", "metric", "value"])
    ceiling, utility = summarise(rows).itertuples()
    assert ceiling.mean == utility.mean and ceiling.std == utility.std
    assert ceiling.ci95_high - ceiling.mean == pytest.approx(4 * (utility.ci95_high - utility.mean))
    assert estimate_metric("ceiling@2", [1, 2, 4]).high == ceiling.ci95_high
    assert estimate_metric("utility", [1, 2, 4]).high == utility.ci95_high


def test_paired_p_by_hand():
    # differences 1, 2, 3: mean 2, std 1, t = 2 sqrt(3) = 3.4641; with two degrees of freedom
    # the two-sided p is 1 - t / sqrt(2 + t^2) = 1 - 3.4641 / sqrt(14)
    assert paired_p([1, 2, 3]) == pytest.approx(1 - np.sqrt(12 / 14), rel=1e-12)
    assert paired_p([-1, -2, -3]) == pytest.approx(paired_p([1, 2, 3]))
    assert paired_p([1, np.nan, 2, 3]) == paired_p([1, 2, 3])


def test_paired_p_against_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 5, 40):
        a, b = rng.normal(0, 1, n), rng.normal(0.3, 2, n)
        assert paired_p(a - b) == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-10)


def test_paired_p_where_nothing_varies():
    assert paired_p([0, 0, 0]) == 1 and paired_p([2, 2, 2]) == 0
    assert np.isnan(paired_p([1])) and np.isnan(paired_p([])) and np.isnan(paired_p([np.nan] * 3))


@pytest.mark.parametrize("p, corrected", [
    # times 3, 1, 2 and 4; the largest does not fall below the one before it
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.5, 0.9], [1, 1]),
    ([0.02], [0.02]),
    ([0.01, np.nan, 0.2, np.nan], [0.02, np.nan, 0.2, np.nan]),  # two tests only
    ([0.03, 0.03], [0.06, 0.06]),
    ([np.nan], [np.nan]),
    ([], []),
])
def test_holm_by_hand(p, corrected):
    np.testing.assert_allclose(holm(p), corrected)


def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni():
    p = np.random.default_rng(1).uniform(0, 1, 50) ** 3
    found = holm(p)
    assert (np.diff(found[np.argsort(p)]) >= 0).all()
    assert (found >= p).all() and (found <= np.minimum(50 * p, 1)).all()


def test_ranks():
    assert ranks([0.2, 0.9, 0.5]).tolist() == [3, 1, 2]
    assert ranks([0.5, 0.9, 0.5]).tolist() == [2.5, 1, 2.5]
    assert ranks([np.nan, 0.9, np.nan, 0.1]).tolist() == [3.5, 1, 3.5, 2]


def test_pareto_by_hand():
    cost, gain = [1, 2, 2, 3, 4, 1, np.nan], [1, 3, 2, 3, 5, 1, 9]
    # the third costs as much as the second for less, the fourth more for as much; two are equal
    assert pareto(cost, gain).tolist() == [True, True, False, False, True, True, False]
    assert pareto([], []).tolist() == []
