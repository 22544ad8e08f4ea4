"""Ridge and logistic regression that are fitted and unlearned: the models of `injection.py`.

Both minimise `sum of losses + ridge / 2 · |weights|²`, without a penalty on the intercept. The loss
is half the squared error (regression) or the cross entropy of classes 0 and 1 (classification).
Parameters are `[1 + D]`, the intercept first. All is float64 on the host: the models are small, and
after few gradient steps the remaining share differs from 1 by less than float32 can show.

Sources: Izzo et al. 2021, "Approximate Data Deletion from Machine Learning Models", for the test
(the share of a feature that remains after approximate deletion) and the residual update; Guo et al.
2020, "Certified Data Removal from Machine Learning Models", for the Newton step; Koh and Liang
2017, "Understanding Black-box Predictions via Influence Functions", for the influence step.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from unlearn_jax.metrics.injection import linear_weights, logistic_weights

GRID = 8  # features are the means over the cells of a grid of this many rows and columns
_CHUNK = 256  # images that are converted to float64 at a time


def pixel_features(images_NHWC: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[n, GRID · GRID · C]` means of an image's cells, standardised over the rows.

    A cell's edges may run through pixels; such a pixel counts by the part that is inside. A feature
    that is the same on all rows is 0.

    Args:
      images_NHWC: images of the data set, uint8; may be a memory map.
      rows: `[n]` rows to take.

    Raises:
      ValueError: images of fewer than GRID pixels a side.
    """
    height, width = images_NHWC.shape[1:3]
    if min(height, width) < GRID:
        raise ValueError(f"images are {height} x {width} pixels; allowed: at least {GRID}")
    down, across = _cells(height), _cells(width)
    parts = [np.einsum("nhwc,ih,jw->nijc", images_NHWC[rows[i:i + _CHUNK]].astype(np.float64),
                       down, across, optimize=True) for i in range(0, len(rows), _CHUNK)]
    features = np.concatenate(parts).reshape(len(rows), -1)
    features -= features.mean(0)
    deviations = features.std(0)
    varies = deviations > 1e-6  # on a scale of 255: more than rounding
    return np.where(varies, features / np.where(varies, deviations, 1), 0)


def _cells(pixels: int) -> np.ndarray:
    """`[GRID, pixels]` weights that average a line of pixels over each of its cells."""
    edges = np.arange(GRID + 1)[:, None] * pixels / GRID
    starts = np.arange(pixels)
    inside = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return np.maximum(inside, 0) * GRID / pixels


def fit(task: str, features_ND: np.ndarray, labels_N: np.ndarray, ridge: float) -> np.ndarray:
    """The parameters `[1 + D]` at the minimum.

    Args:
      task: 'regression' or 'classification'.
      features_ND, labels_N: training set; labels in their unit, or classes 0 and 1.
      ridge: above 0.

    Raises:
      ValueError: other shapes, other classes, or `ridge` not above 0.
    """
    if task == "regression":
        weights = linear_weights(features_ND, labels_N, ridge=ridge)
        intercept = labels_N.mean(dtype=np.float64) - features_ND.mean(0) @ weights
    else:
        weights = logistic_weights(features_ND, labels_N, ridge=ridge)
        scores = features_ND @ weights
        bound = np.abs(scores).max() + np.log(2 * len(scores))  # the root is within
        intercept = brentq(lambda b: (expit(scores + b) - labels_N).sum(), -bound, bound)
    return np.concatenate([[intercept], weights])


def gradient(task: str, parameters_P: np.ndarray, features_ND: np.ndarray, labels_N: np.ndarray,
             ridge: float) -> np.ndarray:
    """The objective's gradient `[1 + D]`; arguments as for `fit`."""
    scores = parameters_P[0] + features_ND @ parameters_P[1:]
    errors = (scores if task == "regression" else expit(scores)) - labels_N
    return np.concatenate([[errors.sum()], features_ND.T @ errors + ridge * parameters_P[1:]])


def hessian(task: str, parameters_P: np.ndarray, features_ND: np.ndarray,
            ridge: float) -> np.ndarray:
    """The objective's second derivatives `[1 + D, 1 + D]`; arguments as for `fit`."""
    curvatures = np.ones(len(features_ND))
    if task == "classification":
        p = expit(parameters_P[0] + features_ND @ parameters_P[1:])
        curvatures = p * (1 - p)
    return _second_derivatives(features_ND, curvatures, ridge)


