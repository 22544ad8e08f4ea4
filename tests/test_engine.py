import dataclasses
import logging
import shutil
import time

import jax
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
    tree_close,
)

from unlearn_jax.engine import batches
from unlearn_jax.engine import run as engine
from unlearn_jax.engine.layout import Program
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Pass
from unlearn_jax.storage import checkpoints

MODEL = LinearModel()


def only(tree, m):
    return jax.tree.map(lambda x: x[m:m + 1], tree)


def test_population_equals_a_loop_of_singles():
    everyone = train(members()).snapshots[3]
    for m, member in enumerate(members()):
        single = train([member]).snapshots[3]
        tree_close(only(everyone.variables, m), single.variables, rtol=1e-5)
        np.testing.assert_allclose(everyone.validation_loss[m], single.validation_loss[0],
                                   rtol=1e-5)
        assert everyone.images[m] == single.images[0] == 3 * len(member.retain)
        assert everyone.steps[m] == 3 * -(-len(member.retain) // 8)


@pytest.mark.parametrize("where", [
    dict(members=3), dict(members=4), dict(members=2), dict(members=2, batch=2),
    dict(members=1, batch=4), dict(steps=2), dict(steps=32), dict(members=3, steps=2),
    dict(per_device=1), dict(per_device=2), dict(per_device=2, steps=2),
    dict(members=2, per_device=1),
])
def test_every_layout_gives_the_same_numbers(where):
    reference = train(members())
    other = train(members(), where=layout(**where))
    tree_close(reference.snapshots[3].variables, other.snapshots[3].variables, rtol=2e-5, atol=1e-6)
    for a, b in zip(reference.history, other.history, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            close = b[key] if isinstance(b[key], str) else pytest.approx(b[key], rel=1e-4)
            assert a[key] == close


@pytest.mark.parametrize("where", [dict(per_device=1), dict(per_device=2, steps=2),
                                   dict(members=2, batch=2), dict(members=1, batch=4)])
def test_streamed_images_give_the_same_numbers_to_the_bit(where):
    chosen = recipe(epochs=2, optimizer_settings=settings(name="adam"))
    assert_same(train(members(), chosen, layout(**where)),
                train(members(), chosen, layout(**where), data=streamed()))


def test_a_streamed_run_holds_few_images_on_the_device(monkeypatch):
    monkeypatch.setattr(batches, "_CALL_BYTES", 3 * 8 * 12 * 2)  # two batches of three members
    whole = train(members(), where=layout(steps=32), data=streamed(), bar=Bar)
    # 24 samples are three batches: calls of two, the last one half empty
    assert Bar.last.counts == [0] + 3 * [16 + 16 + 9, 8 + 1]
    assert_same(whole, train(members(), where=layout(steps=2)))


@pytest.mark.parametrize("where", [
    dict(members=3), dict(members=2, batch=2), dict(members=1, batch=4), dict(per_device=1),
    dict(steps=2)])
def test_flops_are_those_of_the_steps_on_every_layout(where):
    one, two = (train(members(), recipe(epochs=e)).snapshots[e].flops for e in (1, 2))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    # 12 weights, 8 samples: forward and weight gradient are 2 x 2 x 8 x 12 of them, 3 steps
    assert 3 * 384 < one[0] < 3 * 1500
    other = train(members(), recipe(epochs=1), where=layout(**where)).snapshots[1].flops
    np.testing.assert_array_equal(other, one)


def test_a_member_that_fails_is_named_and_alone(caplog):
    chosen = members()
    where = layout()
    start = jax.tree.map(np.array, init_members(MODEL, where, [0, 1, 2]))
    start["params"]["w"][1, 0] = np.nan
    with caplog.at_level(logging.WARNING):
        trained = train_population(recipe(), MODEL, where, resident(), chosen, start)
    good = train(chosen)
    assert "seed 1, forget set set-1" in caplog.text and "step 0" in caplog.text
    assert caplog.text.count("not finite") == 1
    np.testing.assert_array_equal(trained.snapshots[3].failed, [False, True, False])
    for m in (0, 2):
        tree_close(only(trained.snapshots[3].variables, m), only(good.snapshots[3].variables, m),
                   rtol=1e-6)
    assert {row["seed"] for row in trained.history} == {0, 2}


def test_a_population_that_fails_as_a_whole_still_has_its_snapshots():
    where = layout()
    start = jax.tree.map(lambda x: np.full_like(x, np.nan), init_members(MODEL, where, [0, 1, 2]))
    trained = train_population(recipe(keep="last", epochs=4, snapshots=(0, 1, 4)), MODEL, where,
                               resident(), members(), start)
    assert sorted(trained.snapshots) == [0, 1, 4]
    np.testing.assert_array_equal(trained.snapshots[0].failed, False)
    np.testing.assert_array_equal(trained.snapshots[4].failed, True)
    assert trained.history == [] and trained.snapshots[4].images.sum() == 0


def test_members_stop_on_their_own():
    # at a rate of zero nothing improves after the first epoch; a real rate goes on
    trained = train(members((24, 24)), recipe(epochs=6, patience=2,
                                              optimizer_settings=settings(learning_rate=0.0)))
    assert [r["epoch"] for r in trained.history if r["seed"] == 0] == [1, 2, 3]
    np.testing.assert_array_equal(trained.snapshots[6].epochs, [1, 1])
    np.testing.assert_array_equal(trained.snapshots[6].images, [72, 72])
    moving = train(members((24, 24)), recipe(epochs=6, patience=2))
    assert max(r["epoch"] for r in moving.history) > 3


def test_best_is_the_state_of_lowest_validation_loss():
    trained = train(members(), recipe(epochs=8, optimizer_settings=settings(learning_rate=0.9)))
    for m in range(3):
        losses = [r["validation_loss"] for r in trained.history if r["seed"] == m]
        assert trained.snapshots[8].epochs[m] == int(np.argmin(losses)) + 1
        assert trained.snapshots[8].validation_loss[m] == pytest.approx(min(losses))


def test_snapshots_are_those_of_shorter_runs_and_zero_changes_nothing():
    long = train(members(), recipe(keep="last", epochs=4, snapshots=(0, 2, 4)))
    short = train(members(), recipe(keep="last", epochs=2, snapshots=(2,)))
    assert set(long.snapshots) == {0, 2, 4}
    tree_close(long.snapshots[2].variables, short.snapshots[2].variables, rtol=1e-6)
    start = init_members(MODEL, layout(), [0, 1, 2])
    tree_close(long.snapshots[0].variables, start, rtol=0)
    assert long.snapshots[0].images.sum() == 0
    assert np.isnan(long.snapshots[0].validation_loss).all()


def test_the_start_is_left_as_it_was():
    where = layout()
    start = init_members(MODEL, where, [0, 1, 2])
    before = jax.tree.map(np.array, start)
    train_population(recipe(), MODEL, where, resident(), members(), start)
    tree_close(before, start, rtol=0)


@pytest.mark.parametrize("data", [resident, streamed])
def test_members_exchange_nothing(monkeypatch, data):
    texts = []
    call = Program.__call__

    def spy(self, *args):
        out = call(self, *args)
        texts.append(self.compiled.as_text())
        return out

    monkeypatch.setattr(Program, "__call__", spy)
    train(members(), recipe(epochs=1), layout(members=3), data())
    collectives = ("all-reduce", "all-gather", "collective-permute", "all-to-all")
    assert len(texts) > 4
    assert not any(name in text for text in texts for name in collectives)
    texts.clear()
    train(members(), recipe(epochs=1), layout(members=1, batch=4), data())
    assert any("all-reduce" in text for text in texts)  # the batch axis does


@pytest.mark.parametrize("changes", [dict(), dict(keep="last", snapshots=(1, 4))])
def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, changes):
    chosen = recipe(epochs=4, optimizer_settings=settings(name="adam"), **changes)
    whole = train(members(), chosen)
    with pytest.raises(KeyboardInterrupt):
        train(members(), chosen, saver=Memory(tmp_path, 2))
    resumed = train(members(), chosen, saver=Memory(tmp_path, None))
    assert_same(whole, resumed)


def test_nothing_but_the_last_state_is_carried_where_that_is_kept(tmp_path):
    sizes = {}
    for keep in ("best", "last"):
        with pytest.raises(KeyboardInterrupt):
            train(members(), recipe(keep=keep, snapshots=(3,) if keep == "last" else ()),
                  saver=Memory(tmp_path / keep, 1))
        _, leaves = checkpoints.describe(tmp_path / keep / "00000001")
        sizes[keep] = {name for name in leaves if "params/w" in name}
    assert {"carry/0/variables/params/w", "carry/1/best/params/w"} <= sizes["best"]
    assert sizes["last"] == {name for name in sizes["best"] if "best" not in name}


def test_progress_that_carries_a_best_state_for_nothing_is_passed_over(tmp_path, caplog):
    chosen = recipe(epochs=3, keep="last", snapshots=(3,))
    with pytest.raises(KeyboardInterrupt):
        train(members(), chosen, saver=Memory(tmp_path, 1))
    tree, metadata = checkpoints.restore(tmp_path / "00000001")
    tree["carry"]["1"]["best"] = tree["carry"]["0"]["variables"]  # as earlier versions did
    checkpoints.save_progress(tmp_path, 2, tree, metadata)
    shutil.rmtree(tmp_path / "00000001")
    with caplog.at_level(logging.WARNING):
        trained = train(members(), chosen, saver=Memory(tmp_path, None))
    assert "also has carry/1/best" in caplog.text
    assert_same(train(members(), chosen), trained)


def test_part_of_an_interrupted_population_goes_on(tmp_path):
    chosen = recipe(epochs=4, keep="last", snapshots=(1, 4))
    whole = train(members(), chosen)
    with pytest.raises(KeyboardInterrupt):
        train(members(), chosen, saver=Memory(tmp_path, 2))
    part = [members()[2], members()[0]]
    resumed = train(part, chosen, saver=Memory(tmp_path, None), bar=Bar)
    assert Bar.last.counts[0] == 2 * (24 + 9)  # of these members, two epochs were there
    for epochs, snapshot in whole.snapshots.items():
        other = resumed.snapshots[epochs]
        for mine, theirs in enumerate((2, 0)):
            tree_close(only(other.variables, mine), only(snapshot.variables, theirs), rtol=1e-6)
        np.testing.assert_array_equal(other.images, snapshot.images[[2, 0]])
    assert {row["seed"] for row in resumed.history} == {0, 2}


@pytest.mark.parametrize("changes, words", [(dict(snapshots=(1, 4)), "past epoch 1"),
                                            (dict(seed=9), "lacks members")])
def test_progress_that_does_not_fit_is_passed_over(tmp_path, caplog, changes, words):
    chosen = recipe(epochs=4, keep="last", snapshots=(4,))
    with pytest.raises(KeyboardInterrupt):
        train(members(), chosen, saver=Memory(tmp_path, 2))
    who = [dataclasses.replace(m, seed=changes.get("seed", m.seed)) for m in members()]
    chosen = dataclasses.replace(chosen, snapshots=changes.get("snapshots", (4,)))
    with caplog.at_level(logging.WARNING):
        trained = train(who, chosen, saver=Memory(tmp_path / "new", None), bar=Bar)
        again = train(who, chosen, saver=Memory(tmp_path, None), bar=Bar)
    assert words in caplog.text and Bar.last.counts[0] == 0
    tree_close(trained.snapshots[4].variables, again.snapshots[4].variables, rtol=0)


def test_the_bar_counts_every_image_once():
    train(members(), bar=Bar)
    assert sum(Bar.last.counts) == Bar.last.total == 3 * (24 + 17 + 9)


@pytest.mark.parametrize("over", ["retain+forget", "forget+retain"])
def test_the_bar_counts_both_halves_of_paired_batches(over):
    trained = train(members((17, 9)), recipe(passes=lambda e: (Pass(over),)), bar=Bar)
    assert sum(Bar.last.counts) == Bar.last.total == trained.snapshots[3].images.sum()


def test_members_that_are_done_cost_nothing():
    # one member a call: who has stopped early, or has fewer batches, is not called any more
    still = settings(learning_rate=0.0)
    train(members(), recipe(epochs=6, patience=1, optimizer_settings=still), layout(per_device=1),
          bar=Bar)
    an_epoch = [8, 8, 8] + [8, 8, 1] + [8, 1]
    assert Bar.last.counts == [0] + 2 * an_epoch


@pytest.mark.parametrize("field, words", [("retain", "no samples to train"),
                                          ("validation", "no validation samples")])
def test_empty_sets_are_refused_before_any_work(field, words):
    chosen = members()
    chosen[1] = dataclasses.replace(chosen[1], **{field: np.zeros(0, np.int32)})
    with pytest.raises(ValueError, match=f"seed 1.*{words}"):
        train(chosen)


@pytest.mark.parametrize("seconds, calls", [(30.0, 50), (0.0, 1)])
def test_a_rate_is_measured_in_fifty_calls_or_in_some_seconds(seconds, calls):
    where, chosen = layout(), members()
    start = init_members(MODEL, where, [m.seed for m in chosen])
    found = engine.measure_rate(recipe(), MODEL, where, resident(), chosen, start, seconds)
    assert found.calls == calls and found.images_per_second > 0


def test_the_first_step_is_timed():
    began = time.monotonic()
    assert 0 < train(members()).first_step_seconds < time.monotonic() - began
    nothing = train(members(), recipe(epochs=0, keep="last", snapshots=(0,)))
    assert nothing.first_step_seconds is None


def test_a_long_epoch_does_not_wait_for_its_end_to_time_the_first_step(monkeypatch):
    ends = []
    close = engine.PopulationRun._validation_loss
    monkeypatch.setattr(engine.PopulationRun, "_validation_loss",
                        lambda run, group: ends.append(run.first_step_at) or close(run, group))
    train(members((24,)), recipe(epochs=1, batch_size=4))  # six steps
    train(members((8,)), recipe(epochs=1, batch_size=4))  # two, which may both be under way
    assert ends[0] is not None and ends[1] is None
