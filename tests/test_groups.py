import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import (
    Bar,
    LinearModel,
    Memory,
    assert_same,
    layout,
    members,
    recipe,
    resident,
    settings,
    streamed,
    train,
)

from unlearn_jax.engine import run as engine
from unlearn_jax.engine.groups import Group, joined, regrouped
from unlearn_jax.engine.recipe import init_members

MODEL = LinearModel()


def done(count, *who):
    flags = np.zeros(count, bool)
    flags[list(who)] = True
    return flags


@pytest.mark.parametrize("groups, who, expected", [
    # three halves make one and a half; those who stopped fill up
    ([[0, 1], [2, 3], [4, 4]], (1, 2), {0: [0, 3], 1: [4, 1], 2: [2, 2]}),
    # a full group is left alone
    ([[0, 1], [2, 3], [4, 5]], (3, 5), {1: [2, 4], 2: [3, 5]}),
    # a group that nobody calls any more is left alone, too
    ([[0, 1], [2, 3], [4, 5], [6, 7]], (0, 1, 3, 5), {1: [2, 4], 2: [3, 5]}),
    # somebody who repeats is one
    ([[0, 1, 2], [3, 3, 3]], (0,), {0: [1, 2, 3], 1: [0, 0, 0]}),
    # nothing to be saved
    ([[0, 1], [2, 3]], (1,), {}),
    ([[0, 1, 2], [3, 4, 5]], (2, 5), {}),
    ([[0], [1], [2]], (1,), {}),
    ([[0, 1], [2, 3]], (0, 1, 2, 3), {}),
    ([[0, 1], [2, 3]], (), {}),
])
def test_who_still_runs_comes_together_where_that_saves_a_group(groups, who, expected):
    found = regrouped([np.array(g) for g in groups], done(8, *who))
    assert {g: members.tolist() for g, members in found.items()} == expected


def test_nobody_is_lost():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, size = int(rng.integers(1, 20)), int(rng.integers(1, 6))
        slots = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
        stopped = rng.random(count) < rng.random()
        changed = regrouped(list(slots), stopped)
        after = [changed.get(g, members) for g, members in enumerate(slots)]
        assert set(np.concatenate(after)) == set(range(count))
        calls = sum((~stopped[members]).any() for members in after)
        assert calls == -(-(~stopped).sum() // size) or not changed
        running = np.concatenate([np.unique(m[~stopped[m]]) for m in after])
        assert len(running) == len(set(running))  # nobody trains twice
        again = regrouped(after, stopped)
        assert not again


def test_members_are_joined_in_their_order_and_once():
    groups = [Group(np.array(members), None, None, (jnp.array(members) * 10.0, None))
              for members in ([4, 1], [0, 3], [2, 2])]
    np.testing.assert_array_equal(joined(groups, lambda carry: carry[0]), [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(groups[2].slots, [0])
    np.testing.assert_array_equal(groups[0].slots, [1, 0])


def some_fail(recipe_, where, saver=None, data=None):
    """Five members of one size, of which the second and the third fail at once."""
    chosen = members((24,) * 5)
    start = jax.tree.map(np.array, init_members(MODEL, where, range(5)))
    start["params"]["b"][1:3] = np.nan
    return engine.train_population(recipe_, MODEL, where, data or resident(), chosen, start, saver,
                                   Bar)


@pytest.mark.parametrize("changes", [dict(), dict(keep="last", snapshots=(1, 3))])
@pytest.mark.parametrize("where, calls", [
    (dict(per_device=2), [3, 2, 2]),  # (0 1) (2 3) (4 4) become (0 3) (4 1), and (2 2) rests
    (dict(members=2, per_device=1), [3, 2, 2]),
    (dict(per_device=3), [2, 1, 1]),
    (dict(per_device=1), [5, 3, 3]),
])
def test_members_that_still_train_come_together(monkeypatch, caplog, where, calls, changes):
    chosen, where = recipe(**changes), layout(count=5, **where)
    with caplog.at_level(logging.INFO):
        together = some_fail(chosen, where)
    per_epoch = [3 * c for c in calls]  # three batches each; a call is a step of the bar
    assert len(Bar.last.counts) == 1 + sum(per_epoch)
    assert sum(Bar.last.counts) == 24 * (5 + 3 + 3)  # who has failed walks over nothing
    regrouped = where.members_per_device * where.mesh.shape["member"] > 1
    assert ("3 members still train" in caplog.text) == regrouped
    monkeypatch.setattr(engine, "regrouped", lambda groups, done: {})
    apart = some_fail(chosen, where)
    assert len(Bar.last.counts) == 1 + (sum(per_epoch) if not regrouped else 3 * calls[0] * 3)
    assert_same(together, apart)
    np.testing.assert_array_equal(together.snapshots[3].failed, [False, True, True, False, False])


def test_members_that_stop_early_make_room(monkeypatch):
    chosen = recipe(epochs=8, patience=1, optimizer_settings=settings(learning_rate=0.9))
    runs, calls = [], []
    for regroups in (True, False):
        if not regroups:
            monkeypatch.setattr(engine, "regrouped", lambda groups, done: {})
        runs.append(train(members((24, 20, 17, 12, 9, 24)), chosen, layout(per_device=2, count=6),
                          bar=Bar))
        calls.append(len(Bar.last.counts))
    assert_same(*runs)
    assert len(set(runs[0].snapshots[8].epochs)) > 1 and calls[0] < calls[1]


def test_an_interrupted_run_comes_together_again(tmp_path):
    chosen, where = recipe(epochs=4, keep="last", snapshots=(1, 4)), layout(count=5, per_device=2)
    whole = some_fail(chosen, where, data=streamed())
    with pytest.raises(KeyboardInterrupt):
        some_fail(chosen, where, Memory(tmp_path, 2), data=streamed())
    resumed = some_fail(chosen, where, Memory(tmp_path, None), data=streamed())
    assert len(Bar.last.counts) == 1 + 2 * 2 * 3  # two epochs of two groups
    assert_same(whole, resumed)