def newton_step(task: str, parameters_P: np.ndarray, features_ND: np.ndarray,
                labels_N: np.ndarray, ridge: float) -> np.ndarray:
    """The parameters `[1 + D]` after one Newton step; for a regression, they equal those of `fit`.

    A feature that is 0 on D_r does not affect the losses there. Its row of the second derivatives
    holds only the penalty, so the step removes its whole weight, independently of the other
    features. For a classification the other weights only come near those of `fit`.

    Args:
      parameters_P: parameters of M_O.
      features_ND, labels_N: D_r.
      task, ridge: as for `fit`.
    """
    step = np.linalg.solve(hessian(task, parameters_P, features_ND, ridge),
                           gradient(task, parameters_P, features_ND, labels_N, ridge))
    return parameters_P - step


def influence_step(task: str, parameters_P: np.ndarray, features_ND: np.ndarray,
                   labels_N: np.ndarray, forget_N: np.ndarray, ridge: float) -> np.ndarray:
    """The parameters `[1 + D]` after one step by the influence of D_f on M_O.

    Like the Newton step, but with the second derivatives of D_f and D_r together, which are
    available before any deletion request.

    Args:
      parameters_P: parameters of M_O, at its minimum.
      features_ND, labels_N: D_f and D_r.
      forget_N: bool, D_f.
      task, ridge: as for `fit`.
    """
    of_forgotten = gradient(task, parameters_P, features_ND[forget_N], labels_N[forget_N], 0.0)
    return parameters_P + np.linalg.solve(hessian(task, parameters_P, features_ND, ridge),
                                          of_forgotten)


def residual_update(task: str, parameters_P: np.ndarray, features_ND: np.ndarray,
                    labels_N: np.ndarray, forget_N: np.ndarray, ridge: float) -> np.ndarray:
    """The parameters `[1 + D]` after the projective residual update of Izzo et al. 2021.

    The outputs on D_f of a model without D_f follow from M_O alone (leave-k-out residuals). The
    update is the shortest one that gives these outputs: the step to M_R, projected onto the span of
    the samples of D_f. With as many samples as parameters it is the whole step. For a
    classification, M_O is treated as the solution of a weighted regression, that of its last Newton
    step.

    Args:
      parameters_P: parameters of M_O, at its minimum.
      features_ND, labels_N: D_f and D_r.
      forget_N: bool, D_f.
      task, ridge: as for `fit`.
    """
    inputs_FP = np.concatenate([np.ones((int(forget_N.sum()), 1)), features_ND[forget_N]], axis=1)
    scores_F, labels_F = inputs_FP @ parameters_P, labels_N[forget_N]
    if task == "regression":
        residuals_F = labels_F - scores_F
    else:
        p = np.clip(expit(scores_F), 1e-12, 1 - 1e-12)  # a root of 0 would divide
        roots = np.sqrt(p * (1 - p))
        inputs_FP, residuals_F = inputs_FP * roots[:, None], (labels_F - p) / roots
    leverages_FF = inputs_FP @ np.linalg.solve(
        hessian(task, parameters_P, features_ND, ridge), inputs_FP.T)
    left_out_F = np.linalg.solve(np.eye(len(inputs_FP)) - leverages_FF, residuals_F)
    # Outputs change by the difference of the residuals.
    return parameters_P + np.linalg.pinv(inputs_FP) @ (residuals_F - left_out_F)


def gradient_steps(task: str, parameters_P: np.ndarray, features_ND: np.ndarray,
                   labels_N: np.ndarray, ridge: float, steps: Sequence[int]) -> np.ndarray:
    """The parameters `[S, 1 + D]` after given numbers of gradient descent steps.

    The step size is the largest one with which the objective never rises: 1 / the largest curvature
    that the objective can have.

    Args:
      parameters_P: parameters of M_O.
      features_ND, labels_N: D_r.
      steps: `[S]` numbers of steps, in any order.
      task, ridge: as for `fit`.
    """
    most = 1.0 if task == "regression" else 0.25
    bounds = _second_derivatives(features_ND, np.full(len(features_ND), most), ridge)
    rate = 1 / np.linalg.eigvalsh(bounds)[-1]
    reached = {0: parameters_P}
    for k in range(1, max(steps) + 1):
        parameters_P = parameters_P - rate * gradient(task, parameters_P, features_ND, labels_N,
                                                      ridge)
        if k in steps:
            reached[k] = parameters_P
    return np.stack([reached[k] for k in steps])


def _second_derivatives(features_ND: np.ndarray, curvatures_N: np.ndarray,
                        ridge: float) -> np.ndarray:
    ones = np.ones((len(features_ND), 1))
    inputs_NP = np.concatenate([ones, features_ND], axis=1)
    penalty_P = np.full(inputs_NP.shape[1], ridge)
    penalty_P[0] = 0
    return inputs_NP.T @ (curvatures_N[:, None] * inputs_NP) + np.diag(penalty_P)
