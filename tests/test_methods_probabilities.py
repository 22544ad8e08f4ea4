import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from toy_teachers import AGES, BOTH, make_batch, make_setting, outputs, variables

from unlearn_jax.errors import InputError
from unlearn_jax.methods.method import LabelSpace
from unlearn_jax.methods.probabilities import (
    check_bins,
    class_logits,
    divergence,
    soft_cross_entropy,
    teacher_logits,
)

YEARS = make_setting("scrub")
CLASSES = make_setting("scrub", "classification")
RNG = np.random.default_rng(0)
P, Q = RNG.normal(0, 3, (2, 6, 5)).astype(np.float32)


def with_spread(spread):
    c = YEARS.config.copy_and_resolve_references()
    with c.unlocked():
        c.spread = spread
    return dataclasses.replace(YEARS, config=c)


def years(*values):
    return jnp.array(values, jnp.float32)


@pytest.mark.parametrize("spread", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_regressions_probabilities_are_a_gaussian_over_the_label_range(spread, temperature):
    found = class_logits(years(20, 20.4, 37.5, 60, 71), with_spread(spread))
    density = np.stack([stats.norm.pdf(AGES, y, spread * temperature**0.5)
                        for y in (20, 20.4, 37.5, 60, 71)])
    np.testing.assert_allclose(jax.nn.softmax(found / temperature),
                               density / density.sum(1, keepdims=True), rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5 * np.abs(found).max())


def test_a_gaussian_by_hand():
    # labels 0, 1, 2 around 2 with a spread of 1: logits 0 - 4/2, 0 - 1/2, 0, less their mean
    setting = dataclasses.replace(with_spread(1.0), labels=LabelSpace(0, 2, 0, 2.0))
    np.testing.assert_allclose(class_logits(years(2), setting),
                               [[-2 + 2.5 / 3, -0.5 + 2.5 / 3, 2.5 / 3]], rtol=1e-6)


def test_a_classifiers_logits_are_its_outputs():
    z = jnp.ones((4, 3))
    assert class_logits(z, CLASSES) is z


@pytest.mark.parametrize("setting, shape", [(YEARS, (4, 1)), (CLASSES, (4,)), (CLASSES, (4, 5))])
def test_outputs_of_another_shape_are_refused(setting, shape):
    with pytest.raises(ValueError, match="outputs have shape"):
        class_logits(jnp.zeros(shape), setting)


def test_a_range_of_one_label_is_refused():
    narrow = dataclasses.replace(YEARS, labels=LabelSpace(0.1, 0.4, 0, 1.0))
    with pytest.raises(InputError, match="label_min=0.1 and label_max=0.4 hold no whole number"):
        check_bins(narrow)
    with pytest.raises(InputError, match="hold the whole number 3 alone"):
        check_bins(dataclasses.replace(YEARS, labels=LabelSpace(2.5, 3.5, 0, 1.0)))
    check_bins(YEARS)
    check_bins(dataclasses.replace(narrow, labels=LabelSpace(0, 0, 3, 1.0)))


def test_divergence_and_soft_cross_entropy_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4); at T = 2, q ~ (1, sqrt 3)
    p, q = jnp.zeros((1, 2)), jnp.log(jnp.array([[1.0, 3.0]]))
    np.testing.assert_allclose(divergence(p, q), [np.log(2) / 2 + np.log(2 / 3) / 2], rtol=1e-6)
    np.testing.assert_allclose(soft_cross_entropy(p, q), [-np.log(1 / 4 * 3 / 4) / 2], rtol=1e-6)
    share = 1 / (1 + 3**0.5)
    np.testing.assert_allclose(divergence(p, q, 2.0),
                               [-np.log(4 * share * (1 - share)) / 2], rtol=1e-5)
    np.testing.assert_array_equal(divergence(q, q, 2.0), [0])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 5.0])
