"""The loss against NumPy, and the proxy: what it has seen, and that it never moves."""


import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_population import (
    LOSSES,
    MEMBERS,
    SCALE,
    batch,
    leaves,
    net,
    one,
    preparation,
    resident,
    setting,
    variables,
)
from toy import layout, settings, tree_close

from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.blindspot import attention, attention_distance, make_step, prepare
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.train import init_state, make_train_step

TASKS = ["regression", "classification"]


def test_attention_by_hand():
    # two pixels with three channels: sums of squares 9 and 12, of length 15
    x = np.array([[[[1, 2, 2], [2, 2, 2]]], [[[0, 0, 0], [0, 0, 0]]]], np.float32)
    np.testing.assert_allclose(attention(x), [[0.6, 0.8], [0, 0]], atol=1e-6)
    y = np.array([[[[0, 1, 0], [0, 0, 0]]], [[[0, 1, 0], [0, 0, 0]]]], np.float32)  # (1, 0) twice
    mine, theirs = ({"stage1_block1": a, "stage2_block1": a} for a in (x, y))
    # differences (-0.4, 0.8) and (-1, 0), in two blocks
    squares = attention_distance(mine, theirs, "squares")
    np.testing.assert_allclose(squares, [2 * 0.4, 2 * 0.5], rtol=1e-5)
    np.testing.assert_allclose(attention_distance(mine, theirs, "l2"), [2 * np.sqrt(0.8), 2],
                               rtol=1e-5)


@pytest.mark.parametrize("distance", ["squares", "l2"])
def test_equal_or_dead_maps_have_a_finite_gradient(distance):
    x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0, 0].set(1.0)
    for mine, theirs in ((x, x), (jnp.zeros_like(x), x)):
        gradient = jax.grad(lambda a, b=theirs: attention_distance(
            {"stage1_block1": a}, {"stage1_block1": b}, distance).sum())(mine)
        assert np.isfinite(gradient).all()


def by_hand(model, task, student, proxy, data, forget, count, distance, weight):
    """The mean over `count` samples, in NumPy on what the networks put out."""
    key = jax.random.key(0)
    outputs, _, mine = model.features(student, data.images[:6], train=True, key=key)
    aims, _, theirs = model.features(proxy, data.images[:6], train=False)
    outputs, aims = np.asarray(outputs, np.float64), np.asarray(aims, np.float64)
    labels = np.asarray(data.labels[:6])

    def attend(x):
        a = np.square(np.asarray(x, np.float64)).sum(-1).reshape(6, -1)
        return a / np.linalg.norm(a, axis=1, keepdims=True)

    difference = attend(mine["stage1_block1"]) - attend(theirs["stage1_block1"])
    apart = {"squares": np.square(difference).mean(1),
             "l2": np.linalg.norm(difference, axis=1)}[distance]
    if task == "regression":
        near, right = np.abs(outputs - aims), np.abs(outputs - labels)
    else:
        p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (outputs, aims))
        near, right = np.abs(p - q).sum(1), -np.log(p[np.arange(6), labels])
    return np.where(forget, near + weight * apart, right)[:count].mean()


@pytest.mark.parametrize("task, distance", [("regression", "squares"), ("classification", "l2")])
def test_the_loss_by_hand(task, distance):
    model, data = net(task), resident(task)
    student, proxy = (one(variables(model), m) for m in (0, 1))
    given = setting("blindspot", task, model, settings(momentum=0.0), attention=20.0,
                    distance=distance)
    step = jax.jit(make_step(given))
    state = init_state(model, given.optimizer, student)
    for forget in ([True, False, True, True, False, False], [True] * 6, [False] * 6):
        for padding in (0, 2):
            after, value = step(jax.random.key(0), state, batch(data, forget, 6, padding), 1e-3,
                                proxy)
            expected = by_hand(model, task, student, proxy, data, forget, 6 - padding, distance,
                               20.0)
            np.testing.assert_allclose(value, expected, rtol=1e-4)
    # What is minimised is the value over the output scale: a step of plain SGD, `rate` times its
    # gradient, lowers the value by rate * scale * |gradient|^2.
    rate, scale = 1e-3, SCALE if task == "regression" else 1.0
    moved, start = leaves(after.variables["params"]), leaves(student["params"])
    squares = sum(np.sum(np.square((moved[path] - x) / rate)) for path, x in start.items())
    state = init_state(model, given.optimizer, {**student, "params": after.variables["params"]})
    _, lower = step(jax.random.key(0), state, batch(data, [False] * 6, 6, 2), 0.0, proxy)
    np.testing.assert_allclose(expected - lower, rate * scale * squares, rtol=0.05)


