"""One table of several runs, in which points and swept keys can be told."""

import csv
import json

import pandas as pd
import pytest
from fake_workdir import write_comparison, write_workdir

from launch import gather as gathering
from launch.gather import gather
from launch.plan import make_plan
from launch.points import make_points

pytestmark = [pytest.mark.usefixtures("no_figures"),
              pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")]


@pytest.fixture
def plan(tmp_path):
    """Two learning rates and two budgets, of which the runs are finished."""
    points = make_points([{"unlearn.learning_rate": rate, "unlearn.epochs": epochs}
                          for rate in ("1e-3", "2e-3") for epochs in ("2", "4")],
                         "configs/ft.py", ())
    made = make_plan(points, (), tmp_path / "sweep", tmp_path / "store")
    made.write()
    for i, run in enumerate(made.runs):
        directory = write_workdir(made.workdir(run), methods=("ft",))
        path = directory / "results.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        mine = (table.method == "ft") & (table.metric == "utility")
        table.loc[mine, "value"] = f"0.{i + 1}"
        table.to_csv(path, index=False)
        finish(run, directory)
    return made


def finish(run, directory):
    """Makes the files in a run's directory those of a finished one of its config."""
    record = json.loads((directory / "run.json").read_text())
    record = {**record, "finished": True, "config": json.loads(json.dumps(run.config.to_dict()))}
    (directory / "run.json").write_text(json.dumps(record))
    (directory / "report.html").write_text("")


def test_rows_carry_their_point_and_the_swept_keys(plan):
    assert len(plan.runs) == 2 and not plan.unfinished()
    assert gather(plan) == [plan.directory / "report" / "report.html"]
    table = pd.read_csv(plan.directory / "results.csv", dtype=str, keep_default_na=False)
    assert set(table.method) == {"median", "original", "retrain", "ft+learning_rate-1e-3",
                                 "ft+learning_rate-2e-3"}
    utility = table[(table.metric == "utility") & (table.method == "ft+learning_rate-2e-3")]
    assert set(utility["unlearn.learning_rate"]) == {"0.002"} and set(utility.value) == {"0.2"}
    assert set(utility[utility.epochs == "2"].point) <= {"3", ""}
    assert set(table[table.method == "original"].point) == {""}
    assert set(table[table.method == "original"]["unlearn.learning_rate"]) == {""}
    summary = pd.read_csv(plan.directory / "summary.csv")
    assert {"mean", "ci95_low", "unlearn.learning_rate"} <= set(summary.columns)
    with open(plan.directory / "points.csv", newline="") as f:
        points = list(csv.DictReader(f))
    assert [p["run"] for p in points] == ["learning_rate-1e-3"] * 2 + ["learning_rate-2e-3"] * 2
    assert {p["finished"] for p in points} == {"True"}


def test_what_is_not_finished_is_left_out_and_said(plan, monkeypatch):
    monkeypatch.setattr(gathering, "write_report", lambda directory: None)
    (plan.workdir(plan.runs[1]) / "report.html").unlink()
    gather(plan)
    table = pd.read_csv(plan.directory / "results.csv", dtype=str, keep_default_na=False)
    assert set(table.method) == {"median", "original", "retrain", "ft"}
    with open(plan.directory / "points.csv", newline="") as f:
        assert [p["finished"] for p in csv.DictReader(f)] == ["True", "True", "False", "False"]


def test_what_changes_the_values_of_the_retrained_model_is_a_report_of_its_own(
        tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "write_report", lambda directory: None)
    key, flags = "eval.relearn_rate", ("--config.eval.relearn_epochs=4",)
    points = make_points([{key: "1e-3"}, {key: "1e-1"}], "configs/ft.py", flags)
    made = make_plan(points, flags, tmp_path / "sweep", tmp_path / "store")
    for i, run in enumerate(made.runs):
        directory = write_workdir(made.workdir(run), methods=("ft",))
        path = directory / "results.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        more = table[(table.method == "retrain") & (table.metric == "utility")]
        more = more.assign(metric="relearn_epochs", value=str(i + 1))
        pd.concat([table, more]).to_csv(path, index=False)
        finish(run, directory)
    assert [path.parent.name for path in gather(made)] == ["1", "2"]
    table = pd.read_csv(made.directory / "results.csv", dtype=str, keep_default_na=False)
    mine = table[(table.method == "retrain") & (table.metric == "relearn_epochs")]
    assert dict(zip(mine[key], mine.value)) == {"0.001": "1", "0.1": "2"}


def test_a_comparison_belongs_to_its_point_whatever_budget_it_chose(tmp_path):
    points = make_points([{"compare.fraction": f} for f in ("0.25", "0.5")],
                         "configs/compare.py", ("--config.forget.sets=('20-28',)",))
    made = make_plan(points, (), tmp_path / "sweep", tmp_path / "store")
    for run in made.runs:
        assert 7 not in run.config.unlearn.epochs
        directory = write_comparison(made.workdir(run), methods=("ft",), budget=7)
        record = json.loads((directory / "run.json").read_text())
        config = json.loads(json.dumps(run.config.to_dict()))
        config["eval"]["alpha"] = 15.0
        (directory / "run.json").write_text(json.dumps(
            {**record, "finished": True, "config": config}))
        (directory / "report.html").write_text("")
    assert len(made.runs) == 2 and not made.unfinished()
    gather(made)
    table = pd.read_csv(made.directory / "results.csv", dtype=str, keep_default_na=False)
    own = table[(table.epochs == "7") & (table.metric == "utility")]
    assert set(zip(own["compare.fraction"], own.point)) == {("0.25", "1"), ("0.5", "2")}
