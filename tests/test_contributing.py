"""The examples of CONTRIBUTING.md work as they stand, and the paths that it names exist."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import test_results
from fake_workdir import text_report, write_workdir

from unlearn_jax.metrics import catalogue, errors
from unlearn_jax.report.render.document import Cell, Section, Table
from unlearn_jax.report.sections import page, record
from unlearn_jax.report.tables import names, origins
from unlearn_jax.report.tables.cells import decimal
from unlearn_jax.report.tables.inputs import Run, read_run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(start: str) -> str:
    """The Python example that begins with a text."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE)
    [found] = [b for b in map(textwrap.dedent, blocks) if b.startswith(start)]
    return found


@pytest.fixture
def with_median(monkeypatch):
    """The example's metric, for the time of a test."""
    monkeypatch.setattr(errors, "PER_SPLIT", dict(errors.PER_SPLIT))
    exec(example("@per_split"), {**vars(errors)})  # the file that it would stand in
    [new] = eval("[" + example("MetricRecord(") + "]", {**vars(catalogue)})
    monkeypatch.setattr(catalogue, "RECORDS", (*catalogue.RECORDS, new))
    catalogue.find.cache_clear()
    yield
    monkeypatch.undo()
    catalogue.find.cache_clear()


def test_the_metric_is_computed_and_described(with_median, tmp_path):
    # absolute errors on D_f, labels 22 and 24: 8 and 8 for seed 7, 7 and 7 for seed 8
    found = {(r["seed"], r["metric"]): r["value"] for r in test_results.rows_of()
             if r["method"] == "retrain"}
    assert found[7, "median_error_forget"] == 8 and found[8, "median_error_forget"] == 7
    assert found[7, "median_error_test"] == 2
    outputs = np.array([[1, 2, 30], [np.nan, 2, 3]], np.float32)
    got = dict(errors.split_values("test", outputs, np.zeros(3, np.float32), "regression"))
    np.testing.assert_array_equal(got["median_error_test"], [2, np.nan])
    run = read_run(write_workdir(tmp_path, samples=12, history=False))
    shown = names.describe(run, "median_error_forget")
    assert shown.header == "median error forget (years)"
    assert shown.definition.startswith("median of |predicted − true| over D_f")


def test_the_section_has_the_slowest_stages(tmp_path, monkeypatch):
    found = dict(Run=Run, Section=Section, Table=Table, Cell=Cell, origins=origins,
                 decimal=decimal)
    exec(example("def section(run"), found)
    stages = record.stages
    monkeypatch.setattr(page.record, "stages", lambda run: stages(run) and found["section"](run))
    text = text_report(write_workdir(tmp_path, samples=12, budgets=(2, 4), history=False))
    own = text.split("Slowest stages")[1].split("\n## ")[0].splitlines()
    rows = [line.split("|")[1].strip() for line in own if re.match(r"\| \w.*\d\.\d \|", line)]
    assert rows == ["original", "retrain", "ft", "ft", "predictions"]


def test_the_files_that_it_names_exist():
    named = set(re.findall(r"`([\w./]+/[\w.]+\.py)`", TEXT))
    placeholder = re.compile("[A-Z]{3,}")
    assert len(named) > 15
    for name in sorted(named):
        if not placeholder.search(name):
            assert any((folder / name).is_file() for folder in (ROOT, ROOT / "unlearn_jax")), name
