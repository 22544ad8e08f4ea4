import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_case import (
    CLASSES_SPACE,
    CLASSIFIER,
    CLASSIFIER_LOSS,
    linear_batch,
    linear_gradients,
    linear_setting,
    linear_state,
)
from toy import settings, tree_close

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS

KEY = jax.random.key(0)
METHOD = METHODS["neggrad_plus"]
TASKS = {"regression": {}, "classification": dict(space=CLASSES_SPACE, model=CLASSIFIER,
                                                  loss=CLASSIFIER_LOSS)}
HALVES = [False] * 4 + [True] * 4


def step(task="regression", **options):
    setting = linear_setting("neggrad_plus", options=options, **TASKS[task],
                             optimizer_settings=settings(momentum=0.0))
    return jax.jit(METHOD.make_step(setting)), linear_state(setting.model)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("alpha", [0.95, 0.6])
def test_a_step_weighs_the_two_means(task, alpha):
    take, state = step(task, alpha=alpha)
    # Two retained samples are padding: each set has a mean of its own.
    batch = linear_batch(HALVES, [1, 1, 0, 0, 1, 1, 1, 1], classes=task == "classification")
    after, loss = take(KEY, state, batch, 0.1)
    retain, mean = linear_gradients(state.variables, batch, slice(0, 4))
    forget, _ = linear_gradients(state.variables, batch, slice(4, 8))
    np.testing.assert_allclose(loss, mean, rtol=1e-4)
    for name in retain:
        before = np.asarray(state.variables["params"][name])
        expected = before - 0.1 * (alpha * retain[name] - (1 - alpha) * forget[name])
        np.testing.assert_allclose(after.variables["params"][name], expected, rtol=1e-4, atol=1e-6)


def test_at_alpha_one_it_is_fine_tuning_on_the_retained_half():
    take, state = step(alpha=1.0)
    batch = linear_batch(HALVES)
    fine_tuning = METHODS["ft"].make_step(linear_setting(
        "ft", optimizer_settings=settings(momentum=0.0)))
    half = jax.tree.map(lambda x: x[:4] if jnp.ndim(x) else x, batch)
    tree_close(take(KEY, state, batch, 0.1)[0].variables["params"],
               fine_tuning(KEY, state, half, 0.1)[0].variables["params"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("follow", [True, False])
def test_the_running_statistics_are_those_of_the_retained_then_of_the_forgotten(follow):
    take, state = step(forget_statistics=follow)
    batch = linear_batch(HALVES)
    after, _ = take(KEY, state, batch, 0.1)
    w, b = (np.asarray(state.variables["params"][k]) for k in ("w", "b"))
    means = (np.asarray(batch.images).reshape(8, -1) / 255 @ w + b).reshape(2, 4).mean(1)
    # the running mean keeps 9 parts in 10
    expected = 0.9 * 0.1 * means[0] + 0.1 * means[1] if follow else 0.1 * means[0]
    np.testing.assert_allclose(after.variables["batch_stats"]["mean"], expected, rtol=1e-5)


def test_the_order_within_a_half_does_not_matter():
    take, state = step()
    batch = linear_batch(HALVES)
    order = jnp.array([2, 0, 3, 1, 7, 6, 4, 5])
    shuffled = dataclasses.replace(batch, images=batch.images[order], labels=batch.labels[order],
                                   rows=batch.rows[order])
    tree_close(take(KEY, state, batch, 0.1)[0].variables,
               take(KEY, state, shuffled, 0.1)[0].variables, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ConfigError, match="config.unlearn.neggrad_plus.alpha is .*; allowed: "
                                          "from 0 to 1"):
        METHOD.check(linear_setting("neggrad_plus", options=dict(alpha=alpha)))
