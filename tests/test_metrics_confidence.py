import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unlearn_jax.metrics import confidence

R = np.random.default_rng(0)
LOGITS = R.normal(0, 3, (2, 7, 4)).astype(np.float32)
LABELS = R.integers(0, 4, 7)


def probabilities(logits):
    p = np.exp(logits.astype(np.float64))
    return p / p.sum(-1, keepdims=True)


def test_confidences_and_losses_by_hand():
    # probabilities 1/2, 1/4, 1/4
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]]))
    labels = jnp.array([0, 1])
    np.testing.assert_allclose(confidence.logit_scaled_confidences(logits, labels),
                               [[0, np.log(1 / 3)]], atol=1e-6)
    np.testing.assert_allclose(confidence.cross_entropies(logits, labels),
                               [[np.log(2), np.log(4)]], rtol=1e-6)
    np.testing.assert_allclose(confidence.entropies(logits), [[1.5 * np.log(2)] * 2], rtol=1e-6)


def test_against_probabilities():
    p = probabilities(LOGITS)
    p_y = p[:, np.arange(7), LABELS]
    np.testing.assert_allclose(confidence.logit_scaled_confidences(LOGITS, LABELS),
                               np.log(p_y / (1 - p_y)), rtol=1e-4)
    np.testing.assert_allclose(confidence.cross_entropies(LOGITS, LABELS), -np.log(p_y), rtol=1e-4)
    np.testing.assert_allclose(confidence.entropies(LOGITS), stats.entropy(p, axis=-1), rtol=1e-4)


def test_losses_of_sure_models_keep_their_order_and_digits():
    logits = np.zeros((1, 4, 10), np.float32)
    logits[0, :, 3] = [15, 18, 20, 25]
    expected = np.log1p(9 * np.exp(-logits[:, :, 3].astype(np.float64)))
    np.testing.assert_allclose(confidence.cross_entropies(logits, np.full(4, 3)), expected,
                               rtol=1e-5)


def test_finite_where_probabilities_round_to_zero_and_one():
    logits = jnp.array([[[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]]])
    labels = jnp.array([0, 1])
    np.testing.assert_allclose(confidence.logit_scaled_confidences(logits, labels),
                               [[200 - np.log(2), -200]], rtol=1e-6)


def test_two_classes_give_the_difference_of_logits():
    logits = R.normal(size=(3, 5, 2)).astype(np.float32)
    labels = np.array([0, 1, 1, 0, 1])
    sign = np.where(labels == 0, 1, -1)
    np.testing.assert_allclose(confidence.logit_scaled_confidences(logits, labels),
                               (logits[..., 0] - logits[..., 1]) * sign, rtol=1e-6)


def test_residuals_keep_their_sign():
    np.testing.assert_allclose(
        confidence.residuals(jnp.array([[20.0, 30.0]]), jnp.array([22.0, 27.0])), [[2, -3]])


def test_an_unknown_class_gives_nan():
    labels = np.array([0, 4, 0, 0, 0, 0, 0])
    for score in (confidence.logit_scaled_confidences, confidence.cross_entropies):
        assert np.isnan(np.asarray(score(LOGITS, labels))).sum(0).tolist() == [0, 2, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("score", [confidence.logit_scaled_confidences,
                                   confidence.cross_entropies])
@pytest.mark.parametrize("logits, labels, words", [
    (np.zeros((5, 3)), np.zeros(5, int), r"\[M, N, C\]"),
    (np.zeros((2, 5, 1)), np.zeros(5, int), "two classes"),
    (np.zeros((2, 5, 3)), np.zeros((5, 1), int), "labels must have shape"),
    (np.zeros((2, 5, 3)), np.zeros(5, np.float32), "integers"),
])
def test_what_does_not_fit_is_refused(score, logits, labels, words):
    with pytest.raises(ValueError, match=words):
        score(logits, labels)


def test_residuals_refuse_columns():
    with pytest.raises(ValueError, match="labels must have shape"):
        confidence.residuals(jnp.zeros((5, 1)), jnp.zeros(5))
