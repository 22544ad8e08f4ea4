"""Audits of simulated populations: M_O remembers D_f, M_R does not, and what is asked tells."""

import dataclasses

import numpy as np
import pytest

from unlearn_jax import audits, config
from unlearn_jax.data.inject import InjectedGroup, Injection
from unlearn_jax.metrics import likelihood_ratio
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
    return Outcome(method=method, forget_set="20-28", epochs=2, stage=f"key-{method}",
                   seeds=tuple(range(MODELS)), outputs=outputs, images=np.full(MODELS, 100),
                   seconds=seconds, epochs_trained=np.full(MODELS, 2), failed=bad,
                   flops=np.full(MODELS, 1e9), steps=np.full(MODELS, 10))


def audit(judged, reference, labels=LABELS, injection=None, members=None):
    cfg = config.default_config().eval
    members = np.arange(SAMPLES) if members is None else members
    return audits.Audit(
        outcome=judged, reference=reference, targets=Targets(labels, NAMES),
        members=audits.AuditedSamples("forget", members, labels["forget"][members]),
        others=audits.AuditedSamples("test", np.arange(SAMPLES), labels["test"]),
        classification=labels["test"].dtype == np.int32, config=cfg, injection=injection)


def some(o, count):
    """The first models of an outcome."""
    return dataclasses.replace(o, seeds=o.seeds[:count], failed=o.failed[:count],
                               seconds=o.seconds[:count],
                               outputs={k: v[:count] for k, v in o.outputs.items()})


def audit_rows(made, names):
    """Rows, and in words why there are no more."""
    rows, refused = audits.audit_rows(made, names)
    return rows, audits.refusals_in_words(refused)


def values(made, *names):
    rows, refused = audit_rows(made, names)
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
    # Sixty test samples: one of them is more than 1 %.
    assert not [name for name in original if "tpr" in name]


@TASKS
def test_attacks_look_at_no_validation_sample_of_the_forget_set(labels):
    reference, judged = outcome("retrain", 0, 1, labels), outcome("original", 1, 2, labels)
    members = np.arange(0, SAMPLES, 2)
    outputs = {**judged.outputs, "forget": judged.outputs["forget"].copy()}
    outputs["forget"][:, 1::2] = -100.0
    changed = dataclasses.replace(judged, outputs=outputs)
    for name, kept in (("mia", 2), ("lira", MODELS), ("challenge", MODELS)):
        found, again = (values(audit(some(o, kept), some(reference, kept), labels,
                                     members=members), name) for o in (judged, changed))
        assert found and found == again
    distances = [values(audit(o, reference, labels, members=members), "distances")
                 for o in (judged, changed)]
    assert distances[0]["population:w1"] != distances[1]["population:w1"], "these are of all D_f"


def test_attacks_judge_by_the_labels_that_were_trained_on():
    # M_O has learnt exchanged labels by heart: its losses by these are small.
    judged, reference = some(outcome("original", 1, 2), 2), outcome("retrain", 0, 1)
    made = audit(judged, reference)
    exchanged = LABELS["forget"][::-1].copy()
    outputs = {**judged.outputs, "forget": judged.outputs["forget"][:, ::-1]}
    made = dataclasses.replace(made, outcome=dataclasses.replace(judged, outputs=outputs),
                               members=audits.AuditedSamples("forget", np.arange(SAMPLES),
                                                             exchanged))
    assert np.mean(list(values(made, "mia")["mia_auc"].values())) > 0.8


def test_a_forget_set_with_few_training_samples_is_not_attacked():
    reference = outcome("retrain", 0, 1)
    rows, refused = audit_rows(audit(reference, reference, members=np.arange(4)), ("mia",))
    assert not rows and len(refused) == 1
    assert "there are 4 members (samples that were trained on)" in refused[0]


