"""The protocols on tiny data: real processes, from an injection to its row of results.csv."""

import json

import pytest
from test_stages import run, table

pytestmark = pytest.mark.slow
LEARNS = ("--config.model.width=4", "--config.train.epochs=20",
          "--config.train.learning_rate=0.01")


def rows_of(workdir, metric):
    return {(r["method"], int(r["seed"])): float(r["value"])
            for r in table(workdir / "results.csv") if r["metric"] == metric}


def test_confused_labels_are_learned_and_measured(tmp_path):
    # Three in four threes and eights are exchanged.
    done = run("confusion.py:digits", tmp_path / "a", tmp_path / "store",
               "--config.model.width=8", "--config.train.epochs=5",
               "--config.eval.relearn_epochs=2", "--config.eval.audits=('confusion','mia')",
               budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    confused = rows_of(tmp_path / "a", "confusion_forget")
    assert set(confused) == {(m, s) for m in ("original", "retrain", "ft") for s in (0, 1)}
    # M_O was taught to take one group for the other, M_R was not.
    for seed in (0, 1):
        assert confused["original", seed] > confused["retrain", seed]
    for name, methods in (("ain_low", ("ft",)), ("relearn_epochs", ("retrain", "ft"))):
        assert set(rows_of(tmp_path / "a", name)) == {(m, s) for m in methods for s in (0, 1)}
    assert done.stderr.count("relearn: compiled") == 1, "all models in one population"
    # The labels of the test samples beside them are exchanged, too: what M_O makes of threes in
    # general is no memory of single ones, and M_R is as wrong on either.
    aucs = rows_of(tmp_path / "a", "mia_auc")
    assert all(abs(auc - 0.5) < 0.2 for auc in aucs.values())
    data = json.loads((tmp_path / "a" / "data.json").read_text())
    assert data["forget_sets"]["injected"]["train"] == 160
    assert "confusion forget" in (tmp_path / "a" / "report.md").read_text()


def test_a_patch_is_learned_and_measured(tmp_path):
    done = run("injection.py", tmp_path / "a", tmp_path / "store",
               "--config.data.inject=patch:36-60:12", "--config.eval.audits=('injection',)",
               *LEARNS, budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    effect = rows_of(tmp_path / "a", "injection_effect")
    for seed in (0, 1):
        assert effect["original", seed] > effect["retrain", seed]
    assert (tmp_path / "a/predictions/ft.injected.1.stamped.npz").exists()


def test_a_challenge_starts_from_one_original(tmp_path):
    # Six models of each kind: seeds 0 and 1 stand in TINY already, and tuples add up.
    done = run("challenge.py:6", tmp_path / "a", tmp_path / "store", "--config.seeds=(2,3,4,5)",
               "--config.eval.audits=('challenge','lira','distances','mia')",
               "--config.train.epochs=1", budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {(r["method"], r["metric"]) for r in table(tmp_path / "a" / "results.csv")
             if r["metric"].startswith("population:challenge")}
    assert {("ft", "population:challenge_score"), ("original", "population:challenge_quality"),
            ("retrain", "population:challenge_quality_perfect")} <= found
    assert all(r["seed"] == "-1" for r in table(tmp_path / "a" / "results.csv")
               if r["metric"].startswith("population:"))
