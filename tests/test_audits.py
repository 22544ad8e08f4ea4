"""Audits of simulated populations: M_O remembers D_f, M_R does not, and what is asked tells."""

import dataclasses

import numpy as np
import pytest

from unlearn_jax import audits, config
from unlearn_jax.data.inject import Group, Injection
from unlearn_jax.results import Outcome, Targets

MODELS, SAMPLES, CLASSES = 12, 60, 4
RNG = np.random.default_rng(0)
LABELS = {split: RNG.integers(20, 61, SAMPLES).astype(np.float32)
          for split in ("test", "forget", "retain", "stamped")}
CLASS_LABELS = {split: RNG.integers(0, CLASSES, SAMPLES).astype(np.int32) for split in LABELS}
NAMES = {split: np.array([f"{split}-{i}" for i in range(SAMPLES)]) for split in LABELS}


def outcome(method, known, seed=0, labels=LABELS, patch=0.0, failed=()):
    """`known`: how well the forget set is known, 1 like M_O and 0 like M_R."""
    rng = np.random.default_rng(seed)
    outputs = {}
    for split, truth in labels.items():
        if truth.dtype == np.int32:
            logits = rng.normal(0, 1, (MODELS, SAMPLES, CLASSES))
            strength = {"forget": 1 + 4 * known, "retain": 5}.get(split, 1)
            logits += strength * np.eye(CLASSES)[truth][None]
            if split == "stamped":
                logits[..., 0] += patch
            outputs[split] = logits.astype(np.float32)
        else:
            noise = {"forget": 8 - 7 * known, "retain": 1}.get(split, 8)
            shift = patch if split == "stamped" else 0
            drawn = truth + shift + rng.normal(0, noise, (MODELS, SAMPLES))
            outputs[split] = drawn.astype(np.float32)
    for m in failed:
        for array in outputs.values():
            array[m] = np.nan
    seconds = np.full(MODELS, 10.0 if method == "retrain" else 1.0)
    bad = np.isin(np.arange(MODELS), failed)
    return Outcome(method, "20-28", 2, f"key-{method}", tuple(range(MODELS)), outputs,
                   np.full(MODELS, 100), seconds, np.full(MODELS, 2), bad, np.full(MODELS, 1e9))


def audit(judged, reference, labels=LABELS, injection=None):
    cfg = config.default_config().eval
    return audits.Audit(judged, reference, Targets(labels, NAMES), np.arange(SAMPLES),
                        labels["test"].dtype == np.int32, cfg, injection)


def values(made, *names):
    rows, refused = audits.audit_rows(made, names)
    assert not refused
    found = {}
    for row in rows:
        found.setdefault(row["metric"], {})[row["seed"]] = row["value"]
    return found


TASKS = pytest.mark.parametrize("labels", [LABELS, CLASS_LABELS], ids=["regression", "classes"])


@TASKS
def test_the_original_fails_and_the_retrained_passes_membership_inference(labels):
    reference = outcome("retrain", 0, 1, labels)
    original = values(audit(outcome("original", 1, 2, labels), reference, labels), "mia")
    retrained = values(audit(reference, reference, labels), "mia")
    assert set(original["mia_auc"]) == set(range(MODELS))
    assert np.mean(list(original["mia_auc"].values())) > 0.8
    assert abs(np.mean(list(retrained["mia_auc"].values())) - 0.5) < 0.05
    assert np.mean(list(original["mia_logistic_accuracy"].values())) > 0.7
    assert {"mia_tpr@0.01", "mia_tpr@0.001"} <= original.keys()


