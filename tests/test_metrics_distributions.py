import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from unlearn_jax.metrics import distributions

R = np.random.default_rng(0)
METRICS = [distributions.wasserstein, distributions.jensen_shannon, distributions.klom]


def histograms(first, second, bins=20):
    edges = np.linspace(min(first.min(), second.min()), max(first.max(), second.max()), bins + 1)
    return [np.histogram(x, edges)[0] / len(x) for x in (first, second)]


def test_by_hand():
    unlearned, retrained = np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])
    np.testing.assert_allclose(distributions.wasserstein(unlearned, retrained), [1.5])
    # three bins: p = (1/2, 1/2, 0), q = (0, 1/2, 1/2)
    half = np.log(2) / 2
    np.testing.assert_allclose(distributions.jensen_shannon(unlearned, retrained, bins=3), [half],
                               rtol=1e-6)
    np.testing.assert_allclose(distributions.klom(unlearned, retrained, bins=3),
                               [0.5 * np.log(0.5 / 1e-5)], rtol=1e-6)


@pytest.mark.parametrize("unlearned, retrained", [(40, 40), (17, 40), (5, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_over_models_equals_scipy(unlearned, retrained, ties):
    u, r = R.normal(1, 2, (unlearned, 15)), R.normal(size=(retrained, 15))
    if ties:
        u, r = np.round(u), np.round(r)
    u, r = u.astype(np.float32), r.astype(np.float32)
    np.testing.assert_allclose(
        distributions.wasserstein(u, r),
        [stats.wasserstein_distance(u[:, i], r[:, i]) for i in range(15)], rtol=1e-5)
    if ties:
        return  # on the edges of bins, where rounding decides
    both = [histograms(u[:, i], r[:, i]) for i in range(15)]
    np.testing.assert_allclose(distributions.jensen_shannon(u, r),
                               [jensenshannon(p, q)**2 for p, q in both], rtol=1e-4)
    np.testing.assert_allclose(
        distributions.klom(u, r),
        [np.sum([a * np.log(a / max(b, 1e-5)) for a, b in zip(p, q) if a > 0]) for p, q in both],
        rtol=1e-4)


def test_a_far_output_of_both_kinds_adds_nothing():
    u = np.concatenate([np.zeros(6), np.full(1, 1e9)])[:, None].astype(np.float32)
    np.testing.assert_array_equal(distributions.wasserstein(u, np.tile(u, (3, 1))), [0])


def test_over_samples_compares_pairs_of_models():
    u, r = R.normal(1, 2, (4, 300)), R.normal(size=(4, 300))
    np.testing.assert_allclose(distributions.wasserstein(u, r, over="samples"),
                               [stats.wasserstein_distance(*pair) for pair in zip(u, r)], rtol=1e-5)
    for metric in METRICS:
        np.testing.assert_allclose(metric(u, r, over="samples"), metric(u.T, r.T), rtol=1e-5)


def test_margins_are_cut_off():
    u, r = np.array([[-1e6], [0.0], [50.0]]), np.array([[-100.0], [0.0], [50.0]])
    np.testing.assert_allclose(distributions.klom(u, r), 0, atol=1e-6)
    assert distributions.klom(u, r, limit=1e7)[0] > 1


@pytest.mark.parametrize("metric", METRICS)
def test_end_points_the_original_fails_and_the_retrained_passes(metric):
    retrained, again = R.normal(size=(2, 200, 30))
    original = R.normal(4, 1, (200, 30))
    assert np.min(metric(original, retrained)) > 5 * np.max(metric(again, retrained))
    np.testing.assert_allclose(metric(retrained, retrained), 0, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_constant_outputs_and_failed_models(metric):
    same = np.full((3, 2), 7.0)
    np.testing.assert_array_equal(metric(same, same), [0, 0])
    broken = same.copy()
    broken[1, 1] = np.nan
    np.testing.assert_array_equal(metric(broken, same), [0, np.nan])
    np.testing.assert_array_equal(metric(same, broken[:2]), [0, np.nan])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("first, second, over, words", [
    ((5,), (5, 1), "models", r"\[U, N\]"),
    ((5, 2), (5, 1), "models", "the same samples"),
    ((5, 2), (4, 2), "samples", "must be the same"),
    ((5, 2), (5, 2), "seeds", '"models" or "samples", not'),
])
def test_what_does_not_fit_is_refused(metric, first, second, over, words):
    with pytest.raises(ValueError, match=words):
        metric(np.zeros(first), np.zeros(second), over=over)


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="bins"):
        distributions.klom(np.zeros((2, 2)), np.zeros((2, 2)), bins=1)
