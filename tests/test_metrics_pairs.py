"""Forgetting over pairs of seeds, with NumPy and with JAX."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unlearn_jax.metrics import pairs

ALPHAS = np.array([5.0, 15.0])
R = np.random.default_rng(0)


def test_forgetting_by_hand():
    found = pairs.forgetting(np.array([[1.0, 3.0]]), np.array([[1.0, 8.0]]), np.array([5.0]))
    np.testing.assert_allclose(found, [[(1 + np.exp(-1)) / 2]])


def test_the_value_of_a_seed_is_the_mean_over_its_pairs():
    reference, evaluated = R.gamma(2, 4, (2, 3, 9))
    of = lambda k, m: pairs.forgetting(reference[k:k + 1], evaluated[m:m + 1], ALPHAS)[:, 0]
    found = pairs.forgetting_across(reference, evaluated, ALPHAS, np.arange(3))
    np.testing.assert_allclose(found[:, 0], (of(1, 0) + of(2, 0) + of(0, 1) + of(0, 2)) / 4)


def test_a_start_elsewhere_leaves_out_no_pair():
    reference, evaluated = R.gamma(2, 4, (2, 3, 9))
    own = pairs.forgetting_across(reference, evaluated, ALPHAS, np.arange(3))
    elsewhere = pairs.forgetting_across(reference, evaluated, ALPHAS, np.full(3, -1))
    np.testing.assert_array_equal(elsewhere, own)


def test_a_failed_seed_has_no_value_and_two_seeds_without_one_have_none():
    reference, evaluated = R.gamma(2, 4, (2, 2, 9))
    evaluated[1, 0] = np.nan
    found = pairs.forgetting_across(reference, evaluated, ALPHAS, np.arange(2))
    assert np.isnan(found).all()


def test_one_seed_has_no_pairs():
    with pytest.raises(ValueError, match="two seeds, there is 1"):
        pairs.forgetting_across(np.ones((1, 3)), np.ones((1, 3)), ALPHAS, np.arange(1))


def test_it_loads_no_jax():
    code = "import sys, unlearn_jax.metrics.pairs; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], text=True,
                          capture_output=True, check=True)
    assert done.stdout.strip() == "False"
