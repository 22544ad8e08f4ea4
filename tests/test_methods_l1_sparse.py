import functools

import jax
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
from toy import LinearModel, layout, members, recipe, resident, settings, tree_close

from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS

KEY = jax.random.key(0)
METHOD = METHODS["l1_sparse"]
TASKS = {"regression": {}, "classification": dict(space=CLASSES_SPACE, model=CLASSIFIER,
                                                  loss=CLASSIFIER_LOSS)}
PLAIN = settings(momentum=0.0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("epoch, share", [(0, 1.0), (1, 0.75), (3, 0.25)])
def test_a_step_shrinks_every_weight_by_what_is_left_of_the_penalty(task, epoch, share):
    setting = linear_setting("l1_sparse", options=dict(alpha=0.3), optimizer_settings=PLAIN,
                             **TASKS[task])
    state = linear_state(setting.model)
    batch = linear_batch([False] * 6, [1, 1, 1, 1, 0, 0], epoch, task == "classification", epochs=4)
    after, loss = jax.jit(METHOD.make_step(setting))(KEY, state, batch, 0.1)
    slopes, mean = linear_gradients(state.variables, batch)
    np.testing.assert_allclose(loss, mean, rtol=1e-4)  # without the penalty
    for name, slope in slopes.items():
        before = np.asarray(state.variables["params"][name])
        expected = before - 0.1 * (slope + 0.3 * share * np.sign(before))
        np.testing.assert_allclose(after.variables["params"][name], expected, rtol=1e-4, atol=1e-6)


@functools.cache
def run(epochs):
    chosen, where = members((16,)), layout(count=1)
    step = METHOD.make_step(linear_setting("l1_sparse", options=dict(alpha=0.3),
                                           optimizer_settings=PLAIN))
    start = init_members(LinearModel(), where, [0])
    r = recipe(optimizer_settings=PLAIN, step=step, epochs=epochs, batch_size=16, keep="last",
               snapshots=(1, 2, epochs))
    trained = train_population(r, LinearModel(), where, resident(), chosen, start)
    return start, {e: s.variables["params"] for e, s in trained.snapshots.items()}


def test_the_engine_lets_the_penalty_fall_from_epoch_to_epoch():
    start, snapshots = run(3)
    params = {k: np.asarray(v[0], np.float64) for k, v in start["params"].items()}
    batch = linear_batch([False] * 16)
    for epoch in range(3):
        slopes, _ = linear_gradients({"params": params}, batch)
        params = {k: p - 0.05 * (slopes[k] + 0.3 * (1 - epoch / 3) * np.sign(p))
                  for k, p in params.items()}
    for name, expected in params.items():
        np.testing.assert_allclose(snapshots[3][name][0], expected, rtol=1e-4, atol=1e-6)


def test_a_longer_run_does_not_go_on_from_a_shorter_one():
    _, two = run(2)
    _, three = run(3)
    tree_close(two[1], three[1], rtol=1e-6)  # the first epoch has the whole penalty
    assert np.abs(two[2]["w"] - three[2]["w"]).max() > 1e-3
    assert METHOD.budgets_run_apart


def test_without_a_penalty_it_is_fine_tuning():
    args = (KEY, linear_state(), linear_batch([False] * 8, epochs=2), 0.1)
    plain = METHODS["ft"].make_step(linear_setting("ft"))(*args)
    other = METHOD.make_step(linear_setting("l1_sparse", options=dict(alpha=0.0)))(*args)
    tree_close(plain[0].variables, other[0].variables, rtol=1e-6)


@pytest.mark.parametrize("alpha", [-1e-3, float("inf"), float("nan")])
def test_alpha_is_not_negative(alpha):
    with pytest.raises(ConfigError, match="config.unlearn.l1_sparse.alpha is .*; allowed: at least "
                                          "0"):
        METHOD.check(linear_setting("l1_sparse", options=dict(alpha=alpha)))
