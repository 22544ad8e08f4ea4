"""Which sections of the config decide a stage, and to which stage a name leads."""

import pandas as pd
import pytest
from fake_workdir import change_json, write_workdir

from unlearn_jax.report.render.document import Cell
from unlearn_jax.report.tables.inputs import ModelKey, read_run
from unlearn_jax.report.tables.origins import config_sections, made_by, trace


@pytest.fixture
def workdir(tmp_path):
    path = write_workdir(tmp_path / "run", history=False, samples=12)
    change_json(path / "run.json", lambda run: run["config"].update(
        model={"name": "resnet4"}, forget={"sets": ["20-28"]}, unlearn={"method": "ft"}))
    return path


MODELS = ("seeds", "data", "model", "train")


@pytest.mark.parametrize("stage, sections", [
    ("data", ("data",)), ("original", MODELS), ("retrain", (*MODELS, "forget")),
    ("ft", (*MODELS, "forget", "unlearn")), ("predictions", ("eval",)), ("explain", ("eval",)),
    ("relearn", ("eval",))])
def test_a_stage_leads_to_the_sections_that_decide_it(workdir, stage, sections):
    assert config_sections(read_run(workdir), stage) == sections


def test_relearn_times_lead_to_the_relearning_and_the_model_to_its_own_stage(workdir):
    with (workdir / "results.csv").open("a", newline="") as file:
        file.write("ft,20-28,2,0,ain,0.5,again\n")
    change_json(workdir / "run.json", lambda run: run["stages"].append(
        {"stage": "relearn", "forget_set": "20-28", "epochs": 4, "key": "again",
         "status": "computed"}))
    run, model = read_run(workdir), ModelKey("ft", 2)
    cell = trace(run, Cell("0.5"), model, "20-28", "ain")
    assert cell.link == "stage-again" and cell.tip[-1] == "config: eval"
    assert made_by(run, Cell("M_FT"), model, "20-28").link == "stage-ft-20-28-2"


def test_a_mean_over_several_stages_has_no_origin(tmp_path):
    path = write_workdir(tmp_path, samples=5)
    model = next(m for m in read_run(path).models("20-28") if m.method == "ft")
    assert read_run(path).origin(model, "20-28", "mae_test")
    table = pd.read_csv(path / "results.csv", keep_default_na=False, dtype=str)
    mine = table[(table.method == "ft") & (table.metric == "mae_test")]
    for row in (mine.index[0], mine.index[-1]):  # another stage comes first, or last
        changed = table.copy()
        changed.loc[row, "stage"] = changed.stage[table.method == "retrain"].iloc[0]
        changed.to_csv(path / "results.csv", index=False)
        assert read_run(path).origin(model, "20-28", "mae_test") == "", row
