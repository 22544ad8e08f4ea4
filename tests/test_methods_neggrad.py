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
from toy import settings

from unlearn_jax.methods import METHODS

KEY = jax.random.key(0)
TASKS = {"regression": {}, "classification": dict(space=CLASSES_SPACE, model=CLASSIFIER,
                                                  loss=CLASSIFIER_LOSS)}


def step(task, **changes):
    setting = linear_setting("neggrad", **TASKS[task], **changes)
    return jax.jit(METHODS["neggrad"].make_step(setting)), linear_state(setting.model)


@pytest.mark.parametrize("task", TASKS)
def test_a_step_is_ascent_on_the_mean_loss_without_padding(task):
    take, state = step(task)
    batch = linear_batch([True] * 6, [1, 1, 1, 1, 0, 0], classes=task == "classification")
    after, loss = take(KEY, state, batch, 0.1)
    slopes, mean = linear_gradients(state.variables, batch)
    np.testing.assert_allclose(loss, mean, rtol=1e-4)
    for name, slope in slopes.items():
        before = np.asarray(state.variables["params"][name])
        np.testing.assert_allclose(after.variables["params"][name], before + 0.1 * slope,
                                   rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_rises_step_by_step(task):
    take, state = step(task, optimizer_settings=settings(momentum=0.0))
    batch, losses = linear_batch([True] * 8, classes=task == "classification"), []
    for _ in range(5):
        state, loss = take(KEY, state, batch, 0.1)
        losses.append(float(loss))
    assert (np.diff(losses) > 0).all()


def test_weights_still_decay_towards_zero():
    decaying = settings(weight_decay=0.5)
    take, state = step("regression", optimizer_settings=decaying)
    batch = linear_batch([True] * 8)
    after, _ = take(KEY, state, batch, 0.1)
    w = np.asarray(state.variables["params"]["w"])
    slopes, _ = linear_gradients(state.variables, batch)
    np.testing.assert_allclose(after.variables["params"]["w"], w + 0.1 * (slopes["w"] - 0.5 * w),
                               rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("follow", [True, False])
def test_running_statistics_follow_the_forget_set_or_stay(follow):
    take, state = step("regression", options=dict(forget_statistics=follow))
    batch = linear_batch([True] * 8)
    after, _ = take(KEY, state, batch, 0.1)
    w, b = (np.asarray(state.variables["params"][k]) for k in ("w", "b"))
    mean = (np.asarray(batch.images).reshape(8, -1) / 255 @ w + b).mean()
    # the running mean keeps 9 parts in 10, of zero
    np.testing.assert_allclose(after.variables["batch_stats"]["mean"], 0.1 * mean * follow,
                               rtol=1e-5)


def test_it_walks_over_the_forget_set_alone():
    assert [p.over for p in METHODS["neggrad"].passes(linear_setting("neggrad"), 3)] == ["forget"]
