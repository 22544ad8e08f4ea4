import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from unlearn_jax.metrics import min_k
from unlearn_jax.metrics.confidence import cross_entropies

R = np.random.default_rng(0)


def test_by_hand():
    log_p = jnp.array([[[-1.0, -4.0, -2.0, -3.0, -9.0]]])
    mask = jnp.array([[True, True, True, True, False]])
    for percent, expected in ((25, -4), (50, -3.5), (74, -3.5), (75, -3), (100, -2.5), (1, -4)):
        np.testing.assert_allclose(min_k.min_k_prob(log_p, mask, percent), [[expected]])


def test_equals_a_loop():
    log_p = -R.gamma(1, 2, (3, 20, 31)).astype(np.float32)
    mask = R.uniform(size=(20, 31)) < R.uniform(0.2, 1, (20, 1))
    mask[:, 0] = True
    got = min_k.min_k_prob(log_p, mask, 20)
    for m in range(3):
        for n in range(20):
            kept = np.sort(log_p[m, n][mask[n]])
            np.testing.assert_allclose(got[m, n], kept[:max(1, len(kept) // 5)].mean(), rtol=1e-5)


def test_every_whole_percentage_takes_whole_tokens():
    log_p = jnp.log(jnp.arange(1.0, 101))[None, None]
    got = [float(min_k.min_k_prob(log_p, jnp.ones((1, 100), bool), k)[0, 0]) for k in range(1, 101)]
    np.testing.assert_allclose(got, np.cumsum(np.log(np.arange(1, 101))) / np.arange(1, 101),
                               rtol=1e-5)


def test_sequences_without_tokens_and_failed_models_are_nan():
    log_p = np.full((2, 2, 3), -1.0)
    log_p[1, 0, 2] = np.nan
    mask = np.array([[True, True, True], [False, False, False]])
    np.testing.assert_array_equal(min_k.min_k_prob(log_p, mask, 20), [[-1, np.nan], [np.nan] * 2])
    log_p[1, 0, 2], log_p[0, 0, 1] = -1, -np.inf
    np.testing.assert_array_equal(min_k.min_k_prob(log_p, mask, 50)[:, 0], [-np.inf, -1])


def test_end_points_the_original_fails_and_the_retrained_passes():
    # counts of pairs of words as a language model; all text comes from the same source
    forget, retain, unseen = R.integers(0, 30, (3, 40, 20))

    def scores(trained_on, text):
        counts = np.full((30, 30), 0.01)
        np.add.at(counts, (trained_on[:, :-1], trained_on[:, 1:]), 1)
        log_p = log_softmax(np.log(counts), axis=1)[text[:, :-1], text[:, 1:]]
        return np.asarray(min_k.min_k_prob(log_p[None], np.ones((40, 19), bool), 20))[0]

    original, retrained = np.concatenate([forget, retain]), retain
    gaps = [(scores(model, forget).mean() - scores(model, unseen).mean())
            / scores(model, unseen).std() for model in (original, retrained)]
    assert gaps[0] > 3 and abs(gaps[1]) < 0.5


@pytest.mark.parametrize("log_p, mask, words", [
    (np.zeros((5, 3)), np.ones((5, 3), bool), r"\[M, N, T\]"),
    (np.zeros((2, 5, 3)), np.ones((2, 5, 3), bool), "mask must be bool"),
    (np.zeros((2, 5, 3)), np.ones((5, 3)), "mask must be bool"),
    (np.zeros((2, 5, 3)), np.ones((5, 1), bool), "mask must be bool"),
])
def test_what_does_not_fit_is_refused(log_p, mask, words):
    with pytest.raises(ValueError, match=words):
        min_k.min_k_prob(log_p, mask, 20)


def test_of_one_label_it_is_the_loss_that_membership_inference_takes():
    logits, labels = R.normal(size=(3, 20, 4)).astype(np.float32), R.integers(0, 4, 20)
    losses = cross_entropies(logits, labels)
    got = min_k.min_k_prob(-losses[..., None], np.ones((20, 1), bool), 20)
    np.testing.assert_allclose(got, -losses, rtol=1e-6)
