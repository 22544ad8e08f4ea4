import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import settings

from unlearn_jax.config import default_config
from unlearn_jax.optim import (
    LARGEST_RATE,
    Bounded,
    Decaying,
    OptimizerSettings,
    decisive,
    make_optimizer,
    per_kind,
    rate_at,
)


@pytest.mark.parametrize("schedule, fractions, expected", [
    ("constant", [0.0, 0.5, 1.0], [1, 1, 1]),
    ("cosine", [0.0, 0.5, 1.0], [1, 0.5, 0]),
    # rises over the first quarter: half-way up is the mean of 0.04 and 1
    ("onecycle", [0.0, 0.125, 0.25, 0.625, 1.0], [0.04, 0.52, 1, 0.50005, 1e-4]),
])
def test_schedules(schedule, fractions, expected):
    rates = jax.jit(lambda f: rate_at(settings(schedule=schedule), f))(jnp.array(fractions))
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_onecycle_is_that_of_optax_with_another_end():
    steps = 1000
    ours = rate_at(settings(schedule="onecycle"), jnp.arange(steps + 1) / steps)

    def of_optax(**keys):
        schedule = optax.cosine_onecycle_schedule(steps, 1.0, 0.25, **keys)
        return jax.vmap(schedule)(jnp.arange(steps + 1))

    np.testing.assert_allclose(ours, of_optax(final_div_factor=400), atol=2e-6)
    # The stated deviation: by default theirs ends at 4e-6, and nowhere is it further off than 1e-4.
    np.testing.assert_allclose(of_optax()[-1], 4e-6, rtol=1e-3)
    np.testing.assert_allclose(ours, of_optax(), atol=1e-4)
    np.testing.assert_allclose(ours[-1], 1e-4, rtol=1e-3)


def test_adam_moves_by_the_sign_first():
    optimizer = make_optimizer(settings(name="adam"))
    params = jnp.array([1.0, -2.0])
    updates, _ = optimizer.update(jnp.array([0.5, -3.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [1, -1], atol=1e-5)


def test_sgd_decays_weights_through_its_momentum():
    optimizer = make_optimizer(settings(momentum=0.5, weight_decay=0.1))
    params, gradient = jnp.array([10.0]), jnp.array([2.0])
    state = optimizer.init(params)
    first, state = optimizer.update(gradient, state, params)
    second, _ = optimizer.update(gradient, state, params)
    np.testing.assert_allclose(first, [2 + 1])
    np.testing.assert_allclose(second, [(2 + 1) + 0.5 * (2 + 1)])


def test_adam_decays_weights_beside_its_moments():
    optimizer = make_optimizer(settings(name="adam", weight_decay=0.1))
    params = jnp.array([10.0])
    updates, _ = optimizer.update(jnp.array([-3.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-1 + 0.1 * 10], atol=1e-5)


def test_from_config_reads_its_own_section():
    c = default_config()
    assert OptimizerSettings.from_config(c.train).learning_rate == c.train.learning_rate
    assert OptimizerSettings.from_config(c.unlearn).schedule == c.unlearn.schedule


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_what_decisive_values_allow_stays_finite(name, decay):
    optimizer = make_optimizer(settings(name=name, weight_decay=decay, momentum=0.9))
    assert type(optimizer) is type(per_kind(optimizer, 2)) is (Decaying if decay else Bounded)
    for size, allowed in ((1.8e19, True), (1.9e19, False), (np.nan, False), (-np.inf, False)):
        params, state = jnp.array([-3.0, 1e19]), optimizer.init(jnp.zeros(2))
        gradients = jnp.full(2, size, jnp.float32)
        assert finite(decisive(optimizer, gradients, params)) is allowed, size
        # As long as the values are allowed, any step is.
        for _ in range(50):
            if not finite(decisive(optimizer, gradients, params)):
                break
            updates, state = optimizer.update(gradients, state, params)
            params -= LARGEST_RATE * updates
            assert finite((params, state))
    # weights that decay makes grow are looked at themselves
    grown = decisive(optimizer, jnp.zeros(2), jnp.array([1.0, 1e20]))
    assert finite(grown) is not bool(decay)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_each_kind_has_an_optimiser_of_its_own(name):
    """Gradients in turns move the parameters as two separate optimisers would."""
    plain = make_optimizer(settings(name=name, weight_decay=0.1))
    both = per_kind(plain, 2)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    grads = [jax.tree.map(lambda p, s=s: s * jnp.sin(p + s), params) for s in (0.3, -2.0, 1.0, 5.0)]
    state, apart = both.init(params), [plain.init(params)] * 2
    update = jax.jit(both.update)
    for kind, g in zip((0, 1, 1, 0), grads):
        moved, state = update(g, state, params, kind=jnp.int32(kind))
        expected, apart[kind] = plain.update(g, apart[kind], params)
        for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(expected)):
            np.testing.assert_allclose(x, y, rtol=1e-6)
