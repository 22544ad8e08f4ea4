"""What a run of our own wrote, scored: equal to its results.csv to the bit."""

import csv
import shutil

import numpy as np
import pytest
from test_stages import run

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.score.__main__ import main

pytestmark = pytest.mark.slow
# What predictions alone do not determine: costs, and what is made of them.
COSTS = {"images", "wall_seconds", "flops", "steps", "epochs_trained", "images_vs_retrain",
         "wall_vs_retrain", "flops_vs_retrain", "steps_vs_retrain"}
SCORED = "--config.eval.audits=('mia','lira','distances','confusion')"


def rows(workdir):
    with open(workdir / "results.csv", newline="") as file:
        return {tuple(r[k] for k in ("method", "forget_set", "epochs", "seed", "metric")):
                r["value"] for r in csv.DictReader(file)}


def score(source, out, *flags):
    assert main([str(source), f"--out={out}", *flags]) == 0
    return rows(out)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Exchanged labels, so that attacks judge by others than the true ones, and one M_O for all."""
    path = tmp_path_factory.mktemp("own")
    done = run("ft.py", path / "run", path / "store", SCORED, "--config.unlearn.from_seed=0",
               "--config.data.inject=confusion:20-35:45-60:10",
               "--config.forget.sets=('20-28','random:0.2','injected')", budgets="(1,)")
    assert done.returncode == 0, done.stderr
    return path / "run"


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """Figures take ten times as long as scores."""
    monkeypatch.setattr("unlearn_jax.report.write_report", lambda workdir, bar: read_run(workdir))


def test_scores_of_a_run_equal_its_results_to_the_bit(workdir, tmp_path):
    own, scored = rows(workdir), score(workdir, tmp_path / "out")
    assert any(key[-1] == "confusion_test" for key in scored)
    assert {key[-1] for key in own.keys() - scored.keys()} == COSTS
    assert len(scored) > 500 and {key: own[key] for key in scored} == scored
    # The folder of predictions by itself, with the settings by hand: labels are years.
    again = score(workdir / "predictions", tmp_path / "alone", "--label-unit=years",
                  "--audits=mia,lira,distances")
    assert again == {key: value for key, value in scored.items() if "confusion" not in key[-1]}


def test_files_of_a_run_say_what_models_have_seen(workdir):
    found = {}
    for path in (workdir / "predictions").glob("*.npz"):
        with np.load(path) as file:
            found[path.stem.split(".")[0], path.stem.rsplit(".", 1)[1]] = dict(file.items())
            assert file["member"].shape == file["labels"].shape
            assert file["member"].dtype == np.int8
    for (method, split), arrays in found.items():
        expected = {"retain": {1}, "validation": {2}, "test": {0},
                    "forget": {0} if method == "retrain" else None}[split]
        if expected is not None:
            assert set(arrays["member"].tolist()) == expected, (method, split)
        assert ("peers" in arrays) == (split == "test")
        assert ("from_seed" in arrays) == (method == "ft")
    # no validation sample is injected; of an age range there are some
    with np.load(next((workdir / "predictions").glob("original.20-28.*.forget.npz"))) as file:
        assert set(file["member"].tolist()) == {1, 2}


def test_a_run_without_a_file_is_refused_by_its_name(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / "run")
    path = next((tmp_path / "run" / "predictions").glob("ft.20-28.1.forget.npz"))
    path.unlink()
    assert main([str(tmp_path / "run"), f"--out={tmp_path / 'out'}"]) == 2
    assert "add ft.20-28.1.forget.npz" in capsys.readouterr().err
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--alpha=3"]) == 2
    assert "whose run decides" in capsys.readouterr().err


def test_every_metric_of_scores_has_a_record(workdir, tmp_path):
    names = {key[-1].removeprefix(catalogue.AVERAGED) for key in score(workdir, tmp_path / "out")}
    assert all(catalogue.find(name) for name in names)
