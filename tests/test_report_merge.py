import json

import numpy as np
import pandas as pd
import pytest
from fake_workdir import write_csv, write_workdir

from unlearn_jax.report.__main__ import main
from unlearn_jax.report.files import ReportError
from unlearn_jax.report.merge import Source, merge_runs, parse_source


def table(path):
    return pd.read_csv(path / "results.csv", dtype=str, keep_default_na=False)


def change(path, name, **fields):
    content = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**content, **fields}))


@pytest.fixture
def runs(tmp_path):
    """Two runs of the same models: one with ft, one with ft and rnd."""
    return (write_workdir(tmp_path / "a", methods=("ft",)),
            write_workdir(tmp_path / "b", methods=("ft", "rnd")))


def test_shared_models_are_kept_once_and_new_ones_added(runs, tmp_path):
    out = tmp_path / "out"
    merge_runs([Source(p) for p in runs], out)
    merged, larger = table(out), table(runs[1])
    assert set(merged.method) == {"median", "original", "retrain", "ft", "rnd"}
    identity = ["method", "forget_set", "epochs", "seed", "metric"]
    assert not merged.duplicated(identity).any() and len(merged) == len(larger)
    names = {p.name for p in (out / "predictions").iterdir()}
    assert names == {p.name for p in (runs[1] / "predictions").iterdir()}


def test_other_forget_sets_and_seeds_are_added(tmp_path):
    a = write_workdir(tmp_path / "a", sets=("20-28",))
    b = write_workdir(tmp_path / "b", sets=("20-28", "28-36"))
    c = write_workdir(tmp_path / "c", seeds=(3,))
    merge_runs([Source(a), Source(b), Source(c)], tmp_path / "out")
    merged = table(tmp_path / "out")
    assert set(merged.forget_set) == {"20-28", "28-36"}
    mae = merged[(merged.metric == "mae_test") & (merged.method == "ft")]
    assert sorted(mae[mae.forget_set == "20-28"].seed) == ["0", "1", "2", "3"]
    averaged = merged[merged.metric.str.startswith("averaged:")]
    assert set(averaged.forget_set) == {"28-36"}, "of 0 to 2, or of 3 alone? Of neither"
    with np.load(tmp_path / "out/predictions/ft.20-28.2.forget.npz") as file, \
            np.load(c / "predictions/ft.20-28.2.forget.npz") as own:
        assert file["seeds"].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(file["outputs"][3], own["outputs"][0])


def test_cells_that_disagree_need_labels(runs, tmp_path):
    path = runs[0] / "results.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[(rows.method == "ft") & (rows.metric == "utility"), "value"] = "0.5"
    rows.to_csv(path, index=False)
    with pytest.raises(ReportError, match="method=ft.*metric=utility.*DIR=LABEL"):
        merge_runs([Source(p) for p in runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge_runs([Source(runs[0], "low"), Source(runs[1])], tmp_path / "out")
    assert set(table(tmp_path / "out").method) == {"median", "original", "retrain", "ft+low", "ft",
                                                   "rnd"}
    assert (tmp_path / "out/predictions/ft+low.20-28.2.test.npz").exists()
    assert "ft+low" in set(pd.read_csv(tmp_path / "out/history.csv").stage)


def test_clocks_may_differ(runs, tmp_path):
    path = runs[0] / "results.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[rows.metric == "wall_seconds", "value"] = "0.5"
    rows.to_csv(path, index=False)
    merge_runs([Source(p) for p in runs], tmp_path / "out")


@pytest.mark.parametrize("name, fields, words", [
    ("data.json", dict(fingerprint="beef"), "are of data|is of data beef"),
    ("run.json", dict(finished=False), "is not finished"),
    ("data.json", dict(label_unit="months"), "a regression in months"),
])
def test_runs_that_do_not_go_together_are_refused(runs, tmp_path, name, fields, words):
    change(runs[1], name, **fields)
    with pytest.raises(ReportError, match=words):
        merge_runs([Source(p) for p in runs], tmp_path / "out")


def test_the_command_merges_names_its_sources_and_reports(runs, tmp_path, capsys):
    change(runs[1], "data.json", fingerprint="beef")
    out = tmp_path / "out"
    arguments = [str(runs[0]), f"{runs[1]}=more", f"--out={out}"]
    assert main(arguments) == 1 and "--other-data" in capsys.readouterr().err
    assert main([*arguments, "--other-data"]) == 0
    printed = capsys.readouterr().out
    assert f"merged {runs[0]}\n" in printed and f"merged {runs[1]} as +more" in printed
    report = (out / "report.md").read_text()
    assert f"merged from {runs[1]}" in report and (out / "summary.csv").exists()
    record = json.loads((out / "run.json").read_text())
    assert [m["label"] for m in record["merged"]] == ["", "more"]
    assert main([*arguments, "--other-data"]) == 1 and "not empty" in capsys.readouterr().err
    assert main([str(p) for p in runs]) == 1 and "--out=DIR" in capsys.readouterr().err


def test_labels_are_parts_of_names():
    assert parse_source("runs/a=low_2").label == "low_2"
    with pytest.raises(ReportError, match="may hold letters"):
        parse_source("runs/a=lr=0.1/x")


def test_distances_of_layers_come_along_once(runs, tmp_path):
    columns = ("method", "forget_set", "epochs", "seed", "layer", "to_original", "to_retrain",
               "norm", "floor")
    for path, method in zip(runs, ("ft", "rnd")):
        write_csv(path / "layers.csv", columns, [
            (m, "20-28", 2, 0, "output", 1, 2, 3, 4) for m in ("original", "retrain", method)])
    merge_runs([Source(p) for p in runs], tmp_path / "out")
    merged = pd.read_csv(tmp_path / "out" / "layers.csv")
    assert merged.method.tolist() == ["original", "retrain", "ft", "rnd"]
    assert tuple(merged.columns) == columns
