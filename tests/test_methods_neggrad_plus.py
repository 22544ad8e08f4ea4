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
    make_setting,
    walk,
)
from tiny_population import batch, leaves, net, one, resident, setting, variables
from toy import settings, tree_close

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS
from unlearn_jax.train import init_state

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


def test_as_predicting_the_running_statistics_normalise_and_stay():
    model = net()
    given = dict(model=model, as_predicting=True)
    setting_ = setting("neggrad_plus", **given)
    start = one(variables(model))
    state = init_state(model, setting_.optimizer, start)
    flags = [False] * 4 + [True] * 4
    forward = batch(resident(), np.array(flags), count=8)
    after, loss = jax.jit(METHOD.make_step(setting_))(KEY, state, forward, 0.1)
    tree_close(after.variables["batch_stats"], start["batch_stats"], rtol=0)
    outputs, _ = model.apply(start, forward.images, train=False)
    np.testing.assert_allclose(loss, setting_.loss.per_sample(outputs, forward.labels)[:4].mean(),
                               rtol=1e-5)
    plain, other = jax.jit(METHOD.make_step(setting("neggrad_plus", model=model)))(
        KEY, state, forward, 0.1)
    assert abs(float(loss - other)) > 1e-3
    assert np.abs(leaves(plain.variables["batch_stats"])["stem_norm/mean"]
                  - start["batch_stats"]["stem_norm"]["mean"]).max() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_the_pull_is_half_the_squared_distance_to_m_o(task):
    take, state = step(task, alpha=0.6, pull=0.5)
    free, _ = step(task, alpha=0.6)
    forward = linear_batch(HALVES, classes=task == "classification")
    start = jax.tree.map(lambda p: p + 0.25 * jnp.arange(p.size).reshape(p.shape),
                         state.variables["params"])
    pulled = take(KEY, state, forward, 0.1, start)[0].variables["params"]
    plain = free(KEY, state, forward, 0.1)[0].variables["params"]
    for name in start:
        away = np.asarray(state.variables["params"][name] - start[name])
        np.testing.assert_allclose(pulled[name] - plain[name], -0.1 * 0.6 * 0.5 * away, rtol=1e-3,
                                   atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_a_method_walks_with_all_that_the_notebook_does(task):
    options = dict(alpha=0.9, as_predicting=True, pull=0.1)
    walked = walk(make_setting("neggrad_plus", task, options=options), epochs=2)
    tree_close(walked.prepared.context, walked.start["params"], rtol=0)
    tree_close(walked.after["batch_stats"], walked.start["batch_stats"], rtol=0)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), walked.after["params"],
                                         walked.start["params"]))
    assert any(moved) and not all(moved)  # what is frozen stays
    without = walk(make_setting("neggrad_plus", task), epochs=0)
    assert without.prepared.context is None


def test_a_pull_does_not_push():
    with pytest.raises(ConfigError, match="neggrad_plus.pull is -1.0; allowed: at least 0"):
        METHOD.check(linear_setting("neggrad_plus", options=dict(pull=-1.0)))


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
