"""Tests, corrections, ranks and fronts, by hand and against SciPy."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from unlearn_jax.report.stats import estimate, holm, paired_p, pareto, ranks


def test_an_infinite_value_makes_the_mean_infinite_and_nan_is_left_out():
    e = estimate([1.0, np.inf, np.nan, 2.0])
    assert (e.mean, e.n, e.infinite) == (np.inf, 3, 1)
    assert np.isnan([e.std, e.low, e.high]).all()
    assert (estimate([1.0, np.nan, 3.0]).mean, estimate([1.0, np.nan]).infinite) == (2, 0)


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
