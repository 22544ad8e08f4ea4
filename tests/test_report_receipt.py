"""The receipt of a deletion request, from hand-made work directories."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from fake_workdir import change_json, change_results, write_csv, write_workdir

from unlearn_jax.data import requested
from unlearn_jax.report import ReportError, write_report
from unlearn_jax.report.output import Output
from unlearn_jax.report.receipt import deploy, requests, samples, write_receipt
from unlearn_jax.report.tables.inputs import ModelKey, read_run
from unlearn_jax.report.tables.judgement import FORGOTTEN, Judgement
from unlearn_jax.storage import manifest, traces
from unlearn_jax.storage.store import Store, stage_key

pytestmark = pytest.mark.usefixtures("no_figures")

SET = "ids-x"
ACCENT = unicodedata.normalize("NFD", "é.jpg")


def row(asked, own, split, times=1, trained="no", same="", image="no", retained="no", why=""):
    return (SET, asked, times, own, split, why, f"/data/{own}" if own else "", trained, same,
            image, retained)


ROWS = [
    row("forget-00000", "forget-00000", "train", 2, "yes", "retain-00004", "yes"),
    row("forget-00001", "forget-00001", "validation"),
    row("test-00002", "test-00002", "test"),
    row("bad.jpg", "bad.jpg", "dropped", why="read: truncated"),
    row(ACCENT, "", "unknown", why="the data have no such id"),
    row("=absent", "", "unknown", why="the data have no such id"),
    row("", "retain-00004", "train", 0, "yes", "forget-00000", "yes"),
]


@pytest.fixture
def workdir(tmp_path):
    return make(tmp_path / "run")


def make(path, rows=ROWS, **options):
    write_workdir(path, sets=(SET,), **options)
    change_json(path / "data.json",
                lambda d: d["forget_sets"][SET].update(request="ids:people/x.txt"))
    write_csv(path / "requests.csv", requests.COLUMNS,
              [[("'" + cell if str(cell).startswith("=") else cell) for cell in r] for r in rows])
    return path


def test_the_columns_are_those_that_a_run_writes():
    assert requests.COLUMNS == requested.COLUMNS and requests.BETWEEN == requested.BETWEEN


def test_a_run_without_a_file_of_ids_has_no_receipt(tmp_path):
    write_workdir(tmp_path)
    assert not write_receipt(read_run(tmp_path), Output(tmp_path))
    assert not (tmp_path / "receipt").exists()


def test_a_row_per_id_with_loss_and_attack_score(workdir):
    write_report(workdir)
    found = pd.read_csv(workdir / "receipt" / "receipt.csv", keep_default_na=False)
    assert found.asked.tolist() == [*(r[1] for r in ROWS[:5]), "'=absent", ""]
    with np.load(workdir / "predictions" / f"ft.{SET}.2.forget.npz") as f:
        mine = np.abs(f["outputs"] - f["labels"])[:, 0]
    with np.load(workdir / "predictions" / f"ft.{SET}.2.test.npz") as f:
        theirs = np.abs(f["outputs"] - f["labels"])
    assert float(found["loss_ft@2"][0]) == pytest.approx(mine.mean(), rel=1e-5)
    share = np.mean([(theirs[m] > mine[m]).mean() for m in range(3)])
    assert float(found["attack_ft@2"][0]) == pytest.approx(share)
    assert float(found["loss_ft@2"][2]) == pytest.approx(theirs[:, 2].mean(), rel=1e-5)
    # The equal image that was not asked for has its own, from the retained samples.
    assert found["id"][6] == "retain-00004" and found["loss_original"][6] != ""
    for model in ("original", "retrain", "ft@2"):
        assert found[f"loss_{model}"][3:6].tolist() == [""] * 3


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_attack_scores_average_to_the_attack_of_the_audit(tmp_path, task):
    """Of all training samples of D_f: the mean is the AUC, ties and failed seeds included."""
    from unlearn_jax.metrics.attacks import auc

    workdir = make(tmp_path, rows=[row(f"forget-{i:05d}", f"forget-{i:05d}", "train")
                                   for i in range(60)], task=task, failed=(("ft", 1),))
    run = read_run(workdir)
    ids = {f"forget-{i:05d}" for i in range(60)}
    _, attacks = samples.scores(run, SET, ModelKey("ft", 2), ids)
    losses = {}
    for split in ("forget", "test"):
        with np.load(workdir / "predictions" / f"ft.{SET}.2.{split}.npz") as f:
            losses[split] = samples._losses(f["outputs"], f["labels"])[[0, 2]]
    if task == "classification":
        with np.load(workdir / "predictions" / f"ft.{SET}.2.test.npz") as f:
            p = np.exp(f["outputs"][0, 5]) / np.exp(f["outputs"][0, 5]).sum()
            assert losses["test"][0, 5] == pytest.approx(-np.log(p[f["labels"][5]]), rel=1e-5)
    expected = np.asarray(auc(losses["forget"], losses["test"])).mean()
    assert np.mean(list(attacks.values())) == pytest.approx(expected, abs=1e-6)


def test_the_page_answers_without_the_rest(workdir):
    write_report(workdir)
    for name in ("receipt.html", "receipt.md"):
        text = (workdir / "receipt" / name).read_text()
        text = text.replace("<sub>", "_").replace("</sub>", "").replace("\\", "")
        for words in (
                "people/x.txt asks to remove 6 images", "1 found (train)",
                f"2 unknown, which the data do not have; skipped: {ACCENT}, =absent",
                "Asked for more than once: forget-00000 (2 times)",
                "retain-00004 (train, the same image as forget-00000)",
                "What the tests say", "M_FT, 2 epochs: ", "Which model to use", "Use M_R of seed",
                "/data/forget-00000", "Do not use M_O any longer", "What these tests cannot show"):
            assert words in text, (name, words)
    verdict = pd.read_csv(workdir / "verdict.csv").verdict[0]
    assert f"M_FT, 2 epochs: {verdict}." in (
        workdir / "receipt" / "receipt.md").read_text().replace("\\", "")
    assert "<script" not in (workdir / "receipt" / "receipt.html").read_text()


def test_no_model_is_recommended_while_an_equal_image_stays(tmp_path):
    write_report(make(tmp_path, rows=[
        row("forget-00000", "forget-00000", "train", 1, "yes", "retain-00004", "yes", "yes"),
        row("", "retain-00004", "train", 0, "yes", "forget-00000", "yes", "yes")]))
    text = (tmp_path / "receipt" / "receipt.md").read_text()
    assert "has learned the image of forget-00000" in text
    assert "None of this run: an equal image stays" in text and "of seed" not in text


def test_without_m_r_no_model_is_recommended(workdir):
    change_results(workdir, {("retrain", metric): None for metric in set(
        pd.read_csv(workdir / "results.csv").query("method == 'retrain'").metric)})
    change_json(workdir / "run.json", lambda r: r["config"].update(
        retrain={"mode": "off", "path": ""}, original={"path": "theirs.safetensors"}))
    write_report(workdir)
    text = (workdir / "receipt" / "receipt.md").read_text()
    assert "No model of this run may be used" in text and "There is no M" in text
    assert "For comparison" not in text
    remains = pd.read_csv(workdir / "receipt" / "remains.csv").set_index("path")
    assert remains.kind["theirs.safetensors"] == "models trained with them"


def test_no_text_of_a_file_becomes_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    write_report(make(tmp_path, rows=[row(evil, "", "unknown")]))
    assert evil not in (tmp_path / "receipt" / "receipt.html").read_text()


def test_the_report_makes_the_receipt_anew_and_the_manifest_names_it(workdir):
    manifest.write(workdir)
    write_report(workdir)
    files = {p.name: p.read_bytes() for p in (workdir / "receipt").iterdir()}
    assert set(files) == {"receipt.html", "receipt.md", "receipt.csv", "remains.csv"}
    assert {f"receipt/{name}" for name in files} <= set(manifest.read(workdir))
    write_report(workdir)
    assert {p.name: p.read_bytes() for p in (workdir / "receipt").iterdir()} == files


@pytest.mark.parametrize("column, value, message", [
    ("forget_set", "other", "'forget_set' holds 'other'; allowed: those of data.json"),
    ("trained_on", "perhaps", "'trained_on' holds 'perhaps'; allowed: yes, no"),
    ("times", "many", "'times' holds 'many'; allowed: a whole number")])
def test_a_changed_file_is_refused(workdir, column, value, message):
    table = pd.read_csv(workdir / "requests.csv", dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(workdir / "requests.csv", index=False)
    with pytest.raises(ReportError, match=message):
        write_report(workdir)


# A store of made-up stages, whose keys the run names.
M_O = {"data": "f00d", "split": {}}
FORGET = {"name": SET, "ids": "0" * 16}
STAGES = {"original": M_O, "retrain": {**M_O, "forget": FORGET},
          "ft": {"original": stage_key("original", M_O), "forget": FORGET}}


def with_store(workdir, root):
    """A store with the models of the run, and of another run that forgot something else."""
    store = Store(root)
    traces.record_samples(store, stage_key("original", M_O), M_O,
                          [["forget-00000", "retain-00004"], ["forget-00001"], ["test-00002"]])
    traces.record_forget_set(store, FORGET, ["forget-00000", "forget-00001"])
    for stage, parts in (*STAGES.items(), ("rnd", {**STAGES["ft"], "forget": {"name": "y"}})):
        with store.write(stage, stage_key(stage, parts), parts) as directory:
            (directory / "checkpoint").mkdir()
            (directory / "checkpoint" / "metadata.json").write_text("{}")

    keys = {f"{m}-{SET}-{b}": stage_key(m, STAGES[m]) for m, b in (("retrain", 12), ("ft", 2))}
    keys["0123456789abcdef"] = stage_key("original", M_O)

    def change(run):
        run["store"] = str(root)
        for stage in run["stages"]:
            stage["key"] = keys.get(stage["key"], stage["key"])

    change_json(workdir / "run.json", change)
    text = (workdir / "results.csv").read_text()
    for old, new in keys.items():
        text = text.replace(old, new)
    (workdir / "results.csv").write_text(text)
    return store


def test_what_is_left_and_where(workdir, tmp_path):
    store = with_store(workdir, tmp_path / "store")
    other = tmp_path / "other" / "run.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"store": str(store.root), "stages": [
        {"key": stage_key("original", M_O)}]}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    write_report(workdir)
    found = pd.read_csv(workdir / "receipt" / "remains.csv")
    by_path = found.set_index("path")
    original = str(store.path("original", stage_key("original", M_O)))
    assert by_path.loc[original, ["kind", "of_this_run", "removed_by_forget_data"]].tolist() == [
        "models trained with them", "yes", "yes"]
    assert by_path.kind[str(store.path("ft", stage_key("ft", STAGES["ft"])))] == "unlearned models"
    retrained = str(store.path("retrain", stage_key("retrain", STAGES["retrain"])))
    assert by_path.kind[retrained] == "models trained without them"
    assert by_path.removed_by_forget_data[retrained] == "no"
    (rnd,) = (store.root / "rnd").glob("*")
    assert by_path.loc[str(rnd), "of_this_run"] == "no"
    assert by_path.kind[str(other.parent)] == "work directories"
    assert by_path.kind["/data/bad.jpg"] == "data files"
    page = (workdir / "receipt" / "receipt.md").read_text().replace("\\", "")
    assert f"unlearn-jax export {retrained} --seed=" in page
    assert f"unlearn-jax forget-data {store.root} --ids=FILE --yes" in page


def test_a_forgotten_model_is_recommended_and_otherwise_m_r(workdir, tmp_path):
    with_store(workdir, tmp_path / "store")
    change_results(workdir, {("ft", "mae_validation"): [5.0, 4.0, float("nan")]})
    run = read_run(workdir)
    ft = ModelKey("ft", 2)

    def chosen(word):
        judged = Judgement(forget_set=SET, model=ft, word=word, reason="", seeds=3, seeds_needed=0,
                           checks=())
        return deploy.choose(run, SET, [judged])

    first, second = chosen(FORGOTTEN)
    assert (first.name, first.seed, second.name) == ("M_FT, 2 epochs", 1, "M_R")
    assert first.command == f"unlearn-jax export {first.path} --seed=1 --to=model.safetensors"
    (only,) = chosen("undecided")
    assert only.name == "M_R" and "no unlearned model of this run has the verdict" in only.why
