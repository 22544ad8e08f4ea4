import json
import shutil

import numpy as np
import pandas as pd
import pytest
from fake_workdir import write_comparison, write_csv, write_workdir

from unlearn_jax.errors import ReportError
from unlearn_jax.metrics import errors, pairs
from unlearn_jax.report import write_report
from unlearn_jax.report.__main__ import main
from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.merge import MergedRun, merge_runs, parse_source
from unlearn_jax.storage import manifest

pytestmark = pytest.mark.usefixtures("no_figures")


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
    merge_runs([MergedRun(p) for p in runs], out)
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
    merge_runs([MergedRun(a), MergedRun(b), MergedRun(c)], tmp_path / "out")
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
        merge_runs([MergedRun(p) for p in runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge_runs([MergedRun(runs[0], "low"), MergedRun(runs[1])], tmp_path / "out")
    assert set(table(tmp_path / "out").method) == {"median", "original", "retrain", "ft+low", "ft",
                                                   "rnd"}
    assert (tmp_path / "out/predictions/ft+low.20-28.2.test.npz").exists()
    assert "ft+low" in set(pd.read_csv(tmp_path / "out/history.csv").stage)


def test_clocks_may_differ(runs, tmp_path):
    path = runs[0] / "results.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[rows.metric == "wall_seconds", "value"] = "0.5"
    rows.to_csv(path, index=False)
    merge_runs([MergedRun(p) for p in runs], tmp_path / "out")


@pytest.mark.parametrize("name, fields, words", [
    ("data.json", dict(fingerprint="beef"), "are of data|is of data beef"),
    ("run.json", dict(finished=False), "is not finished"),
    ("data.json", dict(label_unit="months"), "a regression in months"),
])
def test_runs_that_do_not_go_together_are_refused(runs, tmp_path, name, fields, words):
    change(runs[1], name, **fields)
    with pytest.raises(ReportError, match=words):
        merge_runs([MergedRun(p) for p in runs], tmp_path / "out")


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


def test_a_merger_that_was_killed_is_made_again(runs, tmp_path, monkeypatch):
    out, sources = tmp_path / "out", [MergedRun(p) for p in runs]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unlearn_jax.report.tables.merge._run", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_runs(sources, out)
    assert not out.exists()
    merge_runs(sources, out)
    whole = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    merge_runs(sources, out)  # killed before its report
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
    with pytest.raises(ReportError, match="not empty"):
        merge_runs(sources[:1], out)
    write_report(out)
    with pytest.raises(ReportError, match="not empty"):
        merge_runs(sources, out)
    manifest.remove(out)  # as earlier versions left it
    with pytest.raises(ReportError, match="not empty"):
        merge_runs(sources, out)


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
    merge_runs([MergedRun(p) for p in runs], tmp_path / "out")
    merged = pd.read_csv(tmp_path / "out" / "layers.csv")
    assert merged.method.tolist() == ["original", "retrain", "ft", "rnd"]
    assert tuple(merged.columns) == columns


def revalue(path, value, **cell):
    rows = pd.read_csv(path / "results.csv", dtype=str, keep_default_na=False)
    at = np.logical_and.reduce([rows[column] == v for column, v in cell.items()])
    assert at.any()
    rows.loc[at, "value"] = value
    rows.to_csv(path / "results.csv", index=False)


def append(path, *rows):
    old = table(path)
    new = pd.DataFrame(rows, columns=["method", "forget_set", "epochs", "seed", "metric", "value"])
    pd.concat([old, new]).fillna("").to_csv(path / "results.csv", index=False)


def test_what_is_of_all_seeds_of_a_run_is_of_no_merged_run(runs, tmp_path):
    for path, value in zip(runs, ("1.5", "2.5")):
        append(path, ("original", "20-28", "0", "-1", "population:w1", value),
               ("ft", "20-28", "2", "-1", "population:w1", value),
               ("ft", "20-28", "2", "-1", "population:js", "0.5"),
               ("ft", "20-28", "2", "0", "forgetting_across@7", value),
               ("retrain", "20-28", "12", "0", "w1_forget", value))
    merge_runs([MergedRun(p) for p in runs], tmp_path / "out")
    merged = table(tmp_path / "out").set_index("metric").value
    assert "population:w1" not in merged and merged["population:js"] == "0.5"
    assert merged["w1_forget"] == "1.5", "against another seed of its own run, as a ceiling is"
    assert merged["forgetting_across@7"] == "1.5"


def of_seeds(whole, path, seeds):
    """What a run of some of the seeds would have left, and of pairs what nobody would believe."""
    shutil.copytree(whole, path)
    rows = table(path)
    rows = rows[rows.seed.isin([str(s) for s in (*seeds, -1)])]
    rows.loc[rows.metric.str.startswith(PAIRED), "value"] = "0.123"
    rows.to_csv(path / "results.csv", index=False)
    for file in (path / "predictions").iterdir():
        with np.load(file) as arrays:
            kept = np.isin(arrays["seeds"], seeds)
            cut = {k: arrays[k][kept] if k in ("outputs", "seeds") else arrays[k] for k in arrays}
        np.savez(file, **cut)
    return path


PAIRED = ("ceiling@", "forgetting_across@")


def paired(path):
    rows = table(path)
    rows = rows[rows.metric.str.startswith(PAIRED)]
    return {(r.method, r.metric, r.seed, r.stage): float(r.value) for r in rows.itertuples()}


@pytest.mark.parametrize("parts", [
    ((0, 1, 2), (3, 4)), ((0, 1, 2), (2, 3, 4)), ((0,), (1, 2, 3, 4))])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_means_over_pairs_are_over_all_pairs_of_the_merged_seeds(tmp_path, parts, task):
    whole = write_workdir(tmp_path / "whole", seeds=range(5), samples=12, failed={("ft", 1)},
                          task=task, history=False)
    merge_runs([MergedRun(of_seeds(whole, tmp_path / str(i), seeds))
                for i, seeds in enumerate(parts)], tmp_path / "out")
    found = paired(tmp_path / "out")
    assert found == pytest.approx(paired(whole), rel=1e-5, nan_ok=True)
    assert len({key[:2] for key in found}) == 3 * 3 and not any(v == 0.123 for v in found.values())


def test_a_run_with_all_seeds_keeps_its_means_over_pairs(tmp_path):
    whole = write_workdir(tmp_path / "whole", seeds=range(5), samples=12, history=False)
    some = of_seeds(whole, tmp_path / "some", (0, 1, 2))
    merge_runs([MergedRun(some), MergedRun(whole)], tmp_path / "out")
    assert paired(tmp_path / "out") == paired(whole)


def test_runs_whose_retrained_have_different_budgets_have_no_pairs(tmp_path):
    whole = write_workdir(tmp_path / "whole", seeds=range(4), samples=12, history=False)
    a, b = (of_seeds(whole, tmp_path / n, s) for n, s in (("a", (0, 1)), ("b", (2, 3))))
    rows = table(b)
    rows.loc[rows.method == "retrain", "epochs"] = "13"
    rows.to_csv(b / "results.csv", index=False)
    for file in (b / "predictions").glob("retrain.*"):
        file.rename(file.with_name(file.name.replace(".12.", ".13.")))
    merge_runs([MergedRun(a), MergedRun(b)], tmp_path / "out")
    assert {key[0] for key in paired(tmp_path / "out")} == {"retrain"}


@pytest.mark.parametrize("started", [(0, 1, 2, 3), (2, 2, 2, 2)])
def test_pairs_of_models_are_those_of_the_metric(started):
    reference, evaluated = np.random.default_rng(0).gamma(2, 4, (2, 4, 9)).astype(np.float32)
    evaluated[3, 4] = np.nan
    alphas = np.array([5.0, 15.0])
    found = pairs.forgetting_across(reference, evaluated, alphas, np.array(started))
    expected = errors.forgetting_across(reference, evaluated, alphas.astype(np.float32),
                                        np.array(started))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_label_is_advised_where_the_original_differs(runs, tmp_path):
    revalue(runs[0], "0.5", method="ft", metric="utility")
    revalue(runs[0], "9.5", method="original", metric="mae_test")
    with pytest.raises(ReportError, match="method=original.*metric=mae_test.*9.5.*alike") as error:
        merge_runs([MergedRun(runs[0], "low"), MergedRun(runs[1])], tmp_path / "out")
    assert "DIR=LABEL" not in str(error.value)


def test_what_was_touched_comes_along_and_what_is_left_out_is_said(runs, tmp_path):
    columns = ("method", "forget_set", "epochs", "seed", "layer", "touched", "of", "which")
    for path, method in zip(runs, ("ft", "rnd")):
        write_csv(path / "touched.csv", columns, [(method, "20-28", 2, 0, "head", 1, 4, "3")])
    write_comparison(tmp_path / "c", methods=("rnd",))
    sources = [MergedRun(runs[0], "a"), MergedRun(runs[1]), MergedRun(tmp_path / "c", "c")]
    merge_runs(sources, tmp_path / "out")
    touched = pd.read_csv(tmp_path / "out" / "touched.csv")
    assert touched.method.tolist() == ["ft+a", "rnd"] and tuple(touched.columns) == columns
    warnings = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    left = [w for w in warnings if w.startswith("not merged")]
    assert left == [f"not merged, and to be found in {tmp_path / 'c'} alone: trials.csv"]


def test_what_is_said_of_the_data_comes_along_where_the_runs_agree(runs, tmp_path):
    for path, reason in zip(runs, ("broken", "too small")):
        (path / "labels.csv").write_text("step,split,label,count\nused,,20,7\n")
        (path / "dropped.csv").write_text(f"id,step,reason\na.jpg,read,{reason}\n")
    out = tmp_path / "out"
    merge_runs([MergedRun(p) for p in runs], out)
    assert (out / "labels.csv").read_text() == (runs[0] / "labels.csv").read_text()
    assert not (out / "dropped.csv").exists()
    warnings = json.loads((out / "run.json").read_text())["warnings"]
    for path in runs:
        assert f"not merged, and to be found in {path} alone: dropped.csv" in warnings


def test_the_report_has_the_whole_command_and_the_keys_that_differ(runs, tmp_path):
    config = json.loads((runs[1] / "run.json").read_text())["config"]
    change(runs[1], "run.json", config={**config, "train": {**config["train"], "epochs": 13}})
    out = tmp_path / "a and b"
    merge_runs([MergedRun(runs[0]), MergedRun(runs[1], "more")], out)
    report = markdown.render(build(read_run(out)))
    assert f"python -m unlearn_jax.report {runs[0]} {runs[1]}=more '--out={out}'" in report
    rows = [line for line in report.splitlines() if line.startswith("| train.epochs |")]
    assert len(rows) == 2 and "12" in rows[0] and "13" in rows[1] and "more" in rows[1]
    assert "| train.loss |" not in report


def test_models_of_different_seeds_are_told_apart(runs):
    report = markdown.render(build(read_run(runs[1])))
    assert "trained with 3 seeds (0, 1, 2)" in report and "different seeds" not in report
    rows = table(runs[1])
    rows[(rows.method != "rnd") | (rows.seed != "2")].to_csv(runs[1] / "results.csv", index=False)
    report = markdown.render(build(read_run(runs[1])))
    assert "3 seeds (0" not in report and "trained with different seeds (see Warnings)" in report
    assert "means over different seeds (M_O, M_R, M_FT, 2 epochs: 0, 1, 2; M_RND, 2 epochs: 0, 1)" \
        in report.replace("\\_", "_")


def test_the_report_says_where_files_of_ones_own_are(runs):
    config = json.loads((runs[0] / "run.json").read_text())["config"]
    change(runs[0], "run.json", config={**config, "data": {"path": "/my/faces"}})
    report = markdown.render(build(read_run(runs[0])))
    assert report.count("(/my/faces)") == 2


def test_the_folder_of_a_sweep_is_known(tmp_path, capsys):
    (tmp_path / "report").mkdir()
    (tmp_path / "plan.json").write_text("{}")
    assert main([str(tmp_path)]) == 1
    assert f"give {tmp_path / 'report'}" in capsys.readouterr().err
