"""Relearning: whose losses, by which labels, and what is said where a loss does not come down."""

import json
import types

import numpy as np
import pytest
from test_explain_main import config, run_study, table

from unlearn_jax.data.inject import InjectedGroup, Injection
from unlearn_jax.data.splits import ForgetSet, Rows, Splits
from unlearn_jax.stages import populations, relearn
from unlearn_jax.stages.graph import RunContext, Stage
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt
from unlearn_jax.train import make_loss

LABELS = np.array([10, 20, 30, 40, 50, 60], np.float32)
EXCHANGED = Injection("confusion", (InjectedGroup(10, 10), InjectedGroup(40, 40)),
                      np.array([0, 3], np.int32), np.array([40, 10], np.float32))
# Sample 2 is a validation sample of D_f.
FORGET = ForgetSet("f", "injected", np.array([0, 3], np.int32), np.array([2], np.int32))
SPLITS = Splits(np.array([0, 1, 3], np.int32), np.array([2, 4], np.int32), np.array([5], np.int32),
                Rows(np.array([0, 1, 3], np.int32), np.zeros(3, np.int32)), (FORGET,), EXCHANGED)


def study(injection=None, epochs=4):
    """Enough of a study for what relearning measures: two seeds, the mean absolute error."""
    splits = types.SimpleNamespace(injection=injection, trained_places=SPLITS.trained_places)
    dataset = types.SimpleNamespace(labels=LABELS)
    made = types.SimpleNamespace(splits=splits, dataset=dataset, loss=make_loss("mae", 1.0),
                                 seeds=(0, 1))
    made.trained_labels = RunContext.trained_labels.fget(made)
    return made


def outcome(*rows):
    """Predictions of two members on samples 0, 2 and 3, the whole of D_f."""
    return types.SimpleNamespace(outputs={"forget": np.array(rows, np.float32)},
                                 started=np.arange(2))


STAGES = [Stage("original", None, 0, {"a": 1}), Stage("ft", FORGET, 2, {"a": 2}),
          Stage("retrain", FORGET, 2, {"a": 3})]


def measures(monkeypatch, mine, theirs, original, first, injection=None):
    """Of M_FT and M_R, from the losses after each epoch and the predictions before."""
    monkeypatch.setattr(relearn, "relearn_losses",
                        lambda *_: [np.array(mine, float), np.array(theirs, float)])
    found = relearn.relearn_measures(study(injection), STAGES, [outcome(*original), outcome(*first),
                                                                outcome(*first)])
    assert found[0] == {}
    return found[1:]


KNOWS = ([10, 0, 40], [10, 0, 40])    # M_O's predictions: right where it was trained, wrong at 2
OTHER = ([20, 30, 50], [20, 30, 50])


def test_the_loss_is_that_of_training_samples(monkeypatch):
    # M_O's loss on them is 0. With the validation sample it would be 10, and all within reach.
    ft, _ = measures(monkeypatch, [[9, 0, 0], [9, 9, 0]], [[9, 9, 0], [9, 9, 0]], KNOWS, OTHER)
    np.testing.assert_array_equal(ft["relearn_epochs"], [2, 3])
    np.testing.assert_allclose(ft["ain"], [2 / 3, 1])


def test_the_loss_is_by_the_labels_that_were_trained(monkeypatch):
    swapped = ([40, 0, 10], [40, 0, 10])  # M_O has learnt the exchanged labels by heart
    ft, _ = measures(monkeypatch, [[9, 0], [9, 0]], [[9, 0], [9, 0]], swapped, OTHER, EXCHANGED)
    # By true labels M_O's loss would be 30, and nothing was to be relearned.
    np.testing.assert_array_equal(ft["relearn_epochs"], [2, 2])


def test_what_did_not_come_down_is_counted_and_bounded(monkeypatch):
    ft, retrained = measures(monkeypatch, [[9, 0, 0], [9, 9, 9]], [[9, 9, 0], [9, 9, 0]], KNOWS,
                             OTHER)
    np.testing.assert_array_equal(ft["relearn_epochs"], [2, np.inf])
    np.testing.assert_array_equal(ft["relearn_censored"], [0, 1])
    np.testing.assert_allclose(ft["ain_low"], [2 / 3, 4 / 3])
    np.testing.assert_allclose(ft["ain_high"], [2 / 3, np.inf])
    assert "ain" not in ft, "the mean of those that are known is that of the fast ones"
    assert set(retrained) == {"relearn_epochs", "relearn_censored"}


