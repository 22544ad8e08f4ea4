import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import LinearModel, crowded, layout, members, resident, settings, streamed, tree_close

from unlearn_jax.engine import memory
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Pass
from unlearn_jax.optim import make_optimizer
from unlearn_jax.train import make_loss, make_train_step

MODEL = LinearModel()
LOSS = make_loss("mse", 10.0)


def preparation(where=None, chosen=None, batch_size=8, data=resident):
    where, chosen = where or layout(), chosen or members()
    start = init_members(MODEL, where, [m.seed for m in chosen])
    return Preparation("toy", MODEL, where, data(), chosen, start, LOSS, batch_size)


def label_sums(batch):
    return {"labels": jnp.sum(batch.labels * batch.weights), "count": jnp.sum(batch.weights),
            "forget": jnp.sum(batch.forget * batch.weights)}


@pytest.mark.parametrize("where", [{}, dict(per_device=1), dict(members=3), dict(per_device=2)])
@pytest.mark.parametrize("data", [resident, streamed])
def test_totals_count_every_sample_of_each_member_once(where, data):
    labels = np.asarray(resident().labels)
    chosen = members((17, 23, 9))
    before = preparation(layout(**where), chosen, data=data)
    for over, rows in (("retain", [m.retain for m in chosen]),
                       ("forget", [m.forget for m in chosen]), ("all", [np.arange(24)] * 3)):
        found = before.total(over, label_sums)
        np.testing.assert_allclose(found["labels"], [labels[r].sum() for r in rows], rtol=1e-5)
        np.testing.assert_array_equal(found["count"], [len(r) for r in rows])
        flagged = [len(np.intersect1d(r, m.forget)) for r, m in zip(rows, chosen)]
        np.testing.assert_array_equal(found["forget"], flagged)
    np.testing.assert_array_equal(before.images, [17 + 7 + 24, 23 + 1 + 24, 9 + 15 + 24])


@pytest.mark.parametrize("where", [dict(per_device=1), dict(per_device=3), dict(members=3)])
def test_the_operations_of_a_total_are_those_of_the_members_own_batches(where):
    before = preparation(layout(**where), members((24, 17, 9)))
    before.total("retain", label_sums)
    assert before.flops[2] > 0
    np.testing.assert_allclose(before.flops / before.flops[2], [3 / 2, 3 / 2, 1])


def test_totals_see_each_members_own_trees():
    before = preparation()
    scale = np.array([1.0, 2.0, 3.0], np.float32)
    plain = before.total("retain", label_sums)["labels"]
    scaled = before.total("retain", lambda batch, s: label_sums(batch)["labels"] * s, scale)
    np.testing.assert_allclose(scaled, plain * scale, rtol=1e-6)


def test_what_does_not_fit_is_summed_in_smaller_groups(monkeypatch):
    expected = preparation().total("retain", label_sums)
    scaled = preparation().each(lambda v: v["params"]["w"] * 2, preparation().variables)
    where = dataclasses.replace(layout(), adapts=True)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda device: 1.0)  # as the compiler says
        fitted = preparation(where)
        sizes = crowded(patch, 3)
        tree_close(fitted.total("retain", label_sums), expected, rtol=0)
        assert set(sizes) == {1}
    with monkeypatch.context() as patch:
        before = preparation()
        sizes = crowded(patch, 2)  # as it turns out
        tree_close(before.total("retain", label_sums), expected, rtol=0)
        np.testing.assert_array_equal(
            before.each(lambda v, _: v["params"]["w"] * 2, before.variables, np.zeros(3)), scaled)
        assert set(sizes) == {2}
    np.testing.assert_array_equal(before.images, fitted.images)


def test_streamed_images_give_the_same_totals_and_trainings():
    pixels = lambda batch, v: jnp.sum(MODEL.apply(v, batch.images, train=False)[0] * batch.weights)
    found = []
    for data in (resident, streamed):
        before = preparation(data=data)
        moves = settings(learning_rate=0.1)
        step = make_train_step(MODEL, make_optimizer(moves), LOSS)
        found.append((before.total("retain", pixels, before.variables),
                      before.train("proxy", step, moves, before.variables, "retain", 2)))
    tree_close(*found, rtol=0)


def test_an_empty_set_is_named():
    with pytest.raises(ValueError, match="seed 0 has no samples in 'forget'"):
        preparation(chosen=members((24, 17, 9))).total("forget", label_sums)


@pytest.mark.parametrize("per_device", [1, 2, 3])
def test_each_maps_over_members(per_device):
    before = preparation(layout(per_device=per_device))
    doubled = before.each(lambda v: jax.tree.map(lambda x: 2 * x, v), before.variables)
    tree_close(doubled, jax.tree.map(lambda x: 2 * np.asarray(x), before.variables), rtol=0)


def test_fresh_weights_are_new_and_the_same_again():
    before = preparation()
    one, again, other = (before.initial(s)["params"]["w"] for s in ("a", "a", "b"))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and (one != before.variables["params"]["w"]).any()


def test_a_small_training_is_that_of_the_engine():
    before = preparation()
    moves = settings(learning_rate=0.1)
    optimizer = make_optimizer(moves)
    step = make_train_step(MODEL, optimizer, LOSS)
    found = before.train("proxy", step, moves, before.variables, "retain", 2)
    recipe = Recipe("toy/proxy", step, optimizer, moves, LOSS, 2, 8, 8, keep="last",
                    snapshots=(2,), passes=lambda epoch: (Pass("retain"),))
    expected = train_population(recipe, MODEL, layout(), resident(), members(), before.variables)
    tree_close(found, expected.snapshots[2].variables, rtol=1e-6)
    np.testing.assert_array_equal(before.images, [48, 34, 18])
    assert (before.flops > 0).all() and before.seconds > 0
