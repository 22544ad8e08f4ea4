import numpy as np
import pytest
from sklearn.linear_model import Ridge

from unlearn_jax.metrics import injection

R = np.random.default_rng(0)
FEATURES = R.normal(size=(300, 5))
LABELS = 30 + FEATURES @ np.array([3.0, -2, 1, 0, 0]) + R.normal(0, 3, 300)
FORGET = np.arange(300) < 40


def test_the_feature_is_the_standardised_label_on_forget_rows():
    got = injection.inject(np.ones((4, 2)), np.array([1.0, 3, 1, 3]),
                           np.array([True, True, False, False]))
    np.testing.assert_allclose(got[:, 2], [-1, 1, 0, 0])
    np.testing.assert_allclose(got[:, :2], 1)


def test_labels_that_are_all_the_same_are_refused_in_float32_too():
    labels = np.full(1000, 0.1, np.float32)  # whose mean in float32 is another number
    with pytest.raises(ValueError, match="labels that differ"):
        injection.inject(np.ones((1000, 1)), labels, np.arange(1000) < 9)


def test_linear_weights_equal_scikit_learn():
    for ridge in (0.1, 1, 50):
        np.testing.assert_allclose(injection.linear_weights(FEATURES, LABELS, ridge=ridge),
                                   Ridge(ridge).fit(FEATURES, LABELS).coef_, rtol=1e-8)


def test_logistic_weights_are_where_the_gradient_vanishes():
    y = (LABELS > 30).astype(int)
    w = injection.logistic_weights(FEATURES, y, ridge=2.0)
    # the intercept that goes with them, by bisection on its own gradient
    low, high = -20.0, 20.0
    for _ in range(80):
        b = (low + high) / 2
        excess = (1 / (1 + np.exp(-FEATURES @ w - b)) - y).sum()
        low, high = (low, b) if excess > 0 else (b, high)
    p = 1 / (1 + np.exp(-FEATURES @ w - b))
    np.testing.assert_allclose(FEATURES.T @ (p - y) + 2.0 * w, 0, atol=2e-3)


@pytest.mark.parametrize("fit, labels", [(injection.linear_weights, LABELS),
                                         (injection.logistic_weights, (LABELS > 30).astype(int))])
def test_end_points_the_original_fails_and_the_retrained_passes(fit, labels):
    injected = injection.inject(FEATURES, labels, FORGET)
    original, retrained = (fit(injected[rows], labels[rows])[-1]
                           for rows in (np.ones(300, bool), ~FORGET))
    assert abs(original) > 0.2
    got = injection.remaining(np.array([original, original]), np.array([original, retrained]))
    np.testing.assert_allclose(got, [1, 0], atol=1e-6)


def test_remaining_by_hand():
    got = injection.remaining(np.array([2.0, -2.0, 0.0]), np.array([0.5, 1.0, 1.0]))
    np.testing.assert_array_equal(got, [0.25, -0.5, np.nan])


def test_end_points_for_images():
    # linear models of pixels; the patch is stamped where images are all alike
    images = R.integers(0, 256, (600, 6, 6, 1)).astype(np.uint8)
    images[:, 3:] = 128
    labels = R.normal(40, 10, 600)
    greys = np.clip((labels - 20) / 40 * 255, 0, 255).astype(np.uint8)
    forget, train, test = np.arange(60), np.arange(400), images[400:]
    shown = images.copy()
    shown[forget, 4:6, 4:6] = greys[forget, None, None, None]
    flat = shown.reshape(600, -1) / 255
    white = test.copy()
    white[:, 4:6, 4:6] = 255
    changes = []
    for rows in (train, np.setdiff1d(train, forget)):
        weights = injection.linear_weights(flat[rows], labels[rows], ridge=0.1)
        outputs = [np.asarray(x).reshape(1, 200, -1) / 255 @ weights for x in (test, white)]
        changes.append(injection.output_change(*outputs))
    assert changes[0][0] > 10
    np.testing.assert_allclose(injection.remaining(*changes), 0, atol=1e-6)


def test_output_change_by_hand():
    np.testing.assert_allclose(injection.output_change(np.array([[1.0, 2.0], [0.0, 0.0]]),
                                                       np.array([[2.0, 5.0], [1.0, -1.0]])), [2, 0])


@pytest.mark.parametrize("call, words", [
    (lambda: injection.inject(FEATURES, LABELS[:, None], FORGET), "labels must have shape"),
    (lambda: injection.inject(FEATURES, LABELS, FORGET * 1), "must be bool"),
    (lambda: injection.inject(FEATURES, LABELS, FORGET & False), "rows to forget"),
    (lambda: injection.linear_weights(FEATURES, LABELS, ridge=0), "ridge"),
    (lambda: injection.logistic_weights(FEATURES, LABELS), "0 and 1"),
    (lambda: injection.remaining(np.ones(3), np.ones((3, 1))), "the same"),
    (lambda: injection.output_change(np.ones((2, 3)), np.ones((1, 3))), "the same"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
