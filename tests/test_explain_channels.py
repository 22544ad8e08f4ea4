import numpy as np
import pytest

from unlearn_jax.attribution.channels import match_channels, noise_floor, partner_means

R = np.random.default_rng(0)


def test_channels_in_another_order_are_found_again():
    a = R.normal(size=(50, 6))
    order = R.permutation(6)
    b = np.empty_like(a)
    b[:, order] = 3 * a + 1 + 0.1 * R.normal(size=a.shape)  # of any scale
    np.testing.assert_array_equal(match_channels(a, b), order)


def test_a_channel_that_does_not_vary_takes_what_is_left():
    a = R.normal(size=(50, 3))
    a[:, 1] = 0
    np.testing.assert_array_equal(match_channels(a, a[:, ::-1]), [2, 1, 0])


def test_partners_are_the_matched_channels_of_the_next_seed():
    first = R.normal(size=(40, 3)) + np.array([1.0, 5, 9])
    models = np.stack([first, first[:, [1, 2, 0]] + 2, first])
    sets = {"forget": slice(0, 10), "retain": slice(10, 40)}
    got = partner_means(models, sets)
    np.testing.assert_allclose(got["forget"][0], first[:10].mean(0) + 2)
    np.testing.assert_allclose(got["retain"][1], first[10:, [1, 2, 0]].mean(0))
    models[2, 0, 0] = np.nan
    got = partner_means(models, sets)["retain"]
    assert np.isfinite(got[0]).all() and np.isnan(got[1:]).all()
    assert np.isnan(partner_means(models[:1], sets)["forget"]).all()


def test_the_floor_is_a_quantile_of_the_differences():
    means = np.zeros((2, 101))
    partners = np.stack([np.arange(101.0), np.full(101, np.nan)])
    assert noise_floor(means, partners) == pytest.approx(95)
    assert np.isnan(noise_floor(means, np.full_like(means, np.nan)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\[N, C\]"):
        match_channels(np.ones((3, 2)), np.ones((3, 4)))
