"""Logistic regression on one feature, of many models at once: the fit of an attack on losses.

An attack fits two parameters to a few hundred losses, for each model and fold. A solver for any
number of features spends a hundred times as long on its checks as on the arithmetic.
"""

import math

import numpy as np
from scipy.special import expit

_STEPS = 100  # far more than a convex function of two parameters takes
_CLOSE = 1e-9  # a step beside 1 + |parameter|


def fit(feature_MN: np.ndarray, positive_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercepts `[M]` at the minimum, by Newton's method in float64.

    Minimised is `w² / 2 + Σ_n s_n log(1 + exp(-y_n (w x_n + b)))` with y_n = ±1. The factors s_n
    give both classes the weight N / 2. It is scikit-learn's `LogisticRegression` with
    `class_weight='balanced'`, whose default solver stops within 1e-4 of the gradient.

    Args:
      feature_MN: the feature, standardised.
      positive_N: bool; both values are present.

    Returns:
      NaN for a model whose fit has not converged, as where the feature is not finite.
    """
    x, y = np.asarray(feature_MN, np.float64), np.where(positive_N, 1.0, -1.0)
    share = np.where(positive_N, positive_N.sum(), (~positive_N).sum())
    weights_N = len(positive_N) / (2 * share)
    w, b = np.zeros(len(x)), np.zeros(len(x))

    def value(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        margins = y * (w[:, None] * x + b[:, None])
        return w**2 / 2 + np.logaddexp(0, -margins) @ weights_N

    for _ in range(_STEPS):
        p = expit(w[:, None] * x + b[:, None])
        slope, curve = weights_N * (p - (y > 0)), weights_N * p * (1 - p)
        gw, gb = w + (slope * x).sum(1), slope.sum(1)
        hww, hwb, hbb = 1 + (curve * x**2).sum(1), (curve * x).sum(1), curve.sum(1)
        determinant = hww * hbb - hwb**2
        dw, db = (hbb * gw - hwb * gb) / determinant, (hww * gb - hwb * gw) / determinant
        done = (np.abs(dw) < _CLOSE * (1 + np.abs(w))) & (np.abs(db) < _CLOSE * (1 + np.abs(b)))
        if done.all():
            return w, b
        here, length = value(w, b), np.ones(len(x))
        most = here + 1e-12 * np.abs(here)  # rounding
        while (worse := value(w - length * dw, b - length * db) > most).any():
            length = np.where(worse, length / 2, length)
        w, b = w - length * dw, b - length * db
    return np.where(done, w, np.nan), np.where(done, b, np.nan)


def standardised(fitted_MN: np.ndarray, other_MK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the mean and deviation of the first, row by row.

    A row that is constant up to float32's rounding becomes zero.
    """
    mean = fitted_MN.mean(1, keepdims=True, dtype=np.float64)
    deviation = fitted_MN.std(1, keepdims=True, dtype=np.float64)
    varies = deviation > 10 * np.finfo(np.float32).eps * np.abs(mean)  # more than rounding
    scale = np.where(varies, deviation, 1)
    fitted, other = (np.where(varies, (x - mean) / scale, 0) for x in (fitted_MN, other_MK))
    return fitted, other


def auc(scores_MN: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """Probability `[M]` that a positive sample has the higher score; ties count a half."""
    return np.array([math.nan if np.isnan(scores).any()
                     else above(scores[positive_N], scores[~positive_N]) for scores in scores_MN])


def above(scores: np.ndarray, others: np.ndarray) -> float:
    """Probability that a score is higher than one of the others; ties count a half.

    Args:
      scores, others: `[n]`, `[m]`, without NaN.
    """
    others = np.sort(others)
    sides = [np.searchsorted(others, scores, side) for side in ("left", "right")]
    return float(np.sum(sides) / (2 * len(scores) * len(others)))
