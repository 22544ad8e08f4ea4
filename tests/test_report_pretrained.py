"""What the report says of how models began, with pretrained weights and without."""

import pytest
from fake_workdir import change_json, text_report, write_csv, write_thesis, write_workdir
from test_report_layers import COLUMNS, MODELS

from unlearn_jax.report.output import Output
from unlearn_jax.report.sections.layers import section
from unlearn_jax.report.sections.verdict import on_start
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.names import describe
from unlearn_jax.report.thesis import tables

FILE = "weights.h5"
APART, ALIKE = "other weights", "the same pretrained weights"


def began(path, merged=False):
    """The work directory with pretrained weights; of merged runs in one of them."""
    def change(run):
        model = {"model": {"pretrained": FILE}}
        if merged:
            run["merged"] = [{**run, "config": {}}, {**run, "config": model}]
        else:
            run["config"].update(model)

    change_json(path / "run.json", change)
    return read_run(path)


@pytest.mark.parametrize("merged", [False, True])
def test_definitions_across_seeds_say_what_they_have_in_common(tmp_path, merged):
    path = write_workdir(tmp_path, samples=12)
    write_csv(path / "layers.csv", COLUMNS, [
        (m, "20-28", e, s, "head", 5, 5, 100, 30) for m, e in MODELS for s in (0, 1, 2)])

    def said(run):
        distances = section(run, "20-28", Output()).blocks[0].columns[-1][1]
        return [*(describe(run, f"{name}@15").definition
                  for name in ("ceiling", "forgetting_across")), distances]

    assert all(APART in text for text in said(read_run(path)))
    assert "nothing else" in said(read_run(path))[-1] and FILE not in text_report(path)
    run = began(path, merged)
    assert all(ALIKE in text and APART not in text for text in said(run))
    assert "nothing else" not in said(run)[-1]


def test_the_opening_says_that_all_seeds_began_alike(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    began(path)
    assert f"The models of all seeds began with the weights of {FILE}" in text_report(path)


def test_no_seed_alone_began_with_pretrained_weights(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_json(path / "run.json", lambda run: [s.update(from_seed=1) for s in run["stages"]
                                                if s["stage"] == "ft"])
    run = read_run(path)
    ft = run.only("20-28", "ft")
    assert "only the M_R of that seed started from the weights" in on_start(run, ft)
    assert "alone began" not in on_start(began(path), ft)


def test_the_studys_tables_say_it_too(tmp_path):
    path = write_thesis(tmp_path, samples=12, sets=("20-28",))
    assert APART in tables._definition(read_run(path), "ceiling")
    assert ALIKE in tables._definition(began(path), "ceiling")
