import numpy as np
import pytest
from scipy import stats

from unlearn_jax.attribution.likeness import KINDS, finite_mean, likeness, unit_maps

R = np.random.default_rng(0)


def of(kind, a, b):
    if kind == "rank_correlation":
        return stats.spearmanr(a.ravel(), b.ravel()).statistic
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_the_same_and_of_other_seeds(kind):
    a, b = R.integers(-3, 4, (2, 3, 2, 4, 5)).astype(np.float32)  # [M, N, H, W], with ties
    same, other = likeness(unit_maps(a, kind), unit_maps(b, kind))
    assert same.shape == other.shape == (3, 2)
    for m in range(3):
        for n in range(2):
            assert same[m, n] == pytest.approx(of(kind, a[m, n], b[m, n]))
            pairs = [of(kind, a[i, n], b[k, n]) for k in range(3) for i in range(3)
                     if k != i and m in (k, i)]
            assert len(pairs) == 4 and other[m, n] == pytest.approx(np.mean(pairs))


def test_members_that_share_their_first_weights_with_one_model():
    a, b = (unit_maps(R.normal(size=(3, 2, 4, 5)), "cosine") for _ in range(2))
    pairs = np.einsum("mnp,knp->mkn", a, b)
    same, other = likeness(a, b, np.array([2, 2, 2]))
    np.testing.assert_allclose(same, pairs[:, 2])
    np.testing.assert_allclose(other, pairs[:, :2].mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_end_points(kind):
    a = R.normal(size=(2, 3, 4, 4))
    same, other = likeness(unit_maps(a, kind), unit_maps(5 * a, kind))
    np.testing.assert_allclose(same, 1)
    assert (other < 0.9).all()
    same, _ = likeness(unit_maps(a, kind), unit_maps(-a, kind))
    np.testing.assert_allclose(same, -1)
    _, other = likeness(*[unit_maps(a[:1], kind)] * 2)
    assert np.isnan(other).all()


def test_maps_without_a_direction_and_failed_members_have_no_likeness():
    a = R.normal(size=(3, 2, 3, 3))
    a[0, 0], a[2, 1] = 4.0, np.nan
    same, other = likeness(*[unit_maps(a, "rank_correlation")] * 2)
    assert np.isnan(same[0, 0]) and np.isnan(other[0, 0]) and np.isnan(same[2, 1])
    assert np.isfinite(other[:2, 1]).all() and np.isfinite(same[1]).all()


def test_a_seed_without_one_of_its_two_maps_is_in_no_pair():
    a, b = (unit_maps(R.normal(size=(3, 2, 4, 4)), "cosine") for _ in range(2))
    b[0, 1] = np.nan
    _, other = likeness(a, b)
    pair = np.mean([a[1, 1] @ b[2, 1], a[2, 1] @ b[1, 1]])
    np.testing.assert_allclose(other[:, 1], [np.nan, pair, pair])
    assert np.isfinite(other[:, 0]).all()


def test_means_of_what_is_finite():
    got = finite_mean(np.array([[1.0, np.nan, 3], [np.nan] * 3]), axis=1)
    np.testing.assert_array_equal(got, [2, np.nan])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="kind is 'l2'; allowed: cosine, rank"):
        unit_maps(np.ones((1, 1, 2, 2)), "l2")
    with pytest.raises(ValueError, match=r"\[M, N, P\]"):
        likeness(np.ones((2, 3, 4)), np.ones((1, 3, 4)))
