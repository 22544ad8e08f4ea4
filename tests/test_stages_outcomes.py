"""Which samples, with which labels, the audits of a study are given."""

import dataclasses
import types

import numpy as np
import pytest
from test_splits import dataset

from unlearn_jax import audits
from unlearn_jax.config import default_config
from unlearn_jax.results import Targets
from unlearn_jax.splits import make_splits
from unlearn_jax.stages import outcomes
from unlearn_jax.stages.graph import Study

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
        config=types.SimpleNamespace(eval=default_config().eval))
    study.trained_labels = Study.trained_labels.fget(study)
    rows = {"forget": splits.forget(forget_set), "test": splits.test, "stamped": splits.test}
    targets = Targets({name: data.labels[r] for name, r in rows.items()}, {})
    given = []
    monkeypatch.setattr(audits, "audit_rows", lambda audit, names: given.append(audit) or ([], []))
    assert outcomes._audit(study, None, None, targets, forget_set) == ([], [])
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
