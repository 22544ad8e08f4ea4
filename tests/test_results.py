import dataclasses

import numpy as np
import pytest

from unlearn_jax.config import default_config
from unlearn_jax.report.tables import inputs
from unlearn_jax.results import (
    COLUMNS,
    SHORT,
    Outcome,
    Targets,
    result_rows,
    save_predictions,
    uncounted,
)

LABELS = {"test": np.array([20.0, 30.0, 40.0], np.float32), "forget": np.array([22.0, 24.0],
                                                                              np.float32)}
TARGETS = Targets(LABELS, {k: np.array([f"{k}-{i}" for i in range(len(v))])
                           for k, v in LABELS.items()})


def outcome(method, test, forget, **changes):
    base = Outcome(
        method=method, forget_set="20-28", epochs=2, stage=f"key-{method}", seeds=(7, 8),
        outputs={"test": np.array(test, np.float32), "forget": np.array(forget, np.float32)},
        images=np.array([100, 100]), seconds=np.array([2.0, 4.0]), epochs_trained=np.array([2, 2]),
        failed=np.array([False, False]), flops=np.array([1e9, 2e9]), steps=np.array([10, 20]))
    return dataclasses.replace(base, **changes)


REFERENCE = outcome("retrain", [[22, 32, 42], [21, 31, 41]], [[30, 32], [29, 31]],
                    images=np.array([1000, 500]), seconds=np.array([20.0, 20.0]),
                    flops=np.array([4e9, 4e9]), steps=np.array([40, 80]))
TUNED = outcome("ft", [[21, 31, 41], [22, 32, 42]], [[24, 26], [29, 31]])


def rows_of(outcomes=(TUNED,), reference=REFERENCE, targets=TARGETS, baseline=30.0,
            classification=False, **changes):
    cfg = default_config().eval
    with cfg.unlocked():
        cfg.update(changes)
    return result_rows(outcomes, reference, targets, baseline, cfg, classification)


def value(rows, method, metric, seed):
    found = [r["value"] for r in rows
             if (r["method"], r["metric"], r["seed"]) == (method, metric, seed)]
    assert len(found) == 1, (method, metric, seed, found)
    return found[0]


def test_every_value_by_hand():
    rows = rows_of(alphas=(2.0, 15.0), within=(1.5,))
    assert all(tuple(r) == COLUMNS for r in rows)
    assert value(rows, "ft", "mae_test", 7) == pytest.approx(1)
    assert value(rows, "retrain", "mae_test", 7) == pytest.approx(2)
    assert value(rows, "ft", "utility", 7) == pytest.approx(2)
    assert value(rows, "ft", "utility", 8) == pytest.approx(0.5)
    assert value(rows, "ft", "mae_forget", 7) == pytest.approx(2)
    # errors on the forget set: M_R 8 and 8, M_FT 2 and 2
    assert value(rows, "ft", "forgetting@15", 7) == pytest.approx(np.exp(-6 / 15))
    assert value(rows, "ft", "forgetting@2", 7) == pytest.approx(np.exp(-3))
    assert value(rows, "ft", "F@15", 7) == pytest.approx(2 * np.exp(-6 / 15))
    assert value(rows, "ft", "forgetting@15", 8) == pytest.approx(1)
    # M_R of seed 7 against that of seed 8: 8 against 7 years
    assert value(rows, "retrain", "ceiling@15", 7) == pytest.approx(np.exp(-1 / 15))
    assert value(rows, "ft", "accuracy_test@1.5", 7) == 1
    assert value(rows, "ft", "accuracy_test@1.5", 8) == 0
    assert value(rows, "ft", "images_vs_retrain", 7) == pytest.approx(0.1)
    assert value(rows, "ft", "wall_vs_retrain", 8) == pytest.approx(0.2)
    assert value(rows, "ft", "wall_seconds", 8) == 4
    assert value(rows, "ft", "flops_vs_retrain", 7) == pytest.approx(0.25)
    assert value(rows, "ft", "steps", 8) == 20
    assert value(rows, "ft", "steps_vs_retrain", 8) == pytest.approx(0.25)
    assert value(rows, "median", "mae_test", 7) == pytest.approx(20 / 3)
    assert [r["stage"] for r in rows if r["method"] == "ft"][0] == "key-ft"