def test_where_the_retrained_has_nothing_to_relearn_the_index_says_nothing(monkeypatch):
    ft, _ = measures(monkeypatch, [[0, 0], [0, 0]], [[0, 0], [0, 0]], KNOWS, KNOWS)
    np.testing.assert_array_equal(ft["relearn_epochs"], [0, 0])
    np.testing.assert_array_equal((ft["ain_low"], ft["ain_high"]), ([0, 0], [np.inf, np.inf]))
    assert "ain" not in ft


def test_a_failed_member_is_nan_and_hides_no_other(monkeypatch):
    nan = np.nan
    ft, _ = measures(monkeypatch, [[nan, nan, nan], [9, 9, 0]], [[9, 9, 0], [9, 9, 0]], KNOWS,
                     ([nan, nan, nan], [20, 30, 50]))
    for name in ("relearn_epochs", "relearn_censored", "ain", "ain_low", "ain_high"):
        assert np.isnan(ft[name][0]) and np.isfinite(ft[name][1]), name


def test_what_the_store_lacks_is_trained_together_and_once(monkeypatch, tmp_path):
    made = study()
    made.store = Store(tmp_path)
    made.splits.forget_rows = lambda forget_set: Rows(np.array([0, 3, 0]), np.array([0, 0, 1]))
    recorded = []
    made.run = types.SimpleNamespace(record_stage=lambda *args: recorded.append(args))
    made.config = types.SimpleNamespace(
        eval=types.SimpleNamespace(relearn_epochs=4, relearn_rate=0.1),
        train=types.SimpleNamespace(optimizer="adam", batch_size=2))
    monkeypatch.setattr(relearn, "forget_parts", lambda *_: {"name": "f"})
    trained = []

    def population(study, models, missing, forget_set):
        return types.SimpleNamespace(
            recipe=types.SimpleNamespace(name="relearn", epochs=4),
            models={s.key: models[s.parts["model"]] for s in missing})

    def train(stages, population):
        trained.append({m.key for m in population.models.values()})
        for stage in stages:
            with made.store.write(stage.method, stage.key, stage.parts) as directory:
                (directory / "losses.json").write_text(
                    f"[[{population.models[stage.key].parts['a']}]]")
            relearn._record(made, stage, "computed", 6.0 / len(stages))

    monkeypatch.setattr(relearn, "_population", population)
    monkeypatch.setattr(populations, "_train", train)
    assert relearn.relearn_losses(made, STAGES[2:], FORGET) == [[[3]]]
    assert relearn.relearn_losses(made, STAGES, FORGET) == [[[1]], [[2]], [[3]]]
    assert trained == [{STAGES[2].key}, {s.key for s in STAGES[:2]}]
    keys = [relearn.relearn_stage(made, s, FORGET).key for s in STAGES]
    # two seeds, four epochs, two samples and a copy
    assert recorded[0] == ("relearn", "f", keys[2], "computed", 6.0, 24, 2, 4)
    assert {(key, status, seconds) for _, _, key, status, seconds, *_ in recorded[1:]} == {
        (keys[0], "computed", 3.0), (keys[1], "computed", 3.0), (keys[2], "reused", 0.0)}

    def asked():
        interrupt.leave()

    monkeypatch.setattr(interrupt, "leave_if_requested", asked)
    relearn.relearn_losses(made, STAGES, FORGET)  # nothing to do, nothing to leave
    with pytest.raises(interrupt.Interrupted):
        relearn.relearn_losses(made, [Stage("ft", FORGET, 2, {"a": 4})], FORGET)


def test_a_run_notes_its_relearning_and_its_numbers_lead_there(tmp_path):
    directory = run_study(config(explain_samples=0, relearn_epochs=2), tmp_path, "ft")
    record = json.loads((directory / "run.json").read_text())
    found = {s["key"]: s for s in record["stages"] if s["stage"] == "relearn"}
    assert len(found) == 2 and "relearn" in record["compile_seconds"]
    for entry in found.values():
        assert (entry["status"], entry["members"], entry["epochs"]) == ("computed", 2, 2)
        assert entry["seconds"] > 0 and entry["images"] > 0
    rows = [r for r in table(directory / "results.csv") if r["method"] != "median"]
    assert {r["stage"] for r in rows if r["metric"] in relearn.MEASURES} == set(found)
    assert not {r["stage"] for r in rows if r["metric"] not in relearn.MEASURES} & set(found)
