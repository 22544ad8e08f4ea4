"""The whole job on tiny data: real processes, real stores, real checkpoints."""

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import warm
from readme import method_template
from warm import ENV, ROOT

TINY = ["--config.data.size=150", "--config.data.image_size=8", "--config.model.width=2",
        "--config.model.name=resnet4", "--config.model.stem=small", "--config.train.epochs=3",
        "--config.train.batch_size=16", "--config.unlearn.batch_size=16", "--config.seeds=(0,1)",
        "--config.eval.batch_size=50", "--config.train.recalibrate_norms=off",
        "--config.eval.audits=()"]
AUDITED = "--config.eval.audits=('mia',)"
pytestmark = pytest.mark.slow


def command(config, workdir, store, *flags, budgets="(1,2)"):
    # a tuple given twice is added up, so that each test names its budgets once
    return as_typed(config, workdir, store, *TINY, f"--config.unlearn.epochs={budgets}", *flags)


def as_typed(config, workdir, store, *flags):
    return [sys.executable, "-m", "unlearn_jax.main", f"--config=configs/{config}",
            f"--workdir={workdir}", f"--store={store}", *flags]


def run(*args, figures="none", **kwargs):
    return finish(command(*args, **kwargs), figures)


def run_as_typed(*args, figures="none"):
    return finish(as_typed(*args), figures)


def finish(arguments, figures="none"):
    return warm.run(arguments, figures=figures, shared=True)