def test_who_was_not_counted_is_named_but_not_who_failed():
    none = np.zeros(2)
    assert uncounted(rows_of()) == []
    assert uncounted(rows_of((dataclasses.replace(TUNED, flops=none),))) == ["ft"]
    failed = np.array([True, True])
    assert uncounted(rows_of((dataclasses.replace(TUNED, failed=failed),))) == []


def test_operations_that_were_never_counted_are_no_zero():
    none = np.zeros(2)
    rows = rows_of((dataclasses.replace(TUNED, flops=none),))
    assert np.isnan(value(rows, "ft", "flops", 7))
    assert np.isnan(value(rows, "ft", "flops_vs_retrain", 7))
    idle = dataclasses.replace(TUNED, flops=none, images=np.zeros(2, int))
    assert value(rows_of((idle,)), "ft", "flops_vs_retrain", 7) == 0


def test_forgetting_across_seeds_by_hand():
    rows = rows_of(alphas=(15.0,))
    # errors: M_R 8 (seed 7) and 7 (seed 8), M_FT 2 and 7: the pairs are 2 with 7 and 7 with 8
    expected = (np.exp(-5 / 15) + np.exp(-1 / 15)) / 2
    for seed in (7, 8):
        assert value(rows, "ft", "forgetting_across@15", seed) == pytest.approx(expected)
    assert not [r for r in rows if (r["method"], r["metric"]) == ("retrain", "forgetting_across@15")
                or r["metric"].startswith("averaged:forgetting_across")]


def test_what_started_from_one_original_is_not_held_against_that_seeds_reference():
    rows = rows_of([dataclasses.replace(TUNED, from_seed=7)], alphas=(15.0,))
    for seed in (7, 8):  # the one pair left: M_FT of seed 7 with M_R of seed 8
        assert value(rows, "ft", "forgetting_across@15", seed) == pytest.approx(np.exp(-5 / 15))
    rows = rows_of([dataclasses.replace(TUNED, from_seed=8)], alphas=(15.0,))
    assert value(rows, "ft", "forgetting_across@15", 7) == pytest.approx(np.exp(-1 / 15))


def test_averaged_predictions():
    rows = rows_of()
    # seeds average to 21.5, 31.5, 41.5 on test for both: utility 1
    assert value(rows, "ft", "averaged:mae_test", -1) == pytest.approx(1.5)
    assert value(rows, "ft", "averaged:utility", -1) == pytest.approx(1)
    # forget: M_R 29.5, 31.5 (error 7.5), M_FT 26.5, 28.5 (error 4.5)
    assert value(rows, "ft", "averaged:forgetting@15", -1) == pytest.approx(np.exp(-3 / 15))
    assert not [r for r in rows if r["metric"].startswith("averaged:wall")]


def test_the_reference_has_no_forgetting_and_the_original_no_relative_cost():
    rows = rows_of((outcome("original", TUNED.outputs["test"], TUNED.outputs["forget"]),))
    metrics = {m: {r["metric"] for r in rows if r["method"] == m} for m in ("retrain", "original")}
    assert not any(m.startswith(("forgetting", "F@")) for m in metrics["retrain"])
    assert "images_vs_retrain" not in metrics["original"]
    assert "forgetting@15" in metrics["original"]


