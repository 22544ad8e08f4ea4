"""A run without M_R: what is measured, what is left out, what is said, and what is refused."""

import csv
import json

import pytest
from test_stages import AUDITED, run, run_as_typed, statuses, table

from unlearn_jax.config import ConfigError, check_config, default_config
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.score.__main__ import main as score

OFF = "--config.retrain.mode=off"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Two forget sets; explained."""
    path = tmp_path_factory.mktemp("off")
    done = run("ft.py", path / "run", path / "store", OFF, AUDITED,
               "--config.eval.explain_samples=2", "--config.eval.explain_steps=2",
               "--config.forget.sets=('20-28','random:0.2')",
               budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr
    return path / "run"


def test_no_m_r_is_trained_and_the_rest_is_measured(workdir):
    assert {stage for stage, _, _ in statuses(workdir)} == {"original", "ft", "explain"}
    rows = table(workdir / "results.csv")
    assert {r["method"] for r in rows} == {"original", "ft", "median"}
    found = {(r["method"], r["forget_set"], r["metric"]) for r in rows}
    for forget_set in ("20-28", "random-0.2"):
        for metric in ("mae_test", "mae_forget", "mae_retain", "mae_validation", "mia_auc",
                       "utility_vs_original", "change_forget", "change_retain", "images"):
            assert ("ft", forget_set, metric) in found
    assert not [r for r in rows if r["value"] == "nan" and not r["metric"].startswith("mia")]
    names = {r["metric"].removeprefix(catalogue.AVERAGED) for r in rows}
    assert not [n for n in names if n.startswith(("forgetting", "F@", "ceiling")) or "retrain" in n]
    assert "utility" not in names and all(map(catalogue.find, names))
    own = {(r["method"], r["metric"]): float(r["value"]) for r in rows
           if (r["forget_set"], r["seed"]) == ("20-28", "1")}
    assert own["ft", "utility_vs_original"] == pytest.approx(
        own["original", "mae_test"] / own["ft", "mae_test"], rel=1e-5)
    assert own["ft", "change_forget"] > 0


def test_columns_of_m_r_are_left_out(workdir):
    for name, columns in (("layers.csv", {"to_original", "norm"}),
                          ("channels.csv", {"mean", "from_original"})):
        with open(workdir / name, newline="") as file:
            found = set(next(csv.reader(file)))
        assert columns <= found and not found & {"to_retrain", "from_retrain", "floor"}
    assert not [r for r in table(workdir / "explain.csv") if r["measure"] == "changed_channels"
                or r["against"] == "retrain"]


def test_the_report_says_what_cannot_be_said(workdir):
    text = (workdir / "report.md").read_text()
    assert "There is no M_R, a model retrained without the forget set" in text
    assert "There is no M_R, so it is not known whether there is anything to forget" in text
    assert "and distances to M_R are left out. M_O was unlearned as" in text
    assert read_run(workdir).without("20-28") == ("retrain",)
    verdicts = table(workdir / "verdict.csv")
    assert {r["verdict"] for r in verdicts} <= {"undecided", "not forgotten"}
    assert all("no M_R" in r["reason"] for r in verdicts if r["verdict"] == "undecided")


def test_its_predictions_scored_are_the_same(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr("unlearn_jax.report.write_report", lambda workdir, bar: read_run(workdir))
    assert score([str(workdir), f"--out={tmp_path / 'out'}"]) == 0

    def values(path):
        return {tuple(r[k] for k in ("method", "forget_set", "epochs", "seed", "metric")):
                r["value"] for r in table(path / "results.csv")}

    own, scored = values(workdir), values(tmp_path / "out")
    assert {key[-1] for key in own.keys() - scored.keys()} == {
        "images", "wall_seconds", "flops", "steps", "epochs_trained"}
    assert {key: own[key] for key in scored} == scored
    peers = [json.loads((p / "data.json").read_text())["forget_sets"]["20-28"]["peers"]
             for p in (workdir, tmp_path / "out")]
    assert peers[0] == peers[1] > 0


@pytest.mark.parametrize("key, value, reason", [
    ("compare.methods", ("ft", "rnd"), "a budget is a share of what retraining took"),
    ("thesis.arms", ("ft",), "the study compares with M_R"),
    ("eval.relearn_epochs", 2, "the time to relearn is compared with M_R's"),
    ("eval.audits", ("mia", "lira"), "'mia', 'confusion', 'injection'"),
    ("unlearn.method", "retrain", "methods that unlearn M_O"),
    ("unlearn.method", "sisa", "methods that unlearn M_O"),
])
def test_what_compares_with_m_r_is_refused(key, value, reason):
    config = default_config()
    section, _, name = key.partition(".")
    with config.unlocked():
        config[section][name] = value
        if value == "sisa":
            config.unlearn.epochs = (0,)
    if key not in ("thesis.arms", "unlearn.method"):
        check_config(config)  # with M_R it is allowed
    with config.unlocked():
        config.retrain.mode = "off"
    with pytest.raises(ConfigError, match="retrain.mode='off'") as refused:
        check_config(config)
    assert reason in str(refused.value) and f"config.{key} is" in str(refused.value)


def test_it_is_refused_in_two_lines_before_any_work(tmp_path):
    done = run_as_typed("challenge.py", tmp_path / "run", tmp_path / "store", OFF)
    assert done.returncode and not (tmp_path / "store").exists()
    assert "config.eval.audits" in done.stderr and len(done.stderr.strip().splitlines()) <= 2
