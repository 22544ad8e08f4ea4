import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_case import (
    CLASSES_SPACE,
    CLASSIFIER,
    CLASSIFIER_LOSS,
    flat,
    linear_batch,
    linear_gradients,
    linear_setting,
    linear_state,
    make_setting,
    walk,
)
from toy import LinearModel, layout, members, recipe, resident, settings, tree_close

from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.salun import most_salient
from unlearn_jax.train import make_loss

KEY = jax.random.key(0)
METHOD = METHODS["salun"]
SETTLED = settings(momentum=0.9, weight_decay=0.5)  # what would move an idle weight


def setting(share=0.5, exclude_true=False, **changes):
    return linear_setting("salun", options=dict(share=share, exclude_true=exclude_true),
                          optimizer_settings=SETTLED,
                          **dict(labels="uniform") | changes)


def test_the_largest_of_the_whole_network_are_chosen():
    gradients = {"a": jnp.array([[3.0, -9.0], [0.5, -4.0]]), "b": jnp.array([0.1, 0.2, -8.0])}
    free = {"a": True, "b": True}
    found = most_salient(gradients, free, 0.5)  # three of seven: 9, 8, 4
    np.testing.assert_array_equal(found["a"], [[False, True], [False, True]])
    np.testing.assert_array_equal(found["b"], [False, False, True])
    assert jax.tree.all(jax.tree.map(lambda m: m.all(), most_salient(gradients, free, 1.0)))
    few = most_salient(gradients, free, 0.01)
    assert sum(int(m.sum()) for m in few.values()) == 1 and few["a"][0, 1]


def test_frozen_weights_are_neither_chosen_nor_counted():
    gradients = {"a": jnp.array([9.0, 8.0, 7.0]), "b": jnp.array([1.0, 3.0, 2.0, 0.0])}
    found = most_salient(gradients, {"a": False, "b": True}, 0.5)
    np.testing.assert_array_equal(found["a"], [False] * 3)
    np.testing.assert_array_equal(found["b"], [False, True, True, False])


def test_of_equal_gradients_the_first_are_chosen():
    found = most_salient({"a": jnp.array([2.0, -2.0, 2.0, 2.0])}, {"a": True}, 0.5)
    np.testing.assert_array_equal(found["a"], [True, True, False, False])


def preparation(chosen, batch_size=8):
    where = layout(count=len(chosen))
    start = init_members(LinearModel(), where, [m.seed for m in chosen])
    return Preparation("salun", LinearModel(), where, resident(), chosen, start,
                       make_loss("mse", 10.0), batch_size)


def test_the_mask_ranks_summed_gradients_whatever_the_batches():
    chosen = members((17, 9))
    backward = [dataclasses.replace(m, forget=m.forget[::-1].copy()) for m in chosen]
    found = [METHOD.prepare(setting(), preparation(c, size)).context
             for c, size in ((chosen, 8), (backward, 5))]
    jax.tree.map(np.testing.assert_array_equal, *found)
    start, data = preparation(chosen).variables, resident()
    for m, own in enumerate(chosen):
        x = np.asarray(data.images[own.forget]).reshape(len(own.forget), -1) / 255.0
        error = x @ np.asarray(start["params"]["w"][m]) - np.asarray(data.labels[own.forget])
        slopes = np.append((2 * error).sum(), x.T @ (2 * error))  # b comes before w
        expected = np.abs(slopes) >= np.sort(np.abs(slopes))[-6]  # half of 13, rounded down
        mask = np.append(found[0]["b"][m], found[0]["w"][m])
        assert mask.sum() == 6
        np.testing.assert_array_equal(mask, expected)


def test_preparing_starts_from_the_original_and_tells_what_may_move():
    before = preparation(members((17, 9)))
    prepared = METHOD.prepare(setting(), before)
    tree_close(prepared.variables, before.variables, rtol=0)
    assert {k: v.shape for k, v in prepared.touched.items()} == {"w": (2, 12), "b": (2, 1)}
    np.testing.assert_array_equal(prepared.touched["w"], prepared.context["w"])
    np.testing.assert_array_equal(before.images, [7, 15])


def test_only_masked_weights_move_under_momentum_and_weight_decay():
    chosen = members((17, 9))
    before = preparation(chosen)
    prepared = METHOD.prepare(setting(), before)
    r = recipe(optimizer_settings=SETTLED, step=METHOD.make_step(setting()), keep="last",
               snapshots=(3,), passes=lambda epoch: METHOD.passes(None, epoch))
    after = train_population(r, LinearModel(), before.layout, before.resident, chosen,
                             before.variables, context_M=prepared.context).snapshots[3].variables
    moved = jax.tree.map(lambda a, b: np.asarray(a != b), after["params"],
                         before.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, moved, prepared.context)


def test_in_a_network_of_classes_only_masked_weights_move():
    walked = walk(make_setting("salun", "classification"), epochs=2)
    start, after = flat(walked.start["params"]), flat(walked.after["params"])
    mask = flat(walked.prepared.context)
    free = sum(x[0].size for path, x in start.items() if "stage1_block1/conv1" not in path
               and "stage1_block1/norm1" not in path)
    for m in range(2):
        assert sum(int(x[m].sum()) for x in mask.values()) == free // 2
    for path in start:
        assert not (after[path] != start[path])[~mask[path]].any(), path
    assert any((after[path] != start[path])[mask[path]].any() for path in start)


def test_with_all_weights_it_is_rnd():
    args = (KEY, linear_state(optimizer_settings=SETTLED), linear_batch([True, False] * 4), 0.1)
    everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), args[1].variables["params"])
    plain = METHODS["rnd"].make_step(linear_setting("rnd", optimizer_settings=SETTLED,
                                                    labels="uniform"))(*args)
    masked = METHOD.make_step(setting())(*args, everything)
    tree_close(plain[0].variables, masked[0].variables, rtol=1e-6)
    np.testing.assert_allclose(plain[1], masked[1], rtol=1e-6)


@pytest.mark.parametrize("exclude", [False, True])
def test_the_true_label_is_drawn_as_in_the_code_or_not_as_in_equation_5(exclude):
    """Two classes: another label than the true one leaves one, whatever the key."""
    space = dataclasses.replace(CLASSES_SPACE, num_classes=2)
    given = setting(space=space, model=CLASSIFIER, loss=CLASSIFIER_LOSS, exclude_true=exclude)
    state = linear_state(CLASSIFIER, optimizer_settings=SETTLED)
    everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), state.variables["params"])
    batch = linear_batch([True] * 8, classes=True)
    batch = dataclasses.replace(batch, labels=batch.labels % 2)
    step = jax.jit(METHOD.make_step(given))
    losses = {float(step(jax.random.key(k), state, batch, 0.1, everything)[1]) for k in range(6)}
    other = dataclasses.replace(batch, labels=1 - batch.labels)
    expected = linear_gradients(state.variables, other)[1]
    assert (len(losses) == 1) == exclude
    if exclude:
        np.testing.assert_allclose(losses.pop(), expected, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_the_share_selects_something(share):
    with pytest.raises(ConfigError, match="config.unlearn.salun.share is .*; allowed: above 0"):
        METHOD.check(setting(share))


def test_draws_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match="label_units is 'as_published'; salun allows 'years'"):
        METHOD.check(setting(label_units="as_published"))
    with pytest.raises(InputError, match="data.task='regression'"):
        METHOD.check(setting(space=CLASSES_SPACE, labels="offset"))
    METHOD.check(setting(space=CLASSES_SPACE))
    METHOD.check(setting(labels="offset"))