def test_the_proxy_starts_afresh_and_sees_the_retain_set_alone():
    model, member, data = net(), MEMBERS[0], resident()
    rows = np.asarray(member.forget)
    blind = dataclasses.replace(data, images=data.images.at[rows].set(0),
                                labels=data.labels.at[rows].set(60.0))
    before = preparation(model, members=(member,), data=blind)
    prepared = prepare(setting("blindspot", model=model), before)
    tree_close(prepared.variables, variables(model, (member,)), rtol=0)
    np.testing.assert_array_equal(before.images, [2 * len(member.retain)])
    # whatever D_f shows, it is the plain training on D_r
    fresh = jax.vmap(model.init)(before.keys("proxy"))
    adam = OptimizerSettings("adam", 0.01, "constant", 0.0, 0.0, 0.0)
    step = make_train_step(model, make_optimizer(adam), LOSSES["regression"])
    recipe = Recipe("tiny/proxy", step, make_optimizer(adam), adam, LOSSES["regression"], 2, 8, 8,
                    keep="last", snapshots=(2,), passes=lambda epoch: (Pass("retain"),))
    expected = train_population(recipe, model, layout(count=1, per_device=1), data, [member], fresh)
    tree_close(prepared.context, expected.snapshots[2].variables, rtol=1e-4, atol=1e-5)
    assert (leaves(prepared.context)["params/output/kernel"]
            != leaves(fresh)["params/output/kernel"]).all()


def test_frozen_layers_of_the_proxy_are_those_of_the_original():
    model = net(frozen=(r"stage1_block1/(conv|norm)1", "stem_conv"))
    before = preparation(model, members=MEMBERS[:1])
    prepared = prepare(setting("blindspot", model=model), before)
    start, proxy = leaves(before.variables), leaves(prepared.context)
    same = {path for path in start if (start[path] == proxy[path]).all()}
    assert same == {"params/stem_conv/kernel", "params/stage1_block1/conv1/kernel",
                    *(f"params/stage1_block1/norm1/{part}" for part in ("scale", "bias")),
                    *(f"batch_stats/stage1_block1/norm1/{part}" for part in ("mean", "var"))}


@pytest.mark.parametrize("task", TASKS)
def test_an_epoch_moves_towards_the_proxy_which_stays(task):
    model = net(task)
    given = setting("blindspot", task, model, settings(learning_rate=0.1), attention=0.0)
    member = dataclasses.replace(MEMBERS[0], retain=MEMBERS[0].retain[:4])
    first = variables(model)
    context = jax.tree.map(lambda x: np.asarray(x)[::-1].copy(), first)
    context["params"]["output"]["bias"][..., 0] += 3.0
    kept = jax.tree.map(np.copy, context)
    recipe = Recipe("blindspot", make_step(given), given.optimizer, settings(learning_rate=0.1),
                    given.loss, 9, 8, 8, keep="last", snapshots=(0, 9),
                    passes=lambda epoch: METHODS["blindspot"].passes(given, epoch))
    trained = train_population(recipe, model, layout(count=2, per_device=1), resident(task),
                               [member, MEMBERS[1]], first, context_M=context)
    tree_close(trained.snapshots[0].variables, first, rtol=0)
    tree_close(context, kept, rtol=0)
    rows = np.asarray(member.forget)

    def gap(variables_M):
        mine, aims = (np.asarray(model.apply(one(v), resident(task).images[rows], train=False)[0])
                      for v in (variables_M, context))
        if task == "classification":
            mine, aims = np.asarray(jax.nn.softmax(mine)), np.asarray(jax.nn.softmax(aims))
        return np.abs(mine - aims).mean()

    assert gap(trained.snapshots[9].variables) < 0.8 * gap(first)
    assert trained.snapshots[9].images[0] == 9 * (4 + len(rows))


def test_impossible_options_are_refused():
    check = METHODS["blindspot"].check
    check(setting("blindspot"))
    for key, value, allowed in (("attention", -1.0, "at least 0"), ("proxy_epochs", 0, "at least"),
                                ("proxy_learning_rate", -0.1, "at least 0"),
                                ("distance", "l1", "one of 'squares', 'l2'")):
        with pytest.raises(ConfigError, match=rf"blindspot.{key} is .*; allowed: {allowed}"):
            check(setting("blindspot", **{key: value}))


def test_published_values_are_those_of_the_notebook():
    published = METHODS["blindspot"].published
    assert (published["batch_size"], published["weight_decay"]) == (256, 0.0)
