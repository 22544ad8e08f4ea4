"""A comparison on tiny data: real processes, three methods that work differently, two sets."""

import json
import math
import shlex
import sys
import types

import numpy as np
import pytest
from test_stages import TINY, finish, run_as_typed, statuses, table, values

from unlearn_jax.config import default_config
from unlearn_jax.engine import flops
from unlearn_jax.errors import InputError
from unlearn_jax.stages.compare import TRIAL_COLUMNS, make_contenders, validation_errors
from unlearn_jax.train import make_loss

# One prepares and trains in pairs, the other only prepares.
OUTSIDE = """
import jax
import jax.numpy as jnp

from unlearn_jax.methods.method import Method, Prepared
from unlearn_jax.members import Pass
from unlearn_jax.train import make_train_step


def step(setting):
    return make_train_step(setting.model, setting.optimizer, setting.loss)


def count(setting, before):
    found = before.total("forget", lambda batch: batch.weights.sum())
    return Prepared(before.variables, {"forgotten": found})


def shrink(setting, before):
    for _ in range(3):  # 3 of 8 epochs are more than the budget
        before.total("all", lambda batch: batch.weights.sum())
    smaller = before.each(lambda v: jax.tree.map(lambda x: 0.99 * x, v), before.variables)
    return Prepared(smaller)


PAIRS = Method(make_step=step, prepare=count, passes=lambda s, e: (Pass("retain+forget"),))
SHRINK = Method(prepare=shrink)
"""
FLAGS = [f for f in TINY if "train.epochs" not in f and "audits" not in f] + [
    "--config.train.epochs=8", "--config.forget.sets=('20-28','random:0.2')",
    "--config.compare.trials=2", "--config.eval.alphas=(15.0,)"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished comparison: (work directory, store, the flags it was run with)."""
    base = tmp_path_factory.mktemp("comparison")
    (base / "own.py").write_text(OUTSIDE)
    flags = (*FLAGS, "--config.compare.methods="
             f"('ft','{base}/own.py:PAIRS','{base}/own.py:SHRINK')")
    done = run_as_typed("compare.py", base / "w", base / "store", *flags, figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    return base / "w", base / "store", flags


def trials(workdir, method, forget_set):
    return [r for r in table(workdir / "trials.csv")
            if (r["method"], r["forget_set"]) == (method, forget_set)]


@pytest.mark.slow
def test_every_method_has_its_trials_and_one_of_them_is_measured(finished):
    workdir, _, _ = finished
    rows = table(workdir / "trials.csv")
    assert tuple(rows[0]) == TRIAL_COLUMNS
    for name in ("20-28", "random-0.2"):
        for method, count in (("ft", 2), ("own-PAIRS", 2), ("own-SHRINK", 1)):
            mine = trials(workdir, method, name)
            assert [r["trial"] for r in mine] == [str(i + 1) for i in range(count)]
            within = [r for r in mine if r["within"] == "True"]
            (taken,) = [r for r in mine if r["chosen"] == "True"]
            assert taken == (within[-1] if within else
                             min(mine, key=lambda r: float(r["validation_error"])))
            for r in mine:
                below = float(r["validation_error"]) <= float(r["limit"])
                assert below == (r["within"] == "True")
            found = {(r["epochs"], r["stage"]) for r in table(workdir / "results.csv")
                     if (r["method"], r["forget_set"]) == (method, name)}
            assert found == {(taken["epochs"], taken["stage"])}
    ft = trials(workdir, "ft", "20-28")
    assert [float(r["learning_rate"]) for r in ft] == [0.0005, 0.008]


@pytest.mark.slow
def test_the_limit_is_that_of_the_original_on_the_retained_part(finished):
    workdir, _, _ = finished

    def judged(method, name, epochs):
        """The MAE on every second of the retained validation samples."""
        with np.load(workdir / "predictions" / f"{method}.{name}.{epochs}.validation.npz") as f:
            return np.abs(f["outputs"] - f["labels"])[:, 1::2].mean()

    for name in ("20-28", "random-0.2"):
        for row in trials(workdir, "ft", name):
            original = judged("original", name, 0)
            assert float(row["limit"]) == pytest.approx(1.05 * original, rel=1e-5)
        (taken,) = [r for r in trials(workdir, "ft", name) if r["chosen"] == "True"]
        own = judged("ft", name, taken["epochs"])
        assert float(taken["validation_error"]) == pytest.approx(own, rel=1e-5)


@pytest.mark.slow
def test_budgets_count_preparation_and_pairs(finished):
    workdir, _, _ = finished
    data = json.loads((workdir / "data.json").read_text())
    for name, entry in data["forget_sets"].items():
        forgotten = entry["train"]
        retained = data["counts"]["train"] - forgotten
        budget = 0.25 * 8 * retained
        assert {r["images"] for r in trials(workdir, "ft", name)} == {f"{2.0 * retained}"}
        # a batch of 16 is half D_r, and D_f is repeated to fill the other half
        epoch = retained + 8 * math.ceil(retained / 8)
        spent = [forgotten + n * epoch for n in (1, 2)]
        epochs = 1 + (abs(budget - spent[1]) < abs(budget - spent[0]))
        for r in trials(workdir, "own-PAIRS", name):
            assert (int(r["epochs"]), float(r["images"])) == (epochs, spent[epochs - 1])
        (shrink,) = trials(workdir, "own-SHRINK", name)
        assert (shrink["epochs"], float(shrink["images"])) == ("0", 3.0 * data["counts"]["train"])
        assert shrink["learning_rate"] == "nan"
        share = 100 * 3 * data["counts"]["train"] / (8 * retained)
        assert shrink["note"] == (f"takes {share:.3g} % of retraining (preparation; it trains "
                                  "nothing) where the budget is 25 %")
        assert f"comparison: own-SHRINK on {name} {shrink['note']}" in json.loads(
            (workdir / "run.json").read_text())["warnings"]


@pytest.mark.slow
def test_that_the_range_of_trials_ended_a_search_is_said(finished):
    workdir, _, _ = finished
    warnings = json.loads((workdir / "run.json").read_text())["warnings"]
    for name in {r["forget_set"] for r in table(workdir / "trials.csv")}:
        ended = [m for m in dict.fromkeys(r["method"] for r in table(workdir / "trials.csv"))
                 if len(own := trials(workdir, m, name)) > 1 and own[-1]["within"] == "True"]
        said = [w for w in warnings if f"on {name} the strongest trial kept within" in w]
        assert [w.partition(" of ")[2].partition(" on ")[0] for w in said] == (
            [", ".join(ended)] if ended else [])


@pytest.mark.slow
def test_the_leaderboard_is_written(finished):
    workdir, _, _ = finished
    rows = table(workdir / "leaderboard.csv")
    assert len(rows) == 3 * 8 and {r["forget_set"] for r in rows} == {"all", "20-28", "random-0.2"}
    assert [r["method"] for r in rows][-4:] == ["retrain_short", "shifted_original",
                                                "best_constant", "original"]
    assert (workdir / "leaderboard.tex").read_text().count(r"\begin{tabular}") == 3
    assert "## Leaderboard" in (workdir / "report.md").read_text()


@pytest.mark.slow
def test_short_retraining_spends_the_budget_and_starts_anew(finished):
    workdir, store, _ = finished
    results, data = table(workdir / "results.csv"), json.loads((workdir / "data.json").read_text())
    for name, entry in data["forget_sets"].items():
        mine = [r for r in results if (r["method"], r["forget_set"]) == ("retrain_short", name)]
        assert {r["epochs"] for r in mine} == {"2"}  # a quarter of 8
        retained = data["counts"]["train"] - entry["train"]
        assert {float(r["value"]) for r in mine if r["metric"] == "images"} == {2 * retained}
        assert {"forgetting@15", "mia_auc", "mae_test"} <= {r["metric"] for r in mine}
        (key,) = {r["stage"] for r in mine}
        assert (store / "retrain_short" / key / "checkpoint").is_dir()
        # it has not seen D_f
        with np.load(workdir / "predictions" / f"retrain_short.{name}.2.forget.npz") as found:
            assert not found["member"].any()
    first = [r for r in table(workdir / "history.csv")
             if r["stage"] in ("retrain", "retrain_short") and r["epoch"] == "1"]
    # the same samples from the same weights; the schedules differ after the first step alone
    assert len({(r["stage"], r["forget_set"], r["seed"]) for r in first}) == len(first) > 0
    assert "Better than it" in (workdir / "report.md").read_text() or (
        "No method is shown to be better" in (workdir / "report.md").read_text())


@pytest.mark.slow
def test_the_same_command_again_computes_nothing(finished):
    workdir, store, flags = finished
    before = (workdir / "trials.csv").read_text()
    done = run_as_typed("compare.py", workdir, store, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(statuses(workdir).values()) == {"reused"}
    assert "validated in" not in done.stderr
    assert (workdir / "trials.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("method, forget_set", [("ft", "random-0.2"), ("own-PAIRS", "20-28")])
def test_the_command_of_a_row_gives_its_numbers(finished, tmp_path, method, forget_set):
    workdir, _, _ = finished
    (row,) = [r for r in table(workdir / "leaderboard.csv")
              if (r["method"], r["forget_set"]) == (method, forget_set)]
    python, *args = shlex.split(row["command"])
    assert python == "python"
    done = finish([sys.executable, *args, f"--workdir={tmp_path / 'w'}",
                   f"--store={tmp_path / 'store'}"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(statuses(tmp_path / "w").values()) == {"computed"}
    mine, theirs = values(tmp_path / "w"), values(workdir)
    assert {key[0] for key in mine} == {"median", "original", "retrain", method}
    assert {key[1] for key in mine} == {forget_set}
    for key in mine:
        np.testing.assert_array_equal(mine[key], theirs[key], str(key))


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["wall", "flops"])
def test_other_units_measure_the_first_epoch(finished, tmp_path, unit):
    _, store, _ = finished
    done = run_as_typed("compare.py", tmp_path / "w", store,
                        *[f for f in FLAGS if "forget.sets" not in f],
                        "--config.compare.methods=('ft',)", "--config.eval.audits=()",
                        f"--config.compare.budget={unit}", "--config.compare.fraction=0.5")
    assert done.returncode == 0, done.stderr[-3000:]
    # What the first epoch takes was measured, as a stage that later runs find again.
    assert {("ft", "20-28", 0), ("ft", "20-28", 1)} <= statuses(tmp_path / "w").keys()
    assert statuses(tmp_path / "w")["retrain", "20-28", 8] == "reused"
    epochs = {int(r["epochs"]) for r in trials(tmp_path / "w", "ft", "20-28")}
    assert len(epochs) == 1 and min(epochs) >= 1
    if unit == "flops":  # a step of ft is one of retraining: half of eight epochs
        assert epochs == {4}
        shares = [float(r["value"]) for r in table(tmp_path / "w" / "results.csv")
                  if (r["method"], r["metric"]) == ("ft", "flops_vs_retrain") and r["seed"] != "-1"]
        assert shares == pytest.approx([0.5] * 2, rel=1e-3)


@pytest.mark.parametrize("flags, words", [
    (["--config.compare.methods=('ft','scrap')"], "'retrain', 'ft', 'rnd'"),
    (["--config.compare.methods=('retrain',)"], "methods other than 'retrain'"),
    (["--config.compare.methods=('ft','own.py:M')"], "own.py: No such file"),
])
def test_mistakes_are_named_before_any_work(tmp_path, flags, words):
    done = run_as_typed("compare.py", tmp_path / "w", tmp_path / "store", *FLAGS, *flags)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert words in done.stderr and not (tmp_path / "w").exists()


def test_a_budget_that_nothing_counts_is_refused(monkeypatch):
    monkeypatch.setattr(flops, "countable", lambda: False)
    study = types.SimpleNamespace(config=default_config())
    with study.config.unlocked():
        study.config.compare.budget = "flops"
    with pytest.raises(InputError, match="budget is 'flops'.*JAX_PLATFORMS.*'images' or 'wall'"):
        make_contenders(study, "configs/compare.py")


def test_validation_errors_by_hand():
    ages = types.SimpleNamespace(dataset=types.SimpleNamespace(num_classes=0),
                                 loss=make_loss("mse", 10.0))
    outputs, labels = np.array([[20, 30.0], [24, np.nan]]), np.array([22.0, 27.0])
    np.testing.assert_allclose(validation_errors(ages, outputs, labels), [(4 + 9) / 2, np.nan])
    classes = types.SimpleNamespace(dataset=types.SimpleNamespace(num_classes=2))
    logits = np.array([[[0, 1], [2, 1], [0, 3.0]], [[np.nan, 1], [0, 1], [0, 1]]])
    np.testing.assert_allclose(validation_errors(classes, logits, np.array([1, 1, 1])),
                               [1 / 3, np.nan])
