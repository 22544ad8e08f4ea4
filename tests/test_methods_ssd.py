"""Dampening by hand, and on populations."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from absl import logging
from tiny_population import (
    importances,
    known_importance,
    leaves,
    net,
    one,
    preparation,
    setting,
    shuffled,
)
from toy import LinearModel, layout, tree_close

from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, ssd
from unlearn_jax.methods.importance import batch_importance as importance_of
from unlearn_jax.methods.importance import every_sample, forgotten
from unlearn_jax.methods.ssd import dampened
from unlearn_jax.train import make_loss

FROZEN = (r"stem_norm/scale", r"^output")


def test_dampening_by_hand():
    params = {"a": np.array([1.0, -2.0, 3.0, 4.0, 5.0, 6.0]), "b": np.array([7.0])}
    whole = {"a": np.array([1.0, 1.0, 1.0, 0.0, 0.0, 2.0]), "b": np.array([1.0])}
    forget = {"a": np.array([2.0, 2.1, 8.0, 0.0, 1.0, 5.0]), "b": np.array([100.0])}
    # selected where I_f > 2 I_D; 1.5 I_D / I_f: 1.5 / 2.1, 1.5 / 8, 0 and 3 / 5
    found, selected = dampened(params, whole, forget, 2.0, 1.5, {"a": True, "b": False})
    np.testing.assert_allclose(found["a"], [1, -2 * 1.5 / 2.1, 3 * 1.5 / 8, 4, 0, 3.6], rtol=1e-6)
    np.testing.assert_array_equal(selected["a"], [False, True, True, False, True, True])
    assert found["b"] == 7 and not selected["b"].any()
    # no factor is above 1
    found, _ = dampened(params, whole, forget, 2.0, 4.0, {"a": True, "b": True})
    np.testing.assert_allclose(found["a"], [1, -2, 1.5, 4, 0, 6], rtol=1e-6)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_population_against_its_importances(task, monkeypatch):
    monkeypatch.setattr(ssd, "importance", known_importance(task, FROZEN))
    model = net(task, frozen=FROZEN)
    before = preparation(model, task)
    prepared = ssd.prepare(setting("ssd", task, model, alpha=1.1, dampening=0.8), before)
    found = importances(task, FROZEN)
    whole, forget = (leaves({"params": found[part]}) for part in (every_sample, forgotten))
    start, after = leaves(before.variables), leaves(prepared.variables)
    assert prepared.context is None
    assert set(prepared.touched) == {path.removeprefix("params/") for path in whole}
    kinds = set()
    for path, theta in start.items():
        if path not in whole or path in ("params/stem_norm/scale", "params/output/kernel",
                                         "params/output/bias"):
            np.testing.assert_array_equal(after[path], theta, path)
            continue
        chosen = forget[path] > 1.1 * whole[path]
        factor = np.minimum(0.8 * whole[path] / np.where(chosen, forget[path], 1), 1)
        np.testing.assert_allclose(after[path], np.where(chosen, theta * factor, theta), rtol=1e-5)
        np.testing.assert_array_equal(after[path][~chosen], theta[~chosen])
        np.testing.assert_array_equal(prepared.touched[path.removeprefix("params/")],
                                      chosen.reshape(2, -1), path)
        kinds |= {path.rpartition("/")[2]} if chosen.any() else set()
    assert kinds == {"kernel", "scale", "bias"}
    assert not prepared.touched["output/kernel"].any()


def test_biases_norms_and_the_head_are_dampened_too(monkeypatch):
    monkeypatch.setattr(ssd, "importance", known_importance("regression"))
    model = net()
    prepared = ssd.prepare(setting("ssd", model=model, alpha=0.0), preparation(model))
    assert set(prepared.touched) == {
        "stem_conv/kernel", "stem_norm/scale", "stem_norm/bias", "output/kernel", "output/bias",
        *(f"stage1_block1/{layer}" for i in (1, 2) for layer in (
            f"conv{i}/kernel", f"norm{i}/scale", f"norm{i}/bias"))}
    assert all(mask.any() for mask in prepared.touched.values())


def linear(chosen, batch_size=8):
    model = LinearModel()
    where = layout(count=len(chosen))
    return Preparation("ssd", model, where, toy.resident(), chosen,
                       init_members(model, where, [m.seed for m in chosen]),
                       make_loss("mse", 10.0), batch_size)


def test_a_linear_model_from_its_data_whatever_the_order_and_the_batch_size():
    chosen = toy.members((17, 20, 9))
    given = setting("ssd", model=LinearModel(), alpha=1.01)
    before = linear(chosen)
    plain = ssd.prepare(given, before)
    np.testing.assert_array_equal(before.images, [24, 24, 24])
    data = toy.resident()
    x = np.concatenate([np.asarray(data.images).reshape(40, -1) / 255, np.ones((40, 1))], axis=1)
    for m, member in enumerate(chosen):
        start, found = (one(v["params"], m) for v in (before.variables, plain.variables))
        theta = np.append(start["w"], start["b"])
        squares = (2 * (x @ theta - np.asarray(data.labels)) / 100)[:, None]**2 * x**2
        whole, forget = squares[:24].mean(0), squares[member.forget].mean(0)
        chosen_weights = forget > 1.01 * whole
        expected = theta * np.where(chosen_weights, np.minimum(whole / forget, 1), 1)
        np.testing.assert_allclose(np.append(found["w"], found["b"]), expected, rtol=1e-4)
        np.testing.assert_array_equal(plain.touched["w"][m], chosen_weights[:-1])
        assert 0 < chosen_weights.sum() < 13
    for other in (linear([shuffled(m) for m in chosen]), linear(chosen, batch_size=1)):
        tree_close(ssd.prepare(given, other).variables, plain.variables, rtol=1e-5)


def test_a_threshold_that_nothing_can_pass_is_said_and_changes_nothing(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    before = linear(toy.members((17, 20)))
    # Seed 0 forgets 7 of 24 samples: I_f is at most 3.43 I_D. Seed 1 forgets 4: 6 I_D.
    prepared = ssd.prepare(setting("ssd", model=LinearModel(), alpha=3.5), before)
    assert len(said) == 1 and "seed 0: alpha=3.5 selects no weight" in said[0]
    assert "29 %" in said[0] and "3.43" in said[0]
    tree_close(one(prepared.variables), one(before.variables), rtol=0)
    assert not any(mask[0].any() for mask in prepared.touched.values())


def test_the_share_of_most_needed_weights_by_hand():
    whole = {"a": np.array([1.0, 2.0, 4.0, 1.0]), "b": np.array([1.0, 1.0])}
    forget = {"a": np.array([3.0, 2.0, 20.0, 0.0]), "b": np.array([90.0, 90.0])}
    trains = {"a": True, "b": False}  # ratios 3, 1, 5, 0
    for share, expected in ((0.5, [1, 0, 1, 0]), (0.1, [0, 0, 1, 0]), (1.0, [1, 1, 1, 0])):
        found = ssd.most_needed(whole, forget, share, trains)
        np.testing.assert_array_equal(found["a"], np.array(expected, bool))
        assert not found["b"].any()
    # what D does not need at all comes first
    assert ssd.most_needed({"a": jnp.zeros(2)}, {"a": jnp.array([0.0, 1e-9])}, 0.5,
                           {"a": True})["a"].tolist() == [False, True]


def test_a_share_takes_the_place_of_alpha(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text))
    before = linear(toy.members((17, 20)))
    prepared = ssd.prepare(setting("ssd", model=LinearModel(), alpha=1e9, share=0.25), before)
    assert [mask.sum() for mask in (np.concatenate([prepared.touched["w"][m],
                                                    prepared.touched["b"][m]]) for m in (0, 1))] \
        == [3, 3] and not said  # of 13


def test_squared_batch_gradients_select_where_those_of_samples_cannot():
    chosen = toy.members((17, 20, 9))
    given = dict(model=LinearModel(), alpha=8.0)  # seeds 0 and 1 forget 7 and 4 of 24
    per_sample = ssd.prepare(setting("ssd", **given), linear(chosen))
    assert not any(mask[0].any() for mask in per_sample.touched.values())
    before = linear(chosen, batch_size=4)
    found = ssd.prepare(setting("ssd", **given, importance="batch"), before)
    whole, forget = (importance_of(before, over) for over in ("all", "forget"))
    for m in range(3):
        np.testing.assert_array_equal(found.touched["w"][m], one(forget, m)["w"]
                                      > 8 * one(whole, m)["w"])
    start, after = before.variables["params"]["w"], found.variables["params"]["w"]
    factor = np.where(found.touched["w"], np.minimum(whole["w"] / forget["w"], 1), 1)
    np.testing.assert_allclose(after, start * factor, rtol=1e-5)


def test_a_forget_set_without_training_samples_dampens_nothing():
    before = linear(toy.members((24,)))
    prepared = ssd.prepare(setting("ssd", model=LinearModel(), alpha=0.0), before)
    tree_close(prepared.variables, before.variables, rtol=0)


def test_it_trains_nothing_and_refuses_impossible_options():
    assert METHODS["ssd"].make_step is None
    METHODS["ssd"].check(setting("ssd"))
    for key, value in (("alpha", -1.0), ("dampening", float("nan"))):
        with pytest.raises(ConfigError, match=rf"unlearn.ssd.{key} is {value}; allowed: at least"):
            METHODS["ssd"].check(setting("ssd", **{key: value}))
    with pytest.raises(ConfigError, match="unlearn.ssd.importance is 'batches'; allowed: one of"):
        METHODS["ssd"].check(setting("ssd", importance="batches"))
    with pytest.raises(ConfigError, match="unlearn.ssd.share is 1.5; allowed: from 0 to 1"):
        METHODS["ssd"].check(setting("ssd", share=1.5))
