"""Which sections of the config decide a stage, and to which stage a name leads."""

import pytest
from fake_workdir import change_json, write_workdir

from unlearn_jax.report.inputs import read_run
from unlearn_jax.report.origins import config_sections


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
