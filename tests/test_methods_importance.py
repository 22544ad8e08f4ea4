"""Importance against closed forms and loops of single samples."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from tiny_population import (
    LOSSES,
    MEMBERS,
    leaves,
    net,
    one,
    preparation,
    resident,
    shuffled,
)
from toy import LinearModel, layout, tree_close

from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.errors import InputError
from unlearn_jax.members import Pass
from unlearn_jax.methods.importance import (
    batch_importance,
    every_sample,
    forgotten,
    importance,
    retained,
    sample_batch_size,
)
from unlearn_jax.models import Model
from unlearn_jax.train import make_loss


def linear(chosen=None, where=None, batch_size=8, frozen=False):
    model = LinearModel(frozen=frozen)
    chosen = chosen or toy.members((17, 20, 9))
    where = where or layout()
    return Preparation("toy", model, where, toy.resident(), chosen,
                       init_members(model, where, [m.seed for m in chosen]),
                       make_loss("mse", 10.0), batch_size)


def by_hand(before, rows, m):
    """loss = ((x . w + b - y) / 10)^2: its gradient is 2 (x . w + b - y) / 100 times (x, 1)."""
    data = toy.resident()
    x = np.asarray(data.images)[rows].reshape(len(rows), -1).astype(np.float64) / 255
    params = one(before.variables["params"], m)
    residual = x @ params["w"] + params["b"] - np.asarray(data.labels)[rows]
    gradients = 2 * residual[:, None] / 100 * np.concatenate([x, np.ones((len(x), 1))], axis=1)
    squares = np.mean(gradients**2, axis=0)
    batch_mean = np.mean(gradients, axis=0) ** 2
    return {"w": squares[:-1], "b": squares[-1]}, batch_mean


@pytest.mark.parametrize("where", [{}, dict(per_device=1), dict(members=3), dict(batch=2)])
def test_it_is_the_mean_of_squared_gradients_of_a_linear_model(where):
    before = linear(where=layout(**where))
    whole, forget, retain = importance(before, "all", (every_sample, forgotten, retained))
    (alone,) = importance(before, "forget")
    for m, member in enumerate(before.members):
        union = np.union1d(member.retain, member.forget)
        for found, rows in ((whole, union), (forget, member.forget), (retain, member.retain),
                            (alone, member.forget)):
            expected, batch_mean = by_hand(before, rows, m)
            tree_close(one(found, m), expected, rtol=2e-5)
            # what public code takes for it
            assert np.abs(batch_mean[:-1] / expected["w"] - 1).max() > 0.05


def test_neither_order_nor_batch_size_matters():
    chosen = toy.members((17, 20, 9))
    plain = importance(linear(chosen), "all", (every_sample, forgotten))
    for before in (linear([shuffled(m) for m in chosen]), linear(chosen, batch_size=1),
                   linear(chosen, batch_size=3)):
        tree_close(importance(before, "all", (every_sample, forgotten)), plain, rtol=1e-5)


def test_frozen_weights_have_none_and_books_are_kept():
    before = linear(frozen=True)
    (found,) = importance(before, "retain")
    assert not found["w"].any() and (found["b"] > 0).all()
    np.testing.assert_array_equal(before.images, [len(m.retain) for m in before.members])
    assert (before.flops > 0).all()


def test_a_part_without_samples_is_zero_and_a_walk_without_any_is_refused():
    before = linear(toy.members((24, 24, 24)))
    whole, forget = importance(before, "all", (every_sample, forgotten))
    assert (whole["w"] > 0).any() and not forget["w"].any()
    with pytest.raises(InputError, match="seed 0 has no samples in 'forget'"):
        importance(before, "forget")


def mixed_batches(before, m, over, size):
    """The rows of each batch of a member, as the seed mixes them."""
    rng = np.random.default_rng([before.members[m].seed, zlib.crc32(b"toy/importance")])
    rows = rng.permutation(Pass(over).rows(before.members[m]))
    return [rows[i:i + size] for i in range(0, len(rows), size)]


@pytest.mark.parametrize("where", [{}, dict(per_device=1), dict(batch=2)])
@pytest.mark.parametrize("over", ["all", "forget"])
def test_of_batches_it_is_the_mean_of_squared_means(where, over):
    before = linear(where=layout(**where), batch_size=6)
    found = batch_importance(before, over)
    for m in range(3):
        batches = mixed_batches(before, m, over, 6)
        expected = np.mean([by_hand(before, own, m)[1] for own in batches], axis=0)
        tree_close(one(found, m), {"w": expected[:-1], "b": expected[-1]}, rtol=5e-5)


def test_of_batches_of_one_it_is_that_of_samples():
    before = linear(batch_size=1)
    (expected,) = importance(before, "forget")
    tree_close(batch_importance(before, "forget"), expected, rtol=1e-4)


def test_of_batches_frozen_weights_have_none_and_books_are_kept():
    before = linear(frozen=True)
    found = batch_importance(before, "retain")
    assert not found["w"].any() and (found["b"] > 0).all()
    np.testing.assert_array_equal(before.images, [len(m.retain) for m in before.members])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_convolutional_net_as_it_predicts_sample_by_sample(task):
    model, data = net(task), resident(task)
    before = preparation(model, task)
    (found,) = importance(before, "retain")

    @jax.jit
    def gradient(variables, image, label):
        def loss(params):
            outputs, _ = model.apply({**variables, "params": params}, image[None], train=False)
            return LOSSES[task].per_sample(outputs, label[None])[0] / LOSSES[task].unit

        return jax.grad(loss)(variables["params"])

    for m, member in enumerate(MEMBERS):
        variables = one(before.variables, m)
        singles = [gradient(variables, data.images[r], data.labels[r]) for r in member.retain]
        expected = leaves(jax.tree.map(lambda *g: np.mean(np.square(np.stack(g)), axis=0),
                                       *singles))
        for path, value in leaves(one(found, m)).items():
            np.testing.assert_allclose(value, expected[path], rtol=1e-3,
                                       atol=1e-5 * expected[path].max(), err_msg=path)


def test_samples_at_once_fit_the_batch_axis_and_the_batch():
    assert sample_batch_size(linear()) == 4
    assert sample_batch_size(linear(batch_size=2)) == 2
    assert sample_batch_size(linear(where=layout(batch=4))) == 4
    assert sample_batch_size(linear(where=layout(batch=3), batch_size=9)) == 3
    assert jnp.isfinite(importance(linear(where=layout(batch=4)), "all")[0]["w"]).all()


@pytest.mark.parametrize("found", [batch_importance, importance])
def test_the_gradients_of_a_second_walk_are_not_traced_again(monkeypatch, found):
    traced, before = [], preparation(net())
    apply = Model.apply
    monkeypatch.setattr(Model, "apply", lambda *args, **kwargs: traced.append(1) or apply(
        *args, **kwargs))
    found(before, "all")
    count = len(traced)
    found(before, "forget")
    assert len(traced) == count > 0