def populations(count, seed, twins=0.0, samples=60):
    """Outcomes of M_R and of models that are no different, but alike where the seed is the same."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, 8, (2, count, samples))
    drawn[1] = twins * drawn[0] + np.sqrt(1 - twins**2) * drawn[1]
    made = []
    for method, own in zip(("retrain", "ft"), drawn.astype(np.float32)):
        made.append(dataclasses.replace(outcome(method, 0), outputs={"forget": own},
                                        seeds=tuple(range(count)), failed=np.zeros(count, bool)))
    return made


@pytest.mark.parametrize("twins", [0.0, 0.7])
def test_what_retraining_reaches_is_what_no_difference_reaches(twins):
    found = {"retrain": [], "ft": []}
    for seed in range(4):
        reference, same = populations(8, seed, twins)
        for o in (reference, same):
            rows = values(audit(o, reference), "lira", "distances")
            found[o.method].append([rows[f"population:{name}"][-1] for name in (
                "lira_accuracy", "lira_accuracy_worst", "w1", "js", "klom")])
    null, same = (np.mean(found[name], axis=0) for name in ("retrain", "ft"))
    assert abs(same[0] - 0.5) < 0.025 and abs(null[0] - 0.5) < 0.025
    assert null[1] > 0.8, "a maximum of many noisy values"
    np.testing.assert_allclose(same[1:], null[1:], rtol=0.06)


def test_too_few_seeds_are_refused_and_what_needs_fewer_is_kept():
    reference, same = populations(7, 0)
    rows, refused = audit_rows(audit(same, reference), ("lira", "distances"))
    assert len(refused) == 1
    assert "takes 8 seeds without a failed member, and there are 7" in refused[0]
    assert {r["metric"] for r in rows} == {"w1_forget", "population:w1", "population:js",
                                           "population:klom"}
    reference, same = populations(3, 0)
    rows, refused = audit_rows(audit(same, reference), ("distances",))
    assert {r["metric"] for r in rows} == {"w1_forget"} and "takes 4 seeds" in refused[0]


def test_one_reason_for_many_models_is_said_once():
    reference, judged = (some(outcome(m, 0, 1), 3) for m in ("retrain", "ft"))
    later = dataclasses.replace(judged, epochs=4, forget_set="28-36")
    refused = [r for o in (judged, later, reference)
               for r in audits.audit_rows(audit(o, reference), ("lira", "challenge"))[1]]
    lira, challenge = audits.refusals_in_words(refused)
    assert lira.startswith("audit lira of 3 populations (ft, retrain; on 20-28, 28-36): half of")
    assert challenge.startswith("audit challenge of retrain at 2 epochs on 20-28: half of")


def test_the_perfect_quality_needs_no_halves():
    reference = some(outcome("retrain", 0, 1), 3)
    rows, refused = audit_rows(audit(reference, reference), ("challenge",))
    assert [r["metric"] for r in rows] == ["population:challenge_quality_perfect"]
    assert "half of 3 is 1" in refused[0]


def test_a_bug_is_no_refusal(monkeypatch):
    def broken(*_):
        raise ValueError("shapes (3,) and (4,)")

    monkeypatch.setattr(likelihood_ratio, "u_lira_leave_pair_out", broken)
    reference = outcome("retrain", 0, 1)
    with pytest.raises(ValueError, match="shapes"):
        audit_rows(audit(reference, reference), ("lira",))


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
    assert one["population:w1"] > 1.15 * other["population:w1"]
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
    (LABELS, (InjectedGroup(20, 28), InjectedGroup(50, 60))),
    (CLASS_LABELS, (InjectedGroup(0, 0), InjectedGroup(1, 1)))],
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


def test_what_was_taught_both_labels_is_nearer_to_the_wrong_group():
    injection = Injection("confusion", (InjectedGroup(20, 26), InjectedGroup(50, 60)),
                          np.zeros(0, np.int32), np.zeros(0))
    reference = outcome("retrain", 0, 1)
    taught = {split: np.tile(np.where(labels < 38, 45, 36).astype(np.float32), (MODELS, 1))
              for split, labels in LABELS.items()}  # between the groups, on the wrong side
    original = dataclasses.replace(outcome("original", 1), outputs=taught)
    found, null = (values(audit(o, reference, injection=injection), "confusion")
                   for o in (original, reference))
    assert set(found["confusion_test"].values()) == {0.0}
    assert set(found["confusion_nearer_test"].values()) == {1.0}
    assert max(null["confusion_nearer_test"].values()) < 0.2


@TASKS
def test_the_effect_of_a_patch(labels):
    classes = labels is CLASS_LABELS
    injection = Injection("patch", (InjectedGroup(0, 0) if classes else InjectedGroup(50, 60),),
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
    rows, refused = audit_rows(audit(reference, reference), ("confusion", "injection"))
    assert not rows and len(refused) == 2
    assert refused[0].startswith("audit confusion of retrain at 2 epochs on 20-28: it needs "
                                 "config.data.inject='confusion:A:B:N'")
