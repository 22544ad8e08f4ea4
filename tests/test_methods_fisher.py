"""The noise by hand, its statistics, and what it must leave alone."""

import dataclasses

import jax
import numpy as np
import pytest
import toy
from tiny_population import (
    MEMBERS,
    importances,
    known_importance,
    leaves,
    net,
    preparation,
    setting,
    shuffled,
)
from toy import LinearModel, layout, tree_close

from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, fisher
from unlearn_jax.methods.fisher import variances
from unlearn_jax.methods.importance import retained
from unlearn_jax.train import make_loss

TASKS = ["regression", "classification"]


def test_variances_by_hand():
    retain = {"output": {"bias": np.array([0.0, 0.02, 4.0])},
              "head_dense1": {"kernel": np.array([[0.0, 0.0005], [0.02, 4.0]])}}
    found = variances(retain, alpha=1e-6, cap=1e3, cap_last=1e2)
    np.testing.assert_allclose(found["head_dense1"]["kernel"], [[1e-3, 1e-3], [5e-5, 2.5e-7]],
                               rtol=1e-5)
    np.testing.assert_allclose(found["output"]["bias"], [1e-4, 5e-5, 2.5e-7], rtol=1e-5)
    # an inverse without a cap that is still finite
    assert variances({"a": np.zeros(1)}, 1.0, 1e9, 1.0)["a"] == pytest.approx(1e8, rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_noise_has_the_variance_of_each_weight(task, monkeypatch):
    model, chosen = net(task), tuple(dataclasses.replace(MEMBERS[0], seed=s) for s in range(20))
    retain = jax.tree.map(lambda x: np.stack([x[0]] * 20), importances(task)[retained])
    monkeypatch.setattr(fisher, "importance", lambda before, over: (retain,))
    before = preparation(model, task, chosen)
    prepared = fisher.prepare(setting("fisher", task, model), before)
    start, after = leaves(before.variables), leaves(prepared.variables)
    variance = leaves({"params": variances(retain, 1e-6, 1e3, 1e2)})
    assert {path for path in start if (start[path] != after[path]).any()} == set(variance)
    assert np.unique(np.concatenate([v.ravel() for v in variance.values()])).size > 20
    scores = np.concatenate([((after[path] - start[path]) / np.sqrt(variance[path])).ravel()
                             for path in variance])
    count = len(scores)
    assert count > 2000
    # standard normal: mean within 4 standard errors, variance within 5 (each sqrt(2 / n))
    assert abs(scores.mean()) < 4 / np.sqrt(count)
    assert abs(scores.var() - 1) < 5 * np.sqrt(2 / count)
    assert np.abs(scores).max() < 6
    assert all(mask.all() for mask in prepared.touched.values())


def test_a_random_forget_set_zeroes_no_class(monkeypatch):
    """Public code takes the forgotten class -1 of a random set for the last row of the head."""
    monkeypatch.setattr(fisher, "importance", known_importance("classification"))
    model = net("classification")
    random = tuple(dataclasses.replace(m, forget_set="random-0.3") for m in MEMBERS)
    before = preparation(model, "classification", random)
    prepared = fisher.prepare(setting("fisher", "classification", model, alpha=1e-9), before)
    for part in ("kernel", "bias"):
        start, after = (np.asarray(v["params"]["output"][part])
                        for v in (before.variables, prepared.variables))
        assert (np.abs(start[..., -1]) > 1e-2).any()
        # five standard deviations of at most sqrt(1e-9 * 1e2)
        np.testing.assert_allclose(after, start, atol=5 * np.sqrt(1e-7))


def test_frozen_weights_and_no_noise_change_nothing(monkeypatch):
    frozen = (r"stage1_block1/(conv|norm)1",)
    monkeypatch.setattr(fisher, "importance", known_importance("regression"))
    model = net(frozen=frozen)
    before = preparation(model)
    prepared = fisher.prepare(setting("fisher", model=model), before)
    start, after = leaves(before.variables), leaves(prepared.variables)
    same = {path for path in start if (start[path] == after[path]).all()}
    assert {p for p in same if p.startswith("params")} == {
        f"params/stage1_block1/{p}" for p in ("conv1/kernel", "norm1/scale", "norm1/bias")}
    assert not prepared.touched["stage1_block1/conv1/kernel"].any()
    assert prepared.touched["stem_conv/kernel"].all()
    silent = fisher.prepare(setting("fisher", model=model, alpha=0.0), preparation(model))
    tree_close(silent.variables, before.variables, rtol=0)
    assert not any(mask.any() for mask in silent.touched.values())


def linear(chosen):
    model = LinearModel()
    where = layout(count=len(chosen))
    return Preparation("fisher", model, where, toy.resident(), chosen,
                       init_members(model, where, [m.seed for m in chosen]),
                       make_loss("mse", 10.0), 8)


def test_its_key_decides_and_not_the_order_of_the_data():
    chosen = toy.members((17, 20, 9))
    given = setting("fisher", model=LinearModel(), alpha=1e-4)
    before = linear(chosen)
    plain = fisher.prepare(given, before)
    np.testing.assert_array_equal(before.images, [17, 20, 9])
    tree_close(fisher.prepare(given, linear(chosen)).variables, plain.variables, rtol=0)
    other = fisher.prepare(given, linear([shuffled(m) for m in chosen]))
    tree_close(other.variables, plain.variables, rtol=1e-4, atol=1e-6)
    moved = np.asarray(plain.variables["params"]["w"]) - np.asarray(before.variables["params"]["w"])
    assert (moved[0] != moved[1]).all() and (np.abs(moved) > 1e-4).mean() > 0.5


def test_it_refuses_impossible_options():
    METHODS["fisher"].check(setting("fisher"))
    for key in ("alpha", "cap", "cap_last"):
        with pytest.raises(ConfigError, match=rf"unlearn.fisher.{key} is -1.0; allowed: at least"):
            METHODS["fisher"].check(setting("fisher", **{key: -1.0}))
