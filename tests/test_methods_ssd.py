"""Dampening by hand, and on populations."""

import numpy as np
import pytest
import toy
from absl import logging
from tiny_population import (
    COUNT,
    MEMBERS,
    leaves,
    net,
    one,
    preparation,
    setting,
    shuffled,
)
from toy import tree_close

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.importance import every_sample, forgotten, importance
from unlearn_jax.methods.ssd import dampened, prepare

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
def test_a_population_against_its_importances(task):
    model = net(task, frozen=FROZEN)
    before = preparation(model, task)
    prepared = prepare(setting("ssd", task, model, alpha=1.1, dampening=0.8), before)
    whole_M, forget_M = importance(preparation(model, task), "all", (every_sample, forgotten))
    start, after = leaves(before.variables), leaves(prepared.variables)
    whole, forget = leaves({"params": whole_M}), leaves({"params": forget_M})
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
        np.testing.assert_allclose(after[path], np.where(chosen, theta * factor, theta), rtol=1e-4)
        np.testing.assert_array_equal(after[path][~chosen], theta[~chosen])
        np.testing.assert_array_equal(prepared.touched[path.removeprefix("params/")],
                                      chosen.reshape(2, -1), path)
        kinds |= {path.rpartition("/")[2]} if chosen.any() else set()
    assert kinds == {"kernel", "scale", "bias"}
    assert not prepared.touched["output/kernel"].any()
    np.testing.assert_array_equal(before.images, [COUNT - 4, COUNT - 4])


def test_order_and_batch_size_do_not_matter():
    model = net()
    given = setting("ssd", model=model, alpha=1.3)
    plain = prepare(given, preparation(model))
    other = prepare(given, preparation(model, members=tuple(shuffled(m) for m in MEMBERS),
                                       batch_size=3))
    tree_close(other.variables, plain.variables, rtol=1e-3, atol=1e-5)


def test_a_threshold_that_nothing_can_pass_is_said_and_changes_nothing(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    model = net()
    before = preparation(model)
    # Member 0 forgets 7 of 20 samples: I_f is at most 2.86 I_D. Member 1 forgets 5: 4 I_D.
    prepared = prepare(setting("ssd", model=model, alpha=3.0), before)
    assert len(said) == 1 and "seed 0, forget set a: alpha=3 selects no weight" in said[0]
    assert "35 %" in said[0] and "2.86" in said[0]
    tree_close(one(prepared.variables), one(before.variables), rtol=0)
    assert not any(mask[0].any() for mask in prepared.touched.values())


def test_a_forget_set_without_training_samples_dampens_nothing():
    model = net()
    nobody = toy.members((20,))
    before = preparation(model, members=tuple(
        type(m)(m.seed, "x", np.arange(20, dtype=np.int32), m.validation, np.zeros(0, np.int32))
        for m in nobody))
    prepared = prepare(setting("ssd", model=model, alpha=0.0), before)
    tree_close(prepared.variables, before.variables, rtol=0)


def test_it_trains_nothing_and_refuses_impossible_options():
    assert METHODS["ssd"].make_step is None
    METHODS["ssd"].check(setting("ssd"))
    for key, value in (("alpha", -1.0), ("dampening", float("nan"))):
        with pytest.raises(ConfigError, match=rf"unlearn.ssd.{key} is {value}; allowed: at least"):
            METHODS["ssd"].check(setting("ssd", **{key: value}))
