"""The attack's logistic regression beside scikit-learn's, run to the minimum."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from unlearn_jax.metrics import logistic


def samples(gap, members=40, others=25, seed=0):
    rng = np.random.default_rng(seed)
    positive = np.arange(members + others) < members
    return rng.gamma(2.0, 3.0, (4, members + others)) - gap * positive, positive


@pytest.mark.parametrize("gap", [0.0, 2.0, 1e4])  # 1e4: separable
def test_the_minimum_is_scikit_learns(gap):
    losses, positive = samples(gap)
    x, again = logistic.standardised(losses, losses)
    np.testing.assert_array_equal(x, again)
    weights, intercepts = logistic.fit(x, positive)
    for row, w, b in zip(losses, weights, intercepts):
        theirs = StandardScaler().fit_transform(row[:, None])
        model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=10_000)
        model.fit(theirs, positive)
        assert (w, b) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=2e-5)
        assert abs(w) < 20


def test_other_samples_are_on_the_scale_of_the_fitted_ones():
    fitted, other = logistic.standardised(np.array([[1.0, 3.0], [5.0, 5.0]]),
                                          np.array([[4.0, 2.0, 1.0], [5.0, 6.0, 7.0]]))
    np.testing.assert_array_equal(fitted, [[-1, 1], [0, 0]])  # the second is constant
    np.testing.assert_array_equal(other, [[2, 0, -1], [0, 0, 0]])


def test_a_constant_feature_says_nothing():
    positive = np.arange(9) < 4
    weights, intercepts = logistic.fit(np.zeros((2, 9)), positive)
    np.testing.assert_allclose([weights, intercepts], 0, atol=1e-12)
    np.testing.assert_array_equal(logistic.auc(np.zeros((2, 9)), positive), 0.5)


def test_auc_is_scikit_learns_with_ties():
    scores, positive = samples(1.0)
    scores = np.round(scores)
    expected = [roc_auc_score(positive, row) for row in scores]
    np.testing.assert_allclose(logistic.auc(scores, positive), expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_fit_of_what_is_not_finite_is_nan_and_leaves_others_alone():
    x, positive = np.array([[1.0, np.nan, 2.0], [1.0, -1.0, 0.0]]), np.array([True, False, False])
    weights, intercepts = logistic.fit(x, positive)
    assert np.isnan([weights[0], intercepts[0]]).all()
    np.testing.assert_allclose((weights[1], intercepts[1]), np.ravel(logistic.fit(x[1:], positive)))
