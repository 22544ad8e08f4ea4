"""Cells that no spreadsheet runs: what is marked, what is not, and the way back."""

import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest
from test_splits import dataset, splits

from unlearn_jax.config import default_config
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.labels import histogram
from unlearn_jax.report.tables.files import read_csv
from unlearn_jax.stages.workdir import claim
from unlearn_jax.system.cells import plain, plain_table, safe, safe_table

FORMULAS = ["=1+1", "+1+1", "-2-3", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "\n=1",
            "-x.png", "+", "-", "\uff1d1+1", "'=1", "''=1", "'-0.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_would_run_is_marked_and_read_back(text):
    assert safe(text) == f"'{text}" and plain(safe(text)) == text


@pytest.mark.parametrize("value", ["", "cat", "a=b", "1", "-0.5", "+3", "-1e-3", "-inf", "-nan",
                                   "'", "'tis", "#1", -0.5, -3, None, float("nan"), True])
def test_numbers_and_plain_texts_stay(value):
    assert safe(value) is value
    if isinstance(value, str):
        assert plain(value) == value


def test_tables_keep_their_numbers_and_columns(tmp_path):
    texts = [text for text in FORMULAS if "\r" not in text]
    table = pd.DataFrame({"id": texts, "value": -0.5, "text": "-0.5", "n": -3,
                          "mixed": [*[-1.5] * 13, "=x"]})
    written = safe_table(table)
    assert list(written) == list(table)
    assert (written.value == -0.5).all() and (written.n == -3).all()
    assert (written.text == "-0.5").all() and written.mixed.tolist() == [*[-1.5] * 13, "'=x"]
    pd.testing.assert_frame_equal(plain_table(written[["id", "text"]]), table[["id", "text"]])
    written.to_csv(tmp_path / "t.csv", index=False)
    assert read_csv(tmp_path, "t.csv", ("id",)).id.tolist() == texts


def test_no_file_name_runs_in_dropped_csv(tmp_path):
    labels = np.tile(np.arange(-5, 5), 10)
    data = dataset(labels, dropped=tuple(Dropped(i, "read", "no, \"x\"") for i in FORMULAS))
    data = dataclasses.replace(data, histograms={"all": histogram(labels)})
    with claim(tmp_path / "w", default_config(), "ft", "command") as run:
        run.write_data(data, splits(data, "-5--3"))
    with open(tmp_path / "w" / "dropped.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(row["id"], row["step"], row["reason"]) for row in rows] == [
        (f"'{text}", "read", 'no, "x"') for text in FORMULAS]
    with open(tmp_path / "w" / "labels.csv", newline="") as f:
        labels = {row["label"] for row in csv.DictReader(f)}
    assert {"-5", "4"} <= labels and not any("'" in label for label in labels)