@TASKS
def test_populations_are_told_apart_where_one_remembers(labels):
    reference = outcome("retrain", 0, 1, labels)
    names = ("lira", "challenge", "distances")
    original = values(audit(outcome("original", 1, 2, labels), reference, labels), *names)
    perfect = values(audit(outcome("ft", 0, 3, labels), reference, labels), *names)
    retrained = values(audit(reference, reference, labels), *names)
    one = {name: found[-1] for name, found in original.items() if -1 in found}
    other = {name: found[-1] for name, found in perfect.items() if -1 in found}
    assert one["population:lira_accuracy"] > 0.7 > 0.6 > other["population:lira_accuracy"]
    assert one["population:challenge_quality"] < other["population:challenge_quality"]
    assert other["population:challenge_quality_low"] < other["population:challenge_quality"]
    assert one["population:w1"] > 1.5 * other["population:w1"]
    assert one["population:js"] > other["population:js"]
    assert other["population:challenge_accepted"] == 1
    ceiling = retrained["population:challenge_quality_perfect"][-1]
    assert 0 < ceiling and "population:challenge_quality" not in retrained
    assert np.mean(list(original["w1_forget"].values())) > np.mean(
        list(retrained["w1_forget"].values()))


def test_unlearning_that_takes_too_long_scores_nothing():
    reference = outcome("retrain", 0, 1)
    slow = dataclasses.replace(outcome("ft", 0, 3), seconds=np.full(MODELS, 2.5))
    found = values(audit(slow, reference), "challenge")
    for name in ("score", "accepted"):
        assert found[f"population:challenge_{name}"][-1] == 0
    assert found["population:challenge_quality"][-1] > 0


def test_failed_members_are_left_out_of_populations():
    reference = outcome("retrain", 0, 1, failed=(3,))
    found = values(audit(outcome("ft", 0, 3, failed=(5,)), reference), "challenge", "lira",
                   "distances", "mia")
    assert all(np.isfinite(v[-1]) for k, v in found.items() if k.startswith("population:"))
    assert np.isnan(found["mia_auc"][5]) and np.isfinite(found["mia_auc"][3])


@pytest.mark.parametrize("labels, groups", [
    (LABELS, (Group(20, 28), Group(50, 60))), (CLASS_LABELS, (Group(0, 0), Group(1, 1)))],
    ids=["regression", "classes"])
def test_confusion_is_the_share_of_the_two_groups_taken_for_each_other(labels, groups):
    reference = outcome("retrain", 0, 1, labels)
    a, b = groups
    injection = Injection("confusion", groups, np.zeros(0, np.int32), np.zeros(0))
    made = audit(reference, reference, labels, injection)
    truth = labels["test"]
    asked = a.holds(truth) | b.holds(truth)
    for m in (0, 7):
        out = reference.outputs["test"][m]
        said = np.round(out) if out.ndim == 1 else out.argmax(-1)
        wrong = (a.holds(truth) & b.holds(said)) | (b.holds(truth) & a.holds(said))
        assert values(made, "confusion")["confusion_test"][m] == pytest.approx(
            wrong.sum() / asked.sum())


@TASKS
def test_the_effect_of_a_patch(labels):
    classes = labels is CLASS_LABELS
    injection = Injection("patch", (Group(0, 0) if classes else Group(50, 60),),
                          np.zeros(0, np.int32), np.zeros(0))
    labels = {**labels, "stamped": labels["test"]}
    reference = outcome("retrain", 0, 1, labels)
    original = outcome("original", 1, 2, labels, patch=5.0)
    moved, still = (values(audit(o, reference, labels, injection), "injection")["injection_effect"]
                    for o in (original, reference))
    assert abs(np.mean(list(still.values()))) < 0.7
    assert 3.5 < np.mean(list(moved.values())) < 6.5


def test_what_cannot_be_audited_is_said_and_gives_no_rows():
    reference = outcome("retrain", 0, 1)
    rows, refused = audits.audit_rows(audit(reference, reference), ("confusion", "injection"))
    assert not rows and len(refused) == 2
    assert refused[0].startswith("audit confusion of retrain at 2 epochs on 20-28: it needs "
                                 "config.data.inject='confusion:A:B:N'")


def test_the_configs_names_are_those_of_the_audits():
    assert set(config.AUDITS) == set(audits.AUDITS)
