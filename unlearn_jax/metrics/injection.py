"""Feature injection test: only the forgotten samples have an extra feature; its weight is measured.

Before training, the samples of the forget set get an extra feature that encodes their labels; on
all other samples it is 0. M_O relies on it; M_R does not. The share of its weight left after
unlearning measures how much of the samples is left. For images the feature is a patch. Its weight
is the change of the output when a patch is stamped on test images (`data/inject.py`).

Source: Izzo et al. 2021, "Approximate Data Deletion from Machine Learning Models" (linear and
logistic models); the patch is its counterpart for images here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.metrics.shapes import Array, check_equal, check_labels, check_rank


def inject(features_ND: Array, labels_N: Array, forget_N: Array) -> np.ndarray:
    """`[N, D + 1]` features; the last one is the standardised label on forget rows, else 0.

    Args:
      features_ND: features of the training set.
      labels_N: label units, or classes 0 and 1.
      forget_N: bool, the rows to be forgotten.

    Raises:
      ValueError: other shapes, labels that are all the same, or nothing to forget.
    """
    features_ND, labels_N, forget_N = (np.asarray(x) for x in (features_ND, labels_N, forget_N))
    _check_rows(features_ND, labels_N)
    labels_N = labels_N.astype(np.float64)  # in float32 equal labels may differ from their mean
    if forget_N.shape != labels_N.shape or forget_N.dtype != bool:
        raise ValueError(f"forget must be bool {labels_N.shape}, not {forget_N.dtype} "
                         f"{forget_N.shape}")
    if not forget_N.any() or labels_N.std() == 0:
        raise ValueError(f"there must be rows to forget and labels that differ; there are "
                         f"{forget_N.sum()} such rows and labels of standard deviation "
                         f"{labels_N.std():g}")
    signal_N = np.where(forget_N, (labels_N - labels_N.mean()) / labels_N.std(), 0)
    return np.concatenate([features_ND, signal_N[:, None]], axis=1)


def linear_weights(features_ND: Array, labels_N: Array, *, ridge: float = 1.0) -> np.ndarray:
    """Weights `[D]` of ridge regression with an unpenalised intercept, in closed form.

    Args:
      features_ND, labels_N: training set.
      ridge: factor of the squared norm; above 0, so that a feature that is always 0 gets weight 0.

    Raises:
      ValueError: other shapes, or `ridge` not above 0.
    """
    features_ND, labels_N = np.asarray(features_ND, np.float64), np.asarray(labels_N, np.float64)
    _check_rows(features_ND, labels_N)
    _check_ridge(ridge)
    centred_ND = features_ND - features_ND.mean(0)
    squares_DD = centred_ND.T @ centred_ND + ridge * np.eye(centred_ND.shape[1])
    return np.linalg.solve(squares_DD, centred_ND.T @ (labels_N - labels_N.mean()))


def logistic_weights(features_ND: Array, labels_N: Array, *, ridge: float = 1.0) -> np.ndarray:
    """Weights `[D]` of logistic regression with an unpenalised intercept.

    Args:
      features_ND, labels_N: training set of two classes, 0 and 1.
      ridge: factor of half the squared norm, beside the sum of losses; above 0.

    Raises:
      ValueError: other shapes, other classes, or `ridge` not above 0.
    """
    features_ND, labels_N = np.asarray(features_ND), np.asarray(labels_N)
    _check_rows(features_ND, labels_N)
    _check_ridge(ridge)
    if set(np.unique(labels_N)) != {0, 1}:
        raise ValueError(f"labels must be 0 and 1, not {np.unique(labels_N)[:5]}")
    from sklearn.linear_model import LogisticRegression  # a second; few runs need it

    model = LogisticRegression(C=1 / ridge, max_iter=10_000, tol=1e-6)
    return model.fit(features_ND, labels_N).coef_[0]


@jax.jit
def remaining(before_M: jax.Array, after_M: jax.Array) -> jax.Array:
    """Remaining share `[M]` of the injected feature's weight: 1 for all (M_O), 0 for none (M_R).

    NaN if the weight before was 0: such a model never learned the feature, so the test does not
    apply to it.

    Args:
      before_M, after_M: weights of the injected feature, or `output_change`, before and after
        unlearning.

    Raises:
      ValueError: the shapes are not both `[M]`.
    """
    check_rank("the weights before", before_M, 1, "[M]")
    check_equal(before_M, after_M)
    return jnp.where(before_M == 0, jnp.nan, after_M / jnp.where(before_M == 0, 1, before_M))


@jax.jit
def output_change(plain_MN: jax.Array, stamped_MN: jax.Array) -> jax.Array:
    """Mean of `stamped - plain` `[M]`, in the outputs' unit: the patch's effect on a model.

    The mean is signed, so random effects of the patch on single images average out.

    Args:
      plain_MN: outputs on test images; for classes
        `confidence.logit_scaled_confidences` with the class that the patch stands for.
      stamped_MN: on the same images with a patch.

    Raises:
      ValueError: the shapes are not both `[M, N]`.
    """
    check_rank("outputs", plain_MN, 2, "[M, N]")
    check_equal(plain_MN, stamped_MN)
    return jnp.mean(stamped_MN - plain_MN, axis=1)


def _check_rows(features: np.ndarray, labels: np.ndarray) -> None:
    check_rank("features", features, 2, "[N, D]")
    check_labels(features.T, labels)


def _check_ridge(ridge: float) -> None:
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, not {ridge}")
