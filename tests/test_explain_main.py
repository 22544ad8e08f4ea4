"""The command on a real, tiny run: real checkpoints in a real store."""

import csv
import errno
import json
import runpy
import shutil
import signal
import sys
from unittest import mock

import ml_collections
import numpy as np
import pytest
import undrawn

from unlearn_jax import stages, startup
from unlearn_jax.attribution.likeness import unit_maps
from unlearn_jax.config import check_config, default_config
from unlearn_jax.explain import __main__ as command
from unlearn_jax.report.output import Output
from unlearn_jax.report.sections import layers
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt

METHODS = {"original", "retrain", "ft"}


def config(**evaluated):
    """Of a tiny run that explains its models."""
    c = default_config()
    with c.unlocked():
        c.seeds = (0, 1)
        c.data.update(size=120, image_size=8)
        c.model.update(name="resnet4", width=2, stem="small")
        c.train.update(epochs=1, batch_size=16, recalibrate_norms="off")
        c.unlearn.update(epochs=(1,), batch_size=16)
        c.eval.update(batch_size=50, explain_samples=3, explain_steps=2, audits=())
        c.eval.update(evaluated)
    return c


def run_study(c, base, name, folder="run"):
    """The work directory of a finished run."""
    check_config(c)
    store = Store(base / "store")
    store.create()
    stages.run_study(c, name, base / folder, store, "python -m unlearn_jax.main")
    return base / folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a run with explanations."""
    return run_study(config(), tmp_path_factory.mktemp("explain"), "ft")


ARMS = {"ft": dict(method="ft"), "rnd": dict(method="rnd", labels="uniform"),
        "rnd_offset": dict(method="rnd", labels="offset")}


@pytest.fixture(scope="module")
def arms(finished):
    """The same with arms, two of them of one method; the second forget set has few samples.

    What both runs have comes from the store.
    """
    c = config()
    with c.unlocked():
        c.forget.sets = ("20-28", "59-60")
        c.thesis.arms = tuple(ARMS)
        for arm, own in ARMS.items():
            c.thesis.unlearn[arm] = ml_collections.ConfigDict(own)
    with undrawn.none():
        return run_study(c, finished.parent, "thesis", "arms")


@pytest.fixture
def run(capsys):
    """Runs the command; returns its status and what it wrote to stdout and stderr."""
    def call(*args):
        # `set_up` is for a whole process
        with mock.patch.object(startup, "set_up"):
            status = command.main([str(a) for a in args])
        written = capsys.readouterr()
        return status, written.out, written.err

    return call


def table(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def values(directory, **wanted):
    return {(r["method"], int(r["seed"])): float(r["value"])
            for r in table(directory / "explain.csv")
            if all(r[k] == v for k, v in wanted.items())}


def test_a_run_explains_its_models(finished):
    rows = table(finished / "explain.csv")
    assert {r["method"] for r in rows} == METHODS
    assert {r["measure"] for r in rows} == {"cosine", "rank_correlation", "unexplained",
                                            "changed_channels"}
    everyone = {(m, s) for m in METHODS for s in (0, 1)}
    likeness = dict(map="ig", measure="cosine", set="forget", against="retrain")
    # M_R with itself is no comparison; with the other seed's it is the ceiling.
    assert set(values(finished, **likeness, seeds="same")) == {
        key for key in everyone if key[0] != "retrain"}
    assert set(values(finished, **likeness, seeds="other")) == everyone
    assert all(-1 <= v <= 1 for v in values(finished, **likeness).values())
    found = table(finished / "channels.csv")
    assert len(found) == 3 * 2 * 2 * 2  # models, seeds, sets, channels
    for r in found:
        if r["method"] == "original":
            assert float(r["from_original"]) == 0
    with np.load(finished / "explanations" / "20-28.npz") as f:
        assert f["images"].shape == (6, 8, 8, 3) and f["ig"].shape == (3, 6, 8, 8)
        assert f["sets"].tolist() == ["forget"] * 3 + ["retain"] * 3
        labels = f["labels"][:3]
        assert ((labels >= 20) & (labels <= 28)).all()


def test_changes_of_channels_are_differences_of_means(finished):
    rows = {(r["method"], r["seed"], r["set"], r["channel"]): r
            for r in table(finished / "channels.csv")}
    for (_, *key), r in rows.items():
        for reference in ("original", "retrain"):
            change = float(r["mean"]) - float(rows[reference, *key]["mean"])
            assert float(r[f"from_{reference}"]) == pytest.approx(change, abs=1e-9)


def maps_of(directory, store):
    """Unit maps `[M, N, P]` of D_f of M_O, M_FT and M_R, as the store has them."""
    stages = json.loads((directory / "run.json").read_text())["stages"]
    for key in [s["key"] for s in stages if s["stage"] == "explain"]:
        with np.load(Store(store).path("explain", key) / "explanation.npz") as f:
            yield unit_maps(f["pixels"][:, :3], "cosine")


def test_the_original_of_a_member_is_the_one_it_started_from(finished):
    c = config()
    with c.unlocked():
        c.unlearn.from_seed = 1
        c.unlearn.learning_rate = 1e-7  # M_FT is M_O again, but for its running statistics
    with undrawn.none():
        path = run_study(c, finished.parent, "ft", "from_seed")
    means = {(r["method"], r["seed"], r["set"], r["channel"]): float(r["mean"])
             for r in table(path / "channels.csv")}
    for r in (r for r in table(path / "channels.csv") if r["method"] == "ft"):
        for reference, seed in (("original", "1"), ("retrain", r["seed"])):
            change = float(r["mean"]) - means[reference, seed, r["set"], r["channel"]]
            assert float(r[f"from_{reference}"]) == pytest.approx(change, abs=1e-9)
    original, tuned, _ = maps_of(path, finished.parent / "store")
    of = dict(map="ig", measure="cosine", set="forget", against="original")
    for seeds, position in (("same", 1), ("other", 0)):
        found = values(path, **of, seeds=seeds)
        for m in (0, 1):
            expected = (original[position] * tuned[m]).sum(-1).mean()
            assert found["ft", m] == pytest.approx(expected, abs=1e-6)
    moved = [float(r["to_original"]) / float(r["norm"]) for r in table(path / "layers.csv")
             if r["method"] == "ft" and r["layer"] == "output"]
    assert len(moved) == 2 and max(moved) < 1e-4


def test_a_run_writes_distances_of_layers(finished):
    rows = table(finished / "layers.csv")
    names = [r["layer"] for r in rows if (r["method"], r["seed"]) == ("ft", "0")]
    assert names[0] == "stem_conv" and names[-1] == "output"
    for r in rows:
        assert (float(r["to_original"]) == 0) == (r["method"] == "original")
        assert (float(r["to_retrain"]) == 0) == (r["method"] == "retrain")
        assert float(r["norm"]) > 0 and float(r["floor"]) >= 0


def test_arms_of_one_method_are_apart(arms):
    everyone = {(m, f) for m in ("original", "retrain", *ARMS) for f in ("20-28", "59-60")}
    for name, values in (("layers.csv", ("norm",)), ("explain.csv", ("value",)),
                         ("channels.csv", ("mean",))):
        rows = table(arms / name)
        assert {(r["method"], r["forget_set"]) for r in rows} == everyone, name
        identity = [c for c in ("method", "forget_set", "epochs", "seed", "set", "layer", "channel",
                                "map", "measure", "against", "seeds") if c in rows[0]]
        assert len({tuple(r[c] for c in identity) for r in rows}) == len(rows), name
        found = {arm: [r[c] for r in rows for c in values if r["method"] == arm] for arm in ARMS}
        assert found["rnd"] != found["rnd_offset"], name
    with np.load(arms / "explanations" / "20-28.npz") as f:
        assert sorted(f["methods"]) == sorted(("original", "retrain", *ARMS))
        ig = dict(zip(f["methods"].tolist(), f["ig"]))
        assert (ig["rnd"] != ig["rnd_offset"]).any()
    # what stands there is of the models that results.csv names
    named = {(r["method"], r["forget_set"]): r["stage"] for r in table(arms / "results.csv")}
    for r in table(arms / "explain.csv"):
        assert r["stage"] == named[r["method"], r["forget_set"]]
    section = layers.section(read_run(arms), "20-28", Output())
    assert len({row[0].text for row in section.blocks[0].rows}) == 2 + len(ARMS)


def test_sets_of_different_sizes_are_explained(arms):
    rows = [r for r in table(arms / "explain.csv") if r["measure"] == "unexplained"]
    samples = {(r["forget_set"], r["set"]): int(r["samples"]) for r in rows}
    assert samples["20-28", "forget"] == 3 and 0 < samples["59-60", "forget"] < 3


def test_the_report_tells_of_it(finished):
    text = (finished / "report.md").read_text()
    for words in ("Distances of weights", "Explanations", "Likeness of maps",
                  "explained-ig-samples-20-28.png", "explained-gradcam-means-20-28.png",
                  "layers-20-28.png"):
        assert words in text, words


def test_the_command_explains_a_finished_run(finished, tmp_path, run):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    with undrawn.drawn_again():
        status, out, err = run(finished, f"--out={tmp_path / 'out'}", "--samples=6",
                               "--models=original,ft", "--sets=forget", "--baseline=white")
    assert (status, err) == (0, "") and out.strip() == str(tmp_path / "out" / "explain.html")
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before
    rows = table(tmp_path / "out" / "explain.csv")
    assert {(r["method"], r["set"]) for r in rows} == {("original", "forget"), ("ft", "forget")}
    assert {r["samples"] for r in rows if r["measure"] == "unexplained"} == {"6"}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["config"]["eval"]["explain_baseline"] == "white" and record["finished"]
    text = (tmp_path / "out" / "explain.md").read_text()
    assert "--models=original,ft" in text and "The explanations are about" in text
    assert "<img" in (tmp_path / "out" / "explain.html").read_text()
    pictures = list((tmp_path / "out" / "figures").glob("explained-*.png"))
    assert "explained-ig-samples-20-28.png" in {p.name for p in pictures}
    assert all(p.stat().st_size > 1000 for p in pictures)


def test_the_command_explains_arms(arms, tmp_path, run):
    status, _, err = run(arms, f"--out={tmp_path / 'out'}", "--samples=3", "--steps=2")
    assert (status, err) == (0, "")
    for name in ("explain.csv", "channels.csv"):
        assert (tmp_path / "out" / name).read_text() == (arms / name).read_text()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {s["status"] for s in record["stages"] if s["stage"] == "explain"} == {"reused"}
    run(arms, f"--out={tmp_path / 'one'}", "--samples=3", "--steps=2", "--models=rnd_offset")
    assert {r["method"] for r in table(tmp_path / "one" / "explain.csv")} == {"rnd_offset"}
    status, _, err = run(arms, f"--out={tmp_path / 'two'}", "--models=rnd_units")
    assert status == 2 and "allowed here: original, ft, rnd, rnd_offset, retrain" in err


def test_the_same_explanation_comes_from_the_store(finished, tmp_path, run):
    run(finished, f"--out={tmp_path / 'out'}", "--samples=3", "--steps=2")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {s["status"] for s in record["stages"] if s["stage"] == "explain"} == {"reused"}
    assert (tmp_path / "out" / "explain.csv").read_text() == (
        finished / "explain.csv").read_text()


def test_a_signal_is_heeded_before_the_next_models(finished, tmp_path, run, monkeypatch):
    monkeypatch.setattr(interrupt, "_received", [signal.SIGTERM])
    with pytest.raises(interrupt.Interrupted):
        run(finished, f"--out={tmp_path / 'out'}", "--samples=5")
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


def test_it_starts_and_ends_as_a_run_does(finished, tmp_path, monkeypatch):
    begun = []

    def full(config, store):
        begun.append((config.data.size, store.root))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(startup, "set_up", full)
    monkeypatch.setattr(sys, "argv", ["explain", str(finished), f"--out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="no room left on the disk"):
        runpy.run_path(command.__file__, run_name="__main__")
    assert begun == [(120, finished.parent / "store")]


@pytest.mark.parametrize("flag, words", [
    ("--models=original,rnd", "--models has 'rnd'; allowed here: original, ft, retrain"),
    ("--sets=test", "--sets has 'test'; allowed here: forget, retain"),
    ("--sets=forget,forget", "each once"),
    ("--samples=0", "--samples is 0; allowed: at least 1"),
    ("--baseline=pink", "'pink'; allowed: one of 'black', 'grey', 'white'"),
    ("--stage=2", "eval.explain_stage is 2; allowed: 0 (the last) to 1"),
    ("--store=nowhere", "the store nowhere is not there; give its place as --store=DIR"),
    ("--wrong", "unrecognized arguments: --wrong"),
])
def test_what_the_run_does_not_have_is_refused(finished, tmp_path, run, flag, words):
    status, out, err = run(finished, f"--out={tmp_path / 'out'}", flag)
    assert (status, out) == (2, "") and words in err
    assert not (tmp_path / "out").exists()


def test_what_is_no_finished_run_is_refused(finished, tmp_path, run):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    assert "is the work directory itself" in run(copy, f"--out={copy}")[2]
    (copy / "manifest.json").unlink()  # as in a run that has not finished
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "finished": False}))
    assert "has not finished" in run(copy)[2]
    merged = [{"directory": "runs/a"}, {"directory": "runs/b"}]
    (copy / "run.json").write_text(json.dumps({**record, "merged": merged}))
    assert "is merged from runs/a, runs/b: explain those" in run(copy)[2]
    (tmp_path / "other").mkdir()
    (copy / "run.json").write_text(json.dumps({**record, "store": str(tmp_path / "other")}))
    assert "lacks the models of 'original'" in run(copy)[2]
    (copy / "run.json").write_text(json.dumps({**record, "data_fingerprint": "0" * 32}))
    assert "explanations would be of other images" in run(copy)[2]
    (copy / "run.json").unlink()
    assert "is no work directory of a run" in run(copy)[2]
    assert run(copy)[0] == 2
