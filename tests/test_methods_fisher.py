"""The noise by hand, its statistics, and what it must leave alone."""

import numpy as np
import pytest
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
from unlearn_jax.methods.fisher import prepare, variances
from unlearn_jax.methods.importance import importance
from unlearn_jax.population import Member

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
def test_the_noise_has_the_variance_of_each_weight(task):
    model = net(task, width=6)
    before = preparation(model, task)
    prepared = prepare(setting("fisher", task, model), before)
    (retain_M,) = importance(preparation(model, task), "retain")
    start, after = leaves(before.variables), leaves(prepared.variables)
    variance = leaves({"params": variances(retain_M, 1e-6, 1e3, 1e2)})
    assert {path for path in start if (start[path] != after[path]).any()} == set(variance)
    scores = np.concatenate([((after[path] - start[path]) / np.sqrt(variance[path])).ravel()
                             for path in variance])
    count = len(scores)
    assert count > 1500
    # standard normal: mean within 4 standard errors, variance within 5 (each sqrt(2 / n))
    assert abs(scores.mean()) < 4 / np.sqrt(count)
    assert abs(scores.var() - 1) < 5 * np.sqrt(2 / count)
    assert np.abs(scores).max() < 6
    assert all(mask.all() for mask in prepared.touched.values())
    assert (before.images == [len(m.retain) for m in MEMBERS]).all()


def test_a_random_forget_set_zeroes_no_class():
    """Public code takes the forgotten class -1 of a random set for the last row of the head."""
    model = net("classification")
    rng = np.random.default_rng(0)
    rows = rng.permutation(20).astype(np.int32)
    member = Member(0, "random-0.3", rows[6:], np.arange(20, COUNT, dtype=np.int32), rows[:6])
    before = preparation(model, "classification", (member,))
    prepared = prepare(setting("fisher", "classification", model, alpha=1e-9), before)
    for part in ("kernel", "bias"):
        start, after = (np.asarray(v["params"]["output"][part])
                        for v in (before.variables, prepared.variables))
        assert (np.abs(start[..., -1]) > 1e-2).any()
        # five standard deviations of at most sqrt(1e-9 * 1e2)
        np.testing.assert_allclose(after, start, atol=5 * np.sqrt(1e-7))


def test_frozen_weights_and_no_noise_change_nothing():
    model = net(frozen=(r"stage1_block1/(conv|norm)1",))
    before = preparation(model)
    prepared = prepare(setting("fisher", model=model), before)
    start, after = leaves(before.variables), leaves(prepared.variables)
    same = {path for path in start if (start[path] == after[path]).all()}
    assert {p for p in same if p.startswith("params")} == {
        f"params/stage1_block1/{p}" for p in ("conv1/kernel", "norm1/scale", "norm1/bias")}
    assert not prepared.touched["stage1_block1/conv1/kernel"].any()
    assert prepared.touched["stem_conv/kernel"].all()
    silent = prepare(setting("fisher", model=model, alpha=0.0), preparation(model))
    tree_close(silent.variables, before.variables, rtol=0)
    assert not any(mask.any() for mask in silent.touched.values())


def test_its_key_decides_and_not_the_order_of_the_data():
    model = net()
    given = setting("fisher", model=model)
    start = preparation(model).variables
    plain = prepare(given, preparation(model))
    again = prepare(given, preparation(model))
    tree_close(again.variables, plain.variables, rtol=0)
    other = prepare(given, preparation(model, members=tuple(shuffled(m) for m in MEMBERS)))
    tree_close(other.variables, plain.variables, rtol=1e-4, atol=1e-5)
    a, b = (leaves(one(plain.variables, m))["params/output/kernel"]
            - leaves(one(start, m))["params/output/kernel"] for m in (0, 1))
    assert (a != b).all()


def test_it_refuses_impossible_options():
    METHODS["fisher"].check(setting("fisher"))
    for key in ("alpha", "cap", "cap_last"):
        with pytest.raises(ConfigError, match=rf"unlearn.fisher.{key} is -1.0; allowed: at least"):
            METHODS["fisher"].check(setting("fisher", **{key: -1.0}))