def test_one_seed_has_no_ceiling():
    def first(o):
        return dataclasses.replace(o, seeds=o.seeds[:1], images=o.images[:1],
                                   seconds=o.seconds[:1], epochs_trained=o.epochs_trained[:1],
                                   failed=o.failed[:1], flops=o.flops[:1],
                                   steps=o.steps[:1],
                                   outputs={k: v[:1] for k, v in o.outputs.items()})

    rows = rows_of((first(TUNED),), first(REFERENCE))
    assert not [r for r in rows if r["metric"].startswith(("ceiling", "forgetting_across"))]
    assert value(rows, "ft", "utility", 7) == pytest.approx(2)


def test_a_failed_member_is_nan_and_alone():
    failed = outcome("ft", [[21, 31, 41], [np.nan] * 3], [[24, 26], [np.nan] * 2])
    rows = rows_of((failed,))
    assert np.isnan(value(rows, "ft", "mae_test", 8))
    assert np.isnan(value(rows, "ft", "forgetting@15", 8))
    assert value(rows, "ft", "mae_test", 7) == pytest.approx(1)
    assert value(rows, "ft", "averaged:mae_test", -1) == pytest.approx(1)


def test_classification_values():
    labels = {"test": np.array([0, 1], np.int32), "forget": np.array([1], np.int32)}
    targets = Targets(labels, {k: np.array([str(i) for i in range(len(v))])
                               for k, v in labels.items()})
    sure, half = np.log(0.75), np.log(0.25)  # two classes: probabilities 0.75 and 0.25
    right = [[sure, half], [half, sure]]
    reference = outcome("retrain", [right, right], [[[sure, half]], [[sure, half]]])
    tuned = outcome("ft", [right, [[sure, half], [sure, half]]], [[[half, sure]], [[sure, half]]])
    rows = rows_of((tuned,), reference, targets, 0, True, alphas=(0.5,))
    assert value(rows, "ft", "accuracy_test", 7) == 1
    assert value(rows, "ft", "utility", 8) == pytest.approx(0.5)
    assert value(rows, "ft", "error_forget", 7) == pytest.approx(0.25)
    # 1 - p: 0.75 for M_R, 0.25 for M_FT
    assert value(rows, "ft", "forgetting@0.5", 7) == pytest.approx(np.exp(-1))
    assert value(rows, "median", "accuracy_test", 7) == 0.5
    # probabilities are averaged, not logits: 0.5 each
    assert value(rows, "ft", "averaged:error_forget", -1) == pytest.approx(0.5)


def test_predictions_are_saved_by_the_contract(tmp_path):
    save_predictions(tmp_path / "predictions", TUNED, TARGETS)
    with np.load(tmp_path / "predictions" / "ft.20-28.2.test.npz", allow_pickle=False) as f:
        assert set(f) == {"outputs", "labels", "ids", "seeds"}
        np.testing.assert_array_equal(f["outputs"], TUNED.outputs["test"])
        assert f["ids"].tolist() == ["test-0", "test-1", "test-2"]
        assert f["seeds"].tolist() == [7, 8]


def test_costs_of_failed_members_are_no_numbers():
    failed = dataclasses.replace(REFERENCE, failed=np.array([True, False]),
                                 images=np.array([0, 500]))
    rows = rows_of(reference=failed)
    for metric in ("images_vs_retrain", "wall_vs_retrain"):
        assert np.isnan(value(rows, "ft", metric, 7))
        assert value(rows, "ft", metric, 8) == pytest.approx(0.2)
    assert np.isnan(value(rows, "retrain", "images", 7))
    assert value(rows, "ft", "images", 7) == 100


def test_measures_of_an_outcome_are_metrics_and_those_of_a_failed_seed_are_nan():
    measured = dataclasses.replace(TUNED, measures={"speedup": np.array([3.0, 5.0])},
                                   failed=np.array([False, True]))
    rows = rows_of([measured])
    assert value(rows, "ft", "speedup", 7) == 3 and np.isnan(value(rows, "ft", "speedup", 8))
    assert not any(r["metric"] == "averaged:speedup" for r in rows)


def test_the_report_knows_the_name_of_short_retraining():
    assert inputs.SHORT == SHORT  # the report imports no JAX, so it cannot import this one
