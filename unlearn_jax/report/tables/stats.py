"""Means and intervals over seeds."""

import dataclasses
import math

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from unlearn_jax.metrics.catalogue import over_pairs, timed_once

CONFIDENCE = 0.95
GROUP = ["method", "forget_set", "epochs", "metric"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of some seeds' values, with a Student-t interval.

    Attributes:
      mean: over the values; NaN where there are none, infinite where one of them is: a time that
        was longer than what was waited.
      std: sample standard deviation (ddof = 1); NaN below two values, or where one is infinite.
      low, high: the ends of the 95 % interval; NaN where `std` is, and of pairs below three values.
      n: number of values; NaN (a failed member) is none.
      infinite: how many of them are infinite.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int
    infinite: int = 0

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.half)

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def student_t(quantile: float, n: int) -> float:
    """The quantile of Student's t distribution for the mean of `n` values."""
    return float(stdtrit(n - 1, quantile))  # importing `scipy.stats` takes half a second


def estimate(values) -> Estimate:
    """Mean and 95 % Student-t interval, `mean ± t(0.975, n - 1) · std / sqrt(n)`.

    Args:
      values: `[n]`; NaN (failed members) is left out.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    n, infinite = len(values), int(np.isinf(values).sum())
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    if n == 1 or infinite:
        return Estimate(mean, math.nan, math.nan, math.nan, n, infinite)
    std = float(values.std(ddof=1))
    half = student_t((1 + CONFIDENCE) / 2, n) * std / math.sqrt(n)
    return Estimate(mean, std, mean - half, mean + half, n)


def estimate_pairs(values) -> Estimate:
    """Mean and 95 % interval of a mean over all pairs of seeds, such as the ceiling.

    The values of two seeds share their pair, so they vary too little for Student's interval,
    which would cover about two thirds. The jackknife over seeds leaves out one seed with all its
    pairs at a time. Its interval of the mean is
    `± t(0.975, n - 1) · 2 (n - 1) / (n - 2) · std / sqrt(n)`.

    Args:
      values: `[n]`, of each seed the mean over its pairs with the other seeds; those that are
        not finite are left out.

    Returns:
      Below three seeds no interval: two have one pair.

    Source: Arvesen, Jackknifing U-statistics (1969).
    """
    raw, apart = estimate(values), estimate(pseudo_values(values))
    return dataclasses.replace(raw, low=apart.low, high=apart.high)


def pseudo_values(values):
    """The jackknife's pseudo-values of a mean over pairs.

    They have the same mean. Alone, and in differences and means with other metrics of the same
    seeds, they can be treated as independent.

    Args:
      values: `[n]` as for `estimate_pairs`, an array or a Series.

    Returns:
      `[n]`, an array or a Series as given; all NaN below three finite values.
    """
    given, values = values, np.asarray(values, np.float64)
    finite = np.isfinite(values)
    n = int(finite.sum())
    if n < 3:
        found = np.full(values.shape, np.nan)
    else:
        mean = values[finite].mean()
        found = mean + 2 * (n - 1) / (n - 2) * (values - mean)
    return pd.Series(found, given.index, name=given.name) if isinstance(given, pd.Series) else found


def independent(metric: str, values):
    """Values of a metric by seed that an interval or a test may treat as independent."""
    return pseudo_values(values) if over_pairs(metric) else values


def estimate_metric(metric: str, values) -> Estimate:
    """`estimate`, or `estimate_pairs` for a metric of results.csv that is a mean over pairs.

    A time that was measured once for all seeds has no interval.
    """
    if timed_once(metric):
        return dataclasses.replace(estimate(values), std=math.nan, low=math.nan, high=math.nan)
    return (estimate_pairs if over_pairs(metric) else estimate)(values)


def paired_p(differences) -> float:
    """Two-sided p of the paired t-test that the differences are zero on average.

    The test assumes that differences are independent draws of one normal distribution.

    Args:
      differences: `[n]`; NaN is left out.

    Returns:
      NaN below two of them; where all are equal, 1 if they are zero, else 0.
    """
    e = estimate(differences)
    if e.n < 2:
        return math.nan
    if e.std == 0:
        return float(e.mean == 0)
    return float(2 * stdtr(e.n - 1, -abs(e.mean) / (e.std / math.sqrt(e.n))))


def holm(p_values) -> np.ndarray:
    """p-values corrected for their number: the chance of any false finding stays as stated.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979), as adjusted
    p-values: the j-th smallest of m is multiplied by m − j + 1, and never falls below the one
    before it.

    Args:
      p_values: `[m]`; NaN (no test) stays NaN and does not count.
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[:np.isfinite(p).sum()]  # NaN is sorted last
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


def ranks(values) -> np.ndarray:
    """Ranks from 1, the largest value first; equal values share their mean rank, NaN is last.

    Args:
      values: `[n]`.
    """
    values = np.asarray(values, np.float64)
    return pd.Series(-np.where(np.isnan(values), -np.inf, values)).rank().to_numpy()


def pareto(cost, gain) -> np.ndarray:
    """`[n]` bool: the points that no other point dominates.

    A point dominates another if its cost is no larger, its gain is no smaller, and one of the two
    is strictly better.

    Args:
      cost, gain: `[n]`; a point with a NaN never counts as undominated.
    """
    cost, gain = np.asarray(cost, np.float64), np.asarray(gain, np.float64)
    no_worse = (cost[None] <= cost[:, None]) & (gain[None] >= gain[:, None])
    better = (cost[None] < cost[:, None]) | (gain[None] > gain[:, None])
    return ~(no_worse & better).any(1) & np.isfinite(cost) & np.isfinite(gain)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """summary.csv: one row per method, forget set, budget and metric, in order of appearance.

    Args:
      results: the columns method, forget_set, epochs, metric, value; one row per seed.

    Returns:
      Columns method, forget_set, epochs, metric, mean, std, ci95_low, ci95_high, n.
    """
    rows = []
    for key, values in results.groupby(GROUP, sort=False)["value"]:
        e = estimate_metric(key[-1], values)
        rows.append((*key, e.mean, e.std, e.low, e.high, e.n))
    return pd.DataFrame(rows, columns=[*GROUP, "mean", "std", "ci95_low", "ci95_high", "n"])