def table(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def values(workdir):
    """(method, forget set, epochs, seed, metric) -> value, without what a clock decides."""
    return {tuple(r[k] for k in ("method", "forget_set", "epochs", "seed", "metric")):
            float(r["value"]) for r in table(workdir / "results.csv")
            if not r["metric"].startswith("wall")}


def statuses(workdir):
    record = json.loads((workdir / "run.json").read_text())
    return {(s["stage"], s["forget_set"], s["epochs"]): s["status"] for s in record["stages"]
            if s["stage"] not in ("data", "predictions")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished ft run with two forget sets: (work directory, store, its process)."""
    base = tmp_path_factory.mktemp("study")
    flags = ("--config.forget.sets=('20-28','random:0.2')", AUDITED)
    done = run("ft.py", base / "ft", base / "store", *flags, figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    return base / "ft", base / "store", done


def test_the_contract_of_the_work_directory(finished):
    workdir, _, done = finished
    rows = table(workdir / "results.csv")
    assert list(rows[0])[:6] == ["method", "forget_set", "epochs", "seed", "metric", "value"]
    assert {r["method"] for r in rows} == {"median", "original", "retrain", "ft"}
    assert {r["forget_set"] for r in rows} == {"20-28", "random-0.2"}
    assert {(r["method"], r["epochs"]) for r in rows} == {
        ("median", "0"), ("original", "0"), ("retrain", "3"), ("ft", "1"), ("ft", "2")}
    seen = {r["metric"] for r in rows if r["method"] == "ft"}
    assert {"mae_test", "mae_forget", "mae_retain", "mae_validation", "utility", "forgetting@15",
            "F@15", "images", "wall_seconds", "images_vs_retrain", "wall_vs_retrain",
            "averaged:utility"} <= seen
    assert {r["seed"] for r in rows if r["metric"] == "mae_test"} == {"0", "1"}
    assert list(table(workdir / "summary.csv")[0]) == [
        "method", "forget_set", "epochs", "metric", "mean", "std", "ci95_low", "ci95_high", "n"]
    for name in ("report.md", "report.html", "run.json", "history.csv", "data.json",
                 "dropped.csv", "labels.csv"):
        assert (workdir / name).stat().st_size > 0, name
    assert "MAE test" in done.stdout and len(done.stdout.splitlines()) <= 12


def test_labels_are_counted_after_each_step(finished):
    workdir, _, _ = finished
    found = {}
    for row in table(workdir / "labels.csv"):
        found.setdefault((row["step"], row["split"]), {})[row["label"]] = int(row["count"])
    data = json.loads((workdir / "data.json").read_text())["histograms"]
    for split in ("train", "validation", "test"):
        assert found.pop(("split", split)) == data.pop(split)
    assert found.pop(("balanced", "train")) == data.pop("balanced")
    assert {split for step, split in found if step == "balanced"} == {"validation", "test"}
    assert {step: counts for (step, split), counts in found.items() if not split} == data


def test_predictions_agree_with_the_results(finished):
    workdir, _, _ = finished
    with np.load(workdir / "predictions" / "ft.20-28.2.forget.npz") as f:
        assert f["outputs"].shape == (2, len(f["labels"])) and f["outputs"].dtype == np.float32
        assert ((f["labels"] >= 20) & (f["labels"] <= 28)).all()
        assert f["ids"].shape == f["labels"].shape and f["seeds"].tolist() == [0, 1]
        mae = np.abs(f["outputs"] - f["labels"]).mean(1)
    for seed in (0, 1):
        assert values(workdir)["ft", "20-28", "2", str(seed), "mae_forget"] == pytest.approx(
            mae[seed], rel=1e-5)


def images_per_epoch(workdir):
    """(of all training samples, {forget set: of its retained ones}); TINY makes no copies."""
    data = json.loads((workdir / "data.json").read_text())
    everything = data["counts"]["train"]
    assert everything == data["counts"]["train_balanced"]
    retained = {name: everything - f["train"] for name, f in data["forget_sets"].items()}
    assert all(0 < count < everything for count in retained.values())
    return everything, retained


@pytest.mark.parametrize("name", ["20-28", "random-0.2"])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_retrain_and_ft_train_on_the_retain_set_alone(finished, name, seed):
    workdir, _, _ = finished
    everything, retained = images_per_epoch(workdir)
    assert len(set(retained.values())) == 2
    images = {(method, int(epochs)): value
              for (method, *of, epochs, its_seed, metric), value in values(workdir).items()
              if (*of, its_seed, metric) == (name, seed, "images")}
    assert images == {("original", 0): 3 * everything, ("retrain", 3): 3 * retained[name],
                      ("ft", 1): 1 * retained[name], ("ft", 2): 2 * retained[name]}


def test_another_method_reuses_the_models_of_the_store(finished, tmp_path):
    first, store, _ = finished
    done = run("rnd.py", tmp_path / "rnd", store)
    assert done.returncode == 0, done.stderr[-3000:]
    assert statuses(tmp_path / "rnd") == {
        ("original", "", 0): "reused", ("retrain", "20-28", 3): "reused",
        ("rnd", "20-28", 1): "computed", ("rnd", "20-28", 2): "computed"}
    assert "reused" in done.stderr
    mine, theirs = values(tmp_path / "rnd"), values(first)
    for key in mine:
        if key[0] in ("original", "retrain") and key[1] == "20-28":
            np.testing.assert_equal(mine[key], theirs[key])
    everything, _ = images_per_epoch(tmp_path / "rnd")
    for seed in ("0", "1"):
        assert mine["rnd", "20-28", "2", seed, "images"] == 2 * everything


def test_the_same_command_again_computes_nothing(finished, tmp_path):
    first, store, _ = finished
    before = values(first)
    done = run("ft.py", first, store, "--config.forget.sets=('20-28','random:0.2')", AUDITED)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(statuses(first).values()) == {"reused"}
    assert values(first) == before


def test_a_longer_budget_reuses_the_shorter(finished, tmp_path):
    _, store, _ = finished
    done = run("ft.py", tmp_path / "ft", store, budgets="(2,3)", figures="drawn")
    assert done.returncode == 0, done.stderr[-3000:]
    pictures = list((tmp_path / "ft" / "figures").glob("*.png"))
    assert len(pictures) >= 5 and all(p.stat().st_size > 1000 for p in pictures)
    assert statuses(tmp_path / "ft")["ft", "20-28", 2] == "reused"
    assert statuses(tmp_path / "ft")["ft", "20-28", 3] == "computed"


def test_images_streamed_from_the_host_give_the_same_results(finished, tmp_path):
    first, _, _ = finished
    done = run("ft.py", tmp_path / "ft", tmp_path / "store", "--config.parallel.resident=stream")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the images stay on the host" in done.stderr
    mine, theirs = values(tmp_path / "ft"), values(first)
    assert {key[0] for key in mine} == {"median", "original", "retrain", "ft"}
    for key in mine:
        np.testing.assert_array_equal(mine[key], theirs[key], str(key))


def test_sisa_stands_beside_the_models_of_the_store(finished, tmp_path):
    _, store, _ = finished
    flags = ("--config.unlearn.sisa.shards=2", "--config.unlearn.sisa.slices=2")
    done = run("sisa.py", tmp_path / "sisa", store, *flags, budgets="(0,)", figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    assert statuses(tmp_path / "sisa") == {
        ("original", "", 0): "reused", ("retrain", "20-28", 3): "reused",
        ("sisa_original", "", 3): "computed", ("sisa", "20-28", 3): "computed"}
    found = values(tmp_path / "sisa")
    assert {key[0] for key in found} == {"median", "original", "retrain", "sisa_original", "sisa"}
    measured = {"mae_test", "mae_forget", "utility", "forgetting@15", "F@15", "images_vs_retrain"}
    speedups = {f"sisa_speedup_{name}" for name in ("measured_images", "expected", "nominal")}
    assert measured <= {key[4] for key in found if key[0] == "sisa_original"}
    assert measured | speedups <= {key[4] for key in found if key[0] == "sisa"}
    with np.load(tmp_path / "sisa" / "predictions" / "sisa.20-28.3.test.npz") as f:
        assert f["outputs"].shape == (2, len(f["labels"])) and f["seeds"].tolist() == [0, 1]
    everything, retained = images_per_epoch(tmp_path / "sisa")
    for seed in ("0", "1"):
        # 2 slices of 2 epochs are 3 passes, but that a slice may be a sample longer
        assert found["sisa_original", "20-28", "3", seed, "images"] == pytest.approx(
            3 * everything, abs=4)
        assert found["sisa", "20-28", "3", seed, "images"] <= 3 * retained["20-28"] + 30
        assert found["sisa", "20-28", "3", seed, "sisa_speedup_nominal"] == 6
    assert "Speed-up of the deletion" in (tmp_path / "sisa" / "report.md").read_text()


# Dies in the third epoch of training, between two members.
KILLED = """
import os, runpy, signal
from unlearn_jax.engine import run as engine

batches = engine.epoch_batches

def dying(member, name, epoch, *args):
    if (name, member.seed, epoch) == ("train", 1, 2):
        os.kill(os.getpid(), signal.SIGKILL)
    return batches(member, name, epoch, *args)

engine.epoch_batches = dying
runpy.run_module("unlearn_jax.main", run_name="__main__", alter_sys=True)
"""


def test_killed_in_mid_training_it_resumes_to_the_same_numbers(finished, tmp_path):
    first, _, _ = finished
    store = tmp_path / "store"
    args = command("ft.py", tmp_path / "ft", store, "--config.train.checkpoint_seconds=0.0")
    killed = subprocess.run([sys.executable, "-c", KILLED, *args[3:]], cwd=ROOT, env=ENV,
                            capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert statuses(tmp_path / "ft") == {}
    done = run("ft.py", tmp_path / "ft", store, "--config.train.checkpoint_seconds=0.0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert statuses(tmp_path / "ft") == {
        ("original", "", 0): "resumed", ("retrain", "20-28", 3): "resumed",
        ("ft", "20-28", 1): "computed", ("ft", "20-28", 2): "computed"}
    assert "resumed after epoch" in done.stderr
    # M_O and M_R trained beside one forget set are those trained beside two
    mine, theirs = values(tmp_path / "ft"), values(first)
    assert {key[0] for key in mine} == {"median", "original", "retrain", "ft"}
    for key in mine:
        np.testing.assert_array_equal(mine[key], theirs[key], str(key))
    assert not list(store.glob("population/*/*"))


def test_classification_and_a_file_of_ids(tmp_path):
    (tmp_path / "requests.txt").write_text(
        "# deletion requests\n" + "\n".join(f"digits-{i:04d}" for i in range(0, 400, 3)))
    done = run("rnd.py:digits", tmp_path / "rnd", tmp_path / "store",
               f"--config.forget.sets=('class:3','ids:{tmp_path / 'requests.txt'}')",
               budgets="(1,)", figures="made")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = table(tmp_path / "rnd" / "results.csv")
    assert {r["forget_set"] for r in rows} == {"class-3", "ids-requests"}
    assert {"accuracy_test", "accuracy_forget", "forgetting@0.25"} <= {r["metric"] for r in rows}


def test_a_method_from_a_file_runs_beside_the_others(finished, tmp_path):
    """The file is the template of README.md."""
    first, store, _ = finished
    (tmp_path / "anchored.py").write_text(method_template())
    flags = (f"--config.unlearn.method={tmp_path / 'anchored.py'}:METHOD",
             "--config.unlearn.learning_rate=1e-4")
    done = run("ft.py", tmp_path / "mine", store, *flags, budgets="(1,)")
    assert done.returncode == 0, done.stderr[-3000:]
    assert statuses(tmp_path / "mine") == {
        ("original", "", 0): "reused", ("retrain", "20-28", 3): "reused",
        ("anchored-METHOD", "20-28", 1): "computed"}
    mine, theirs = values(tmp_path / "mine"), values(first)
    assert {key[0] for key in mine} == {"median", "original", "retrain", "anchored-METHOD"}
    everything, _ = images_per_epoch(tmp_path / "mine")
    for seed in ("0", "1"):
        own = ("anchored-METHOD", "20-28", "1", seed)
        assert np.isfinite(mine[*own, "mae_forget"]) and np.isfinite(mine[*own, "F@15"])
        assert mine[*own, "mae_forget"] != theirs["original", "20-28", "0", seed, "mae_forget"]
        assert mine[*own, "images"] == everything  # a pass over D_f and one over D_r
    assert (tmp_path / "mine" / "predictions" / "anchored-METHOD.20-28.1.forget.npz").exists()
    # with another text it is another method
    with open(tmp_path / "anchored.py", "a") as f:
        f.write("# changed\n")
    done = run("ft.py", tmp_path / "mine", store, *flags, budgets="(1,)")
    assert done.returncode == 0, done.stderr[-3000:]
    assert statuses(tmp_path / "mine")["anchored-METHOD", "20-28", 1] == "computed"
    assert values(tmp_path / "mine") == mine


def test_inspect_reads_every_checkpoint(finished):
    _, store, _ = finished
    found = [next(store.glob(f"{stage}/*/checkpoint")) for stage in ("original", "retrain", "ft")]
    for path in found:
        done = subprocess.run([sys.executable, "-m", "unlearn_jax.inspect", str(path), "--json",
                               "--no-norms"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
