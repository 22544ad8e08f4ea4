"""SISA trained, killed and asked to delete, on a linear model."""

import dataclasses
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import side_by_side
from sisa_study import (
    INDEX,
    MODEL,
    ROWS,
    SEEDS,
    SOURCES,
    TEST,
    Log,
    forget,
    make_sisa,
    make_study,
)
from toy import layout

from unlearn_jax.data.splits import Rows
from unlearn_jax.engine import run as engine
from unlearn_jax.engine.predict import make_predictor
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member, Pass
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import Outcome
from unlearn_jax.stages import sisa
from unlearn_jax.stages.evaluate import _outcome
from unlearn_jax.stages.shards import deletion_visits, visits
from unlearn_jax.storage import checkpoints
from unlearn_jax.system import interrupt
from unlearn_jax.train import make_train_step

EVERYBODY = np.arange(6)  # 2 seeds x 3 shards
WEIGHTS = np.bincount(ROWS.source, minlength=60)[:60]
# One sample, about a per cent and its copies, and a fifth, which touches everything.
REQUESTS = [forget("one", [11]), forget("few", [5, 40]), forget("class", np.arange(0, 60, 5))]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished training with three deletions, and the rows of every batch on the way."""
    walked = {}
    batches = engine.epoch_batches

    def noting(member, name, epoch, *args):
        rows, kinds = batches(member, name, epoch, *args)
        own = walked.setdefault((member.forget_set, member.seed), {}).setdefault(name, [])
        own.append(rows[rows >= 0])
        return rows, kinds

    study = make_study(tmp_path_factory.mktemp("sisa"), *REQUESTS)
    made = make_sisa(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "epoch_batches", noting)
        models = made.run()
    return made, models, walked


def states(made, request=None):
    """Of all constituents, before or after a deletion."""
    last = (made.training[-1],)
    if request:
        last += (made.deletions[request][-1],)
    return sisa.restore(made.study, last, EVERYBODY)[0]


def equal(a, b, rows) -> np.ndarray:
    """Which constituents are the same to the bit."""
    same = [(np.asarray(x)[rows] == np.asarray(y)[rows]).reshape(len(rows), -1).all(1)
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return np.all(same, axis=0)


def touched(made, request) -> np.ndarray:
    forgotten = REQUESTS[[r.name for r in REQUESTS].index(request)].train
    return np.concatenate([plan.first_touched(forgotten) for plan in made.plans]) < made.slices


def test_each_slice_walks_over_its_shard_and_over_nothing_deleted(done):
    made, _, walked = done
    for (name, member_seed), slices in walked.items():
        forgotten = dict((r.name, r.train) for r in REQUESTS).get(name, np.zeros(0, int))
        (m, shard), = [(m, s) for m, seed in enumerate(SEEDS) for s in range(3)
                       if sisa._constituent_seed(seed, s) == member_seed]
        for recipe, epochs in slices.items():
            plan, number = made.plans[m], int(recipe.removeprefix("sisa/slice-")) - 1
            for rows in epochs:
                sources = SOURCES[rows]
                assert not set(sources) & set(forgotten)
                expected = plan.samples[(plan.shard == shard) & (plan.slice <= number)]
                assert set(sources) == set(expected) - set(forgotten)
                assert len(rows) == WEIGHTS[np.setdiff1d(expected, forgotten)].sum()  # copies too


def test_untouched_shards_keep_their_weights_to_the_bit(done):
    made, _, walked = done
    assert touched(made, "one").sum() == 2 and touched(made, "class").all()
    for request in ("one", "few", "class"):
        same = equal(states(made), states(made, request), EVERYBODY)
        np.testing.assert_array_equal(same, ~touched(made, request))
        assert sum(name == request for name, _ in walked) == touched(made, request).sum()


def scratch(made, forgotten):
    """All constituents trained from scratch without some samples, by the plan alone."""
    study = made.study
    settings = OptimizerSettings.from_config(study.config.train)
    optimizer = make_optimizer(settings)
    step = make_train_step(MODEL, optimizer, study.loss)
    seeds = [sisa._constituent_seed(seed, s) for seed in SEEDS for s in range(3)]
    nobody, where = np.zeros(0, np.int32), layout(per_device=1)
    variables = init_members(MODEL, where, seeds)
    for number in range(2):
        members = []
        for p, seed in enumerate(seeds):
            mine = np.isin(ROWS.source, made.plans[p // 3].seen(p % 3, number, forgotten))
            rows = INDEX(Rows(ROWS.source[mine], ROWS.copy[mine]))
            members.append(Member(seed, "", rows, nobody, nobody))
        recipe = Recipe(f"sisa/slice-{number + 1}", step, optimizer, settings, study.loss, 2, 8, 1,
                        keep="last", snapshots=(2,), passes=lambda epoch: (Pass("retain"),))
        variables = train_population(recipe, MODEL, where, study.resident, members,
                                     variables).snapshots[2].variables
    return variables


@pytest.mark.parametrize("request_", [None, "few", "class"])
def test_a_deletion_is_training_from_scratch_without_the_deleted(done, request_):
    made, _, _ = done
    forgotten = next((r.train for r in REQUESTS if r.name == request_), np.zeros(0, int))
    assert equal(states(made, request_), scratch(made, forgotten), EVERYBODY).all()


@pytest.mark.parametrize("request_", ["one", "few", "class"])
def test_a_deletion_costs_what_the_plan_says(done, request_):
    made, models, _ = done
    assert made.slice_epochs == 2 and [m.forget_set for m in models] == ["", "one", "few", "class"]
    costs = next(m.costs for m in models if m.forget_set == request_)
    forgotten = next(r.train for r in REQUESTS if r.name == request_)
    expected = [deletion_visits(plan, WEIGHTS, forgotten, (1.0, 1.0)) for plan in made.plans]
    assert costs["images"].tolist() == expected
    whole = [sum(visits(WEIGHTS[(plan.shard == s) & (plan.slice <= r)].sum(), (1.0, 1.0))
                 for s in range(plan.shards) for r in range(plan.slices)) for plan in made.plans]
    assert models[0].costs["images"].tolist() == whole
    assert min(whole) > max(expected) > 0 and (costs["seconds"] > 0).all()
    assert (costs["flops"] > 0).all() and not costs["failed"].any()
    # 3 epochs over 63 rows, were all slices equally long
    np.testing.assert_allclose(models[0].costs["epochs_trained"], 3, rtol=0.05)


def outcome(method, images, seconds):
    return Outcome(method=method, forget_set="one", epochs=3, stage="key", seeds=SEEDS, outputs={},
                   images=np.array(images), seconds=np.array(seconds),
                   epochs_trained=np.array([3, 3]), failed=np.array([False, False]),
                   flops=np.array([1.0, 1.0]), steps=np.array([9, 9]))


def test_speedups_by_hand(done):
    made, models, _ = done
    found = models[1].measures(outcome("sisa", [20, 60], [2.0, 4.0]),
                               outcome("retrain", [180, 180], [6.0, 6.0]))
    assert found["sisa_speedup_measured_images"].tolist() == [9, 3]
    assert found["sisa_speedup_measured_wall"].tolist() == [3, 1.5]
    assert found["sisa_speedup_nominal"].tolist() == [9, 9]  # (2 + 1) x 3
    # 3 R S / (2 R + 1) = 3.6 for large shards
    np.testing.assert_allclose(found["sisa_speedup_expected"], 3.6, rtol=0.1)
    assert models[0].measures is None
    # a member that failed at once has cost nothing and says nothing
    failed = dataclasses.replace(outcome("sisa", [20, 0], [2.0, 0.0]),
                                 failed=np.array([False, True]))
    found = models[1].measures(failed, outcome("retrain", [180, 180], [6.0, 6.0]))
    np.testing.assert_array_equal(found["sisa_speedup_measured_wall"], [3, np.nan])


def test_constituents_are_combined_by_seed(done):
    made, _, _ = done
    outputs = np.array([[10, 0], [20, 0], [60, 3], [1, 1], [1, 1], [1, 4]], np.float32)
    np.testing.assert_allclose(made.combine(outputs), [[30, 1], [1, 2]])


def test_a_checkpoint_of_each_slice_says_whose_it_is(done):
    made, _, _ = done
    directories = [m.stage.directory(made.study.store) for m in made.training]
    assert len(set(directories)) == 2
    for number, directory in enumerate(directories):
        metadata, leaves = checkpoints.describe(directory / "checkpoint")
        assert metadata["slice"] == number + 1 and metadata["seeds"] == [0, 0, 0, 1, 1, 1]
        assert metadata["shards"] == [0, 1, 2, 0, 1, 2]
        assert leaves["params/w"][0] == (6, 12)
    rows = made.study.run.tables["sisa_history.csv"]
    assert all(tuple(row) == sisa.HISTORY_COLUMNS for row in rows)
    of_training = [(r["seed"], r["shard"], r["slice"], r["epoch"]) for r in rows
                   if r["stage"] == "sisa_original"]
    assert sorted(of_training) == [(m, s, r, e) for m in SEEDS for s in range(3)
                                   for r in (1, 2) for e in (1, 2)]


def test_another_deletion_costs_only_itself(done):
    made, _, _ = done
    last = [set(plan.samples[plan.slice == 1]) for plan in made.plans]
    again = make_study(made.study.store.root, REQUESTS[0], forget("new", [min(last[0] & last[1])]))
    make_sisa(again).run()
    statuses = {(stage, name): (status, members) for stage, name, status, members, _
                in again.run.stages}
    assert statuses == {("sisa_original", ""): ("reused", 6), ("sisa", "one"): ("reused", 2),
                        ("sisa", "new"): ("computed", 2)}


def test_a_killed_training_goes_on_with_its_slice(done, tmp_path):
    script = Path(__file__).parent / "sisa_study.py"
    (code,), (said,) = side_by_side.run([str(script), str(tmp_path), "2"])
    assert code == -signal.SIGKILL, said[-3000:]
    study = make_study(tmp_path)
    resumed = make_sisa(study)
    resumed.run()
    assert [status for _, _, status, *_ in study.run.stages] == ["reused", "resumed"]
    assert not list(tmp_path.glob("population/*/*"))
    assert equal(states(resumed), states(done[0]), EVERYBODY).all()


def test_a_signal_in_a_slice_of_one_epoch_is_answered_before_the_next(tmp_path, monkeypatch):
    study = make_study(tmp_path, unlearn__sisa__slice_epochs=1.0)
    batches = engine.epoch_batches

    def asking(*args):
        interrupt._received.append(signal.SIGUSR1)
        return batches(*args)

    monkeypatch.setattr(interrupt, "_received", [])
    monkeypatch.setattr(engine, "epoch_batches", asking)
    with pytest.raises(interrupt.Interrupted):
        make_sisa(study).run()
    interrupt._received.clear()
    monkeypatch.setattr(engine, "epoch_batches", batches)
    again = make_study(tmp_path, unlearn__sisa__slice_epochs=1.0)
    make_sisa(again).run()
    assert [status for _, _, status, *_ in again.run.stages] == ["reused", "computed"]


def test_a_signal_is_answered_before_the_next_predictions(done, monkeypatch):
    made, models, _ = done
    study = dataclasses.replace(made.study, run=Log())
    where = layout()
    rows = {"test": TEST}

    def predictions():
        return _outcome(study, make_predictor(MODEL, where), models[0], REQUESTS[0], rows)

    monkeypatch.setattr(interrupt, "_received", [signal.SIGUSR1])
    with pytest.raises(interrupt.Interrupted):
        predictions()
    interrupt._received.clear()
    computed = predictions()
    # what is in the store costs nothing and is finished
    interrupt._received.append(signal.SIGUSR1)
    np.testing.assert_array_equal(predictions().outputs["test"], computed.outputs["test"])
    assert [status for _, _, status, *_ in study.run.stages] == ["computed", "reused"]


def test_a_deletion_that_leaves_nothing_of_a_slice_waits_for_the_next(done):
    store, plan = done[0].study.store, done[0].plans[0]
    first = plan.samples[(plan.shard == 1) & (plan.slice == 0)]
    made = make_sisa(make_study(store.root, forget("slice", first)))
    costs = made.run()[1].costs
    assert costs["images"][0] == deletion_visits(plan, WEIGHTS, first, (1.0, 1.0))
    found = [checkpoints.restore(m.stage.directory(store) / "checkpoint")
             for m in made.deletions["slice"]]
    at = [m.positions.tolist().index(1) for m in made.deletions["slice"]]
    start = init_members(MODEL, layout(), [sisa._constituent_seed(0, 1)])
    emptied, trained = (jax.tree.map(lambda x, k=k: x[k:k + 1], tree)
                        for (tree, _), k in zip(found, at))
    assert equal(emptied, start, [0]).all() and found[0][1]["images"][at[0]] == 0
    assert not equal(trained, start, [0]).any()


def test_a_deletion_that_empties_a_shard_is_refused_before_training(tmp_path):
    plan = make_sisa(make_study(tmp_path)).plans[1]
    everyone = plan.samples[plan.shard == 2]
    with pytest.raises(InputError, match="forget set all takes every sample of 1 of the 3 shards "
                                         "of seed 1; config.unlearn.sisa.shards must be smaller"):
        make_sisa(make_study(tmp_path, forget("all", everyone)))
    with pytest.raises(InputError, match="31 shards x 2 slices"):
        make_sisa(make_study(tmp_path, unlearn__sisa__shards=31))
    assert not list(tmp_path.iterdir())


def test_a_constituent_that_fails_fails_its_seed(tmp_path, monkeypatch):
    start = sisa.initial_variables

    def broken(study, where, seeds):
        variables = jax.tree.map(np.array, start(study, where, seeds))
        variables["params"]["w"][np.array(seeds) == sisa._constituent_seed(1, 2)] = np.nan
        return variables

    monkeypatch.setattr(sisa, "initial_variables", broken)
    (models,) = make_sisa(make_study(tmp_path, train__epochs=1)).run()
    assert models.costs["failed"].tolist() == [False, True]


def keys(tmp_path, **changes):
    made = make_sisa(make_study(tmp_path, REQUESTS[1], **changes))
    return ([m.stage.key for m in made.training], [m.stage.key for m in made.deletions["few"]])


@pytest.mark.parametrize("change", [
    dict(unlearn__sisa__shards=2), dict(unlearn__sisa__slices=3),
    dict(unlearn__sisa__slice_epochs=1.0), dict(train__epochs=4), dict(train__learning_rate=0.1),
    dict(train__schedule="cosine"), dict(model__width=3)])
def test_what_sisa_depends_on_moves_its_keys(tmp_path, change):
    (trained, deleted), (other, others) = keys(tmp_path), keys(tmp_path, **change)
    assert not set(trained) & set(other) and not set(deleted) & set(others)


@pytest.mark.parametrize("change", [
    dict(unlearn__sisa__aggregate="vote"), dict(unlearn__sisa__slice_epochs=2.0),
    dict(train__patience=3), dict(unlearn__learning_rate=0.1), dict(train__tensorboard=True)])
def test_what_sisa_does_not_read_moves_nothing(tmp_path, change):
    assert keys(tmp_path) == keys(tmp_path, **change)
