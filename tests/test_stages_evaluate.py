"""What the audits of a study are given, and which members count."""

import dataclasses
import types

import numpy as np
import pytest
from test_splits import dataset

from unlearn_jax import audits
from unlearn_jax.config import default_config
from unlearn_jax.data.splits import ForgetSet, make_splits
from unlearn_jax.results import Targets, result_rows
from unlearn_jax.stages import evaluate
from unlearn_jax.stages.graph import RunContext, Stage
from unlearn_jax.storage.store import Store, stage_key

AGES = np.tile(np.arange(20, 30), 10)


def audited(monkeypatch, request, inject=""):
    """The study, its only forget set and the audit that is made of them."""
    data = dataset(AGES)
    cfg = types.SimpleNamespace(seed=0, balance=0, split=(0.6, 0.2, 0.2), inject=inject)
    splits = make_splits(data, cfg, types.SimpleNamespace(sets=(request,)))
    forget_set = splits.forget_sets[0]
    stamped = np.zeros(0, np.int32)
    if splits.injection:
        _, stamped = splits.injection.training_view(data, splits.test)
    study = types.SimpleNamespace(
        splits=splits, dataset=data, stamped=stamped, run=None,
        config=types.SimpleNamespace(eval=default_config().eval, data=default_config().data))
    study.trained_labels = RunContext.trained_labels.fget(study)
    rows = {"forget": splits.forget(forget_set), "test": splits.test, "stamped": splits.test}
    targets = Targets({name: data.labels[r] for name, r in rows.items()}, {})
    given = []
    monkeypatch.setattr(audits, "audit_rows", lambda audit, names: given.append(audit) or ([], []))
    assert evaluate._audit(study, None, None, targets, forget_set) == ([], [])
    return study, forget_set, given[0], rows


def test_members_are_training_samples_and_others_test_samples_of_their_kind(monkeypatch):
    study, forget_set, audit, rows = audited(monkeypatch, "22-24")
    assert len(forget_set.validation), "or there is nothing to leave out"
    np.testing.assert_array_equal(rows["forget"][audit.members.places], forget_set.train)
    np.testing.assert_array_equal(audit.members.labels, study.dataset.labels[forget_set.train])
    assert (audit.members.split, audit.others.split) == ("forget", "test")
    others = rows["test"][audit.others.places]
    np.testing.assert_array_equal(audit.others.labels, study.dataset.labels[others])
    assert set(audit.others.labels) <= {22, 23, 24} and len(audit.others.labels)
    assert dataclasses.asdict(audit.forget)["places"].tolist() == list(range(len(rows["forget"])))


@pytest.mark.parametrize("inject, split", [
    ("confusion:20-21:28-29:8", "test"), ("patch:20-22:6", "stamped")])
def test_of_an_injection_both_are_as_trained(monkeypatch, inject, split):
    study, forget_set, audit, rows = audited(monkeypatch, "injected", inject)
    injection = study.splits.injection
    np.testing.assert_array_equal(audit.members.labels, injection.labels)
    assert audit.others.split == split
    true = study.dataset.labels[rows[split][audit.others.places]]
    assert len(true) and all(any(g.holds(x) for g in injection.groups) for x in true)
    exchanged = injection.kind == "confusion"
    assert ((true != audit.others.labels).all() if exchanged else
            (true == audit.others.labels).all())
    np.testing.assert_array_equal((true <= 22) != exchanged, audit.others.labels <= 22)


HUGE = 3e38


def tree(largest):
    """Variables of three members, finite."""
    return {"params": {"output": {"kernel": np.array([[1.0], [largest], [2.0]], np.float32)}},
            "batch_stats": {"norm": {"var": np.ones((3, 1), np.float32)}}}


def predicted(tmp_path, outputs):
    """What `_outcome` makes of stored predictions of a member that training failed, and others."""
    data, warnings = dataset(AGES), []
    rows = {name: np.arange(values.shape[1]) for name, values in outputs.items()}
    study = types.SimpleNamespace(
        seeds=(0, 1, 2), dataset=data, store=Store(tmp_path), model=None,
        run=types.SimpleNamespace(warn=warnings.append, record_stage=lambda *a: None))
    forget_set = ForgetSet("20-22", "20-22", np.arange(3), np.zeros(0, np.int32))
    stage = Stage("ft", forget_set, 2, {"some": "models"})
    parts = evaluate._predictions_parts(study, stage, forget_set)
    with study.store.write("predictions", stage_key("predictions", parts), parts) as directory:
        for name, values in outputs.items():
            np.save(directory / f"{name}.npy", values)
    costs = {name: np.ones(3) for name in ("images", "seconds", "epochs_trained", "flops", "step")}
    models = evaluate.Models(stage, "20-22", lambda: tree(HUGE),
                             {**costs, "failed": np.array([False, False, True])})
    return evaluate._outcome(study, None, models, forget_set, rows), warnings


@pytest.mark.parametrize("value", [np.inf, np.nan, HUGE])
def test_a_member_of_finite_weights_and_infinite_outputs_is_named_and_left_out(tmp_path, value):
    outputs = {"test": np.full((3, 4), 30, np.float32), "forget": np.full((3, 3), 21, np.float32)}
    outputs["test"][2], outputs["forget"][2] = np.nan, np.nan
    outputs["test"][1, 2:] = value
    outcome, warnings = predicted(tmp_path, outputs)
    assert outcome.failed.tolist() == [False, True, True]
    for values in outcome.outputs.values():
        assert np.isfinite(values[0]).all() and np.isnan(values[1:]).all()
    (first, second), where = warnings, "params/output/kernel"
    assert "seed 2 failed (a loss or parameter was not finite)" in first
    assert "seed 1 has finite weights" in second and "2 of 4 test samples" in second
    assert "forget samples" not in second and f"3e+38, in {where}" in second
    targets = Targets({"test": np.full(4, 33.0, np.float32), "forget": np.full(3, 20.0)}, {})
    reference = dataclasses.replace(outcome, method="retrain", failed=np.zeros(3, bool), outputs={
        "test": np.full((3, 4), 31, np.float32), "forget": np.full((3, 3), 24, np.float32)})
    found = result_rows([outcome], reference, targets, 30.0, default_config().eval, False)
    own = {(r["metric"], r["seed"]): r["value"] for r in found if r["method"] == "ft"}
    assert own["mae_test", 0] == 3 and own["averaged:mae_test", -1] == 3
    assert all(np.isnan(own[name, 1]) for name in (
        "mae_test", "mae_forget", "utility", "forgetting@15", "F@15", "images"))


def test_large_outputs_that_can_be_averaged_are_numbers(tmp_path):
    outcome, warnings = predicted(tmp_path, {"test": np.full((3, 4), 1e30, np.float32)})
    assert outcome.failed.tolist() == [False, False, True] and len(warnings) == 1
