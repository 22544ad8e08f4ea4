"""Means and intervals over seeds."""

import dataclasses
import math

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
GROUP = ["method", "forget_set", "epochs", "metric"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of some seeds' values, with a Student-t interval.

    Attributes:
      mean: over the finite values; NaN where there are none.
      std: sample standard deviation (ddof = 1); NaN below two values.
      low, high: the ends of the 95 % interval; NaN below two values.
      n: number of finite values.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


def estimate(values) -> Estimate:
    """Mean and 95 % Student-t interval, `mean ± t(0.975, n - 1) · std / sqrt(n)`.

    Args:
      values: `[n]`; values that are not finite (failed members) are left out.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1)
    std = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return Estimate(mean, std, mean - half, mean + half, n)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """summary.csv: one row per method, forget set, budget and metric, in order of appearance.

    Args:
      results: the columns method, forget_set, epochs, metric, value; one row per seed.

    Returns:
      Columns method, forget_set, epochs, metric, mean, std, ci95_low, ci95_high, n.
    """
    rows = []
    for key, values in results.groupby(GROUP, sort=False)["value"]:
        e = estimate(values)
        rows.append((*key, e.mean, e.std, e.low, e.high, e.n))
    return pd.DataFrame(rows, columns=[*GROUP, "mean", "std", "ci95_low", "ci95_high", "n"])
