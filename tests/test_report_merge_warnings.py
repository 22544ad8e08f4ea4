"""Merged runs open without warnings that are not true of them."""

import json

import pytest
from fake_workdir import change_json, text_report, write_workdir

from unlearn_jax.report.tables.merge import MergedRun, merge_runs

NORMS = "original: training leaves 66 % of the running statistics that batch norms began with"
FEW = ("audit distances of retrain at 12 epochs on 20-28: it needs two seeds, there is 1",
       "audit challenge of ft at 2 epochs on 20-28: half of the models are compared with the M_Rs "
       "of the other seeds, 2 of either at least; that takes 4 seeds without a failed member, and "
       "there are 1",
       "audit lira of 2 populations (ft, retrain; on 20-28): 2 models of each group are needed, "
       "there are 1 that forgot it")
OTHER = "audit confusion of ft at 2 epochs on 20-28: it needs config.data.inject='confusion:A:B:N'"


def run(path, warnings, **settings):
    write_workdir(path, samples=12, history=False, **settings)
    change_json(path / "run.json", lambda record: record.update(warnings=list(warnings)))
    return path


def merged(out, *paths):
    merge_runs([MergedRun(p) for p in paths], out)
    return json.loads((out / "run.json").read_text())["warnings"]


def test_a_merger_of_runs_without_warnings_has_none_and_names_its_sources(tmp_path):
    paths = [run(tmp_path / "a", ()), run(tmp_path / "b", (), seeds=(3, 4))]
    assert merged(tmp_path / "out", *paths) == []
    text = text_report(tmp_path / "out")
    assert "There are no warnings." in text and "see Warnings" not in text
    record = text.split("## How to reproduce")[1]
    for path in paths:
        assert f"merged from {path}: " in record


def test_a_warning_of_several_runs_stands_once(tmp_path):
    a = run(tmp_path / "a", (NORMS, OTHER))
    b = run(tmp_path / "b", (NORMS, "its own"), methods=("rnd",))
    c = run(tmp_path / "c", (NORMS, OTHER), sets=("28-36",))
    assert merged(tmp_path / "out", a, b, c) == [NORMS, f"{a}, {c}: {OTHER}", f"{b}: its own"]
    assert merged(tmp_path / "two", a, c) == [NORMS, OTHER]


@pytest.mark.parametrize("warning", FEW)
def test_too_few_seeds_of_one_run_are_not_said_of_all(tmp_path, warning):
    a, b = (run(tmp_path / name, (warning,), seeds=(seed,)) for name, seed in (("a", 0), ("b", 1)))
    name = warning.split()[1]
    (text,) = merged(tmp_path / "out", a, b)
    assert text == (f"audit {name}: a run alone had too few seeds for it, and a merger does not "
                    "compute audits again")
    # With the same seeds in all runs it is as true of the merger as of each run.
    c = run(tmp_path / "c", (), seeds=(0,), methods=("rnd",))
    assert merged(tmp_path / "same", a, c) == [f"{a}: {warning}"]


def test_a_merger_of_an_earlier_version_is_read_without_its_sources_as_warnings(tmp_path):
    path = run(tmp_path / "w", ("merged from runs/a: python", NORMS))
    change_json(path / "run.json", lambda record: record.update(merged=[
        {"directory": "runs/a", "label": "", "command": "python", "config": record["config"],
         "data_fingerprint": ""}]))
    text = text_report(path)
    assert "There is 1 warning: see Warnings" in text and f"- {NORMS}" in text