def test_divergence_and_soft_cross_entropy_against_scipy(temperature):
    p, q = (special.softmax(z.astype(np.float64) / temperature, axis=1) for z in (P, Q))
    found = divergence(jnp.asarray(P), jnp.asarray(Q), temperature)
    crossed = soft_cross_entropy(jnp.asarray(P), jnp.asarray(Q), temperature)
    np.testing.assert_allclose(found, stats.entropy(p, q, axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(crossed - found, stats.entropy(p, axis=1), rtol=1e-4, atol=1e-5)
    assert found.shape == (6,) and (found > 0).all()


def test_zeros_stand_for_equal_probabilities():
    q = special.softmax(Q, axis=1)
    np.testing.assert_allclose(divergence(jnp.zeros_like(Q), jnp.asarray(Q)),
                               stats.entropy(np.full((6, 5), 0.2), q, axis=1), rtol=1e-4)


def test_shapes_that_do_not_fit_are_refused():
    for shapes in [((4, 3), (4, 2)), ((4,), (4,)), ((4, 1), (4, 3))]:
        with pytest.raises(ValueError, match=r"both are to be \[B, K\]"):
            divergence(*map(jnp.zeros, shapes))


@pytest.mark.parametrize("own", [20.0, 33.3, 60.0, 61.0])
def test_the_slope_of_a_regressions_divergence_is_that_of_two_means(own):
    def value(y):
        return divergence(class_logits(years(24.5), YEARS), class_logits(y, YEARS), 4.0)[0]

    def mean(y):
        weights = np.exp(-(AGES - y) ** 2 / (2 * 25 * 4.0))
        return (weights * AGES).sum() / weights.sum()

    np.testing.assert_allclose(jax.grad(value)(years(own)),
                               [(mean(own) - mean(24.5)) / (25 * 4.0)], rtol=1e-3)


@pytest.mark.parametrize("spread", [1e-3, 0.5, 5.0])
@pytest.mark.parametrize("target, own", [(20, 60), (60, 20), (20, 20), (60, 60), (20, 1e4),
                                         (-1e4, 1e4)])
def test_values_and_slopes_are_finite_at_the_ends_of_the_range_and_beyond(spread, target, own):
    setting = with_spread(spread)
    for measure in (divergence, soft_cross_entropy):
        value, slope = jax.value_and_grad(lambda y, m=measure: m(
            class_logits(years(target), setting), class_logits(y, setting))[0])(years(own))
        assert np.isfinite(value) and value >= 0
        assert np.abs(slope) <= 41 / spread**2


def test_logits_far_apart_stay_finite():
    p, q = jnp.array([[3e4, -3e4, 0.0]]), jnp.array([[-3e4, 3e4, 0.0]])
    value, slope = jax.value_and_grad(lambda z: divergence(p, z)[0])(q)
    np.testing.assert_allclose(value, 6e4)
    np.testing.assert_allclose(slope, [[-1, 1, 0]], atol=1e-6)


def test_the_middle_of_the_range_is_nearest_to_equal_probabilities():
    found = divergence(jnp.zeros((41, 41)), class_logits(jnp.asarray(AGES, jnp.float32), YEARS))
    assert int(np.argmin(found)) == 20
    np.testing.assert_allclose(found, found[::-1], rtol=1e-4)


@pytest.mark.parametrize("task", BOTH)
def test_a_teacher_predicts_with_its_running_statistics_and_learns_nothing(task):
    setting, batch = make_setting("scrub", task), make_batch(task)
    teacher = variables(setting, 3)
    np.testing.assert_allclose(
        teacher_logits(setting, teacher, batch.images),
        class_logits(jnp.asarray(outputs(setting, teacher, batch, False), jnp.float32), setting),
        rtol=1e-3, atol=1e-4)
    slopes = jax.grad(lambda v: teacher_logits(setting, v, batch.images).sum())(teacher)
    assert not any(np.any(x) for x in jax.tree.leaves(slopes))
