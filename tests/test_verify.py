"""Reading a store and work directories back: what is listed, and what is removed."""

import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_workdir import change_json, write_workdir
from tiny_faces import jpeg, load, settings, write_good
from toy import recipe

from unlearn_jax.report import write_report
from unlearn_jax.stages.graph import Stage
from unlearn_jax.stages.progress import CheckpointSaver
from unlearn_jax.storage import checkpoints, manifest
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.system import compiled
from unlearn_jax.verify.__main__ import main

pytestmark = pytest.mark.usefixtures("no_figures")

TREE = {"params": {"w": np.arange(60, dtype=np.float32).reshape(2, 30)}}
PARTS = {"data": "d"}
KEY = stage_key("original", PARTS)
PREDICTIONS = {"model": KEY}
UNTRAINED = Stage("retrain", None, 3, {"data": "other"})


def write_store(root: Path, known=None) -> Store:
    """A stage of models, one of predictions, and the progress of a third."""
    store = Store(root)
    with store.write("original", KEY, PARTS) as directory:
        checkpoints.save(directory / "checkpoint", TREE, known or {
            "seeds": [0, 1], "config": {"data": {"source": "synthetic"}},
            "data_fingerprint": "f"})
        (directory / "history.json").write_text("[]")
    with store.write("predictions", stage_key("predictions", PREDICTIONS), PREDICTIONS) as d:
        np.save(d / "test.npy", np.arange(6.0))
    CheckpointSaver(store, recipe(), [UNTRAINED], 0).save(3, TREE, {})
    value = jax.numpy.zeros(3).tobytes()
    (root / "compiled").mkdir()
    (root / "compiled" / "a-cache").write_bytes(value + b"unlearn_jax" + compiled._hash(value))
    return store


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store")


def listed(capsys, path, *flags):
    """(exit code, [(kind, path)])."""
    code = main([str(path), *flags])
    lines = capsys.readouterr().out.splitlines()[:-1]
    return code, sorted((line[:9].strip(), line[10:].split(": ")[0].removeprefix(f"{path}/"))
                        for line in lines)


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def test_a_store_as_it_was_written(store, capsys):
    assert main([str(store.root)]) == 0
    assert capsys.readouterr().out == f"{store.root}: all as it was written\n"


def test_every_changed_file_of_a_store_is_listed(store, capsys):
    files = sorted(p for p in store.root.rglob("*")
                   if p.is_file() and p.suffix != ".lock" and p.stat().st_size)
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        change(path)
        code, found = listed(capsys, store.root)
        name = str(path.relative_to(store.root))
        # A changed marker is the stage's; a changed array its checkpoint's. Orbax's own files
        # beside the arrays of half-trained models have no digest, and decide nothing.
        assert code == (1 if found else 0)
        assert any(name == p or name.startswith(f"{p}/") for _, p in found) or (
            name.startswith("population/") and "/arrays/" in name), (name, found)
        path.write_bytes(content)
    assert main([str(store.root)]) == 0


def test_missing_files_are_listed(store, capsys):
    path = store.path("original", KEY)
    (path / "history.json").unlink()
    assert listed(capsys, store.root) == (1, [("missing", f"original/{KEY}/history.json")])


def test_a_store_of_an_earlier_version_is_read_as_far_as_it_can_be(store, capsys):
    for marker in store.root.glob("*/*/DONE.json"):
        change_json(marker, lambda m: (m.pop("digest"), m.pop("digests")))
    assert listed(capsys, store.root) == (0, [])
    (array,) = store.root.glob("predictions/*/test.npy")
    array.write_bytes(b"x" * array.stat().st_size)
    for path in store.path("original", KEY).glob("checkpoint/arrays/**/d/*"):
        change(path)
    assert listed(capsys, store.root) == (1, [
        ("damaged", f"original/{KEY}/checkpoint"),
        ("damaged", str(array.relative_to(store.root)))])


def test_orphans_and_left_over_progress_can_be_removed(store, capsys):
    root = store.root
    gone = {"model": "0" * 16}
    with store.write("relearn", stage_key("relearn", gone), gone) as directory:
        (directory / "losses.json").write_text("[]")
    (root / "ft" / ("1" * 16)).mkdir(parents=True)  # never finished
    (root / "ft" / ".tmp-a").mkdir()
    (root / "ft" / ".tmp-a" / ".lock").touch()
    (store.path("original", KEY) / "extra").write_text("x")
    with store.write(UNTRAINED.method, UNTRAINED.key, UNTRAINED.parts) as directory:
        (directory / "models").write_text("x")
    (progress,) = root.glob("population/*/*/")
    unread, young = (progress.with_name(c * 16) for c in "ab")
    for directory in (unread, young):
        directory.mkdir()
    (unread / "stages.json").write_text("[[")
    expected = [("left over", str(p.relative_to(root))) for p in (progress, unread)] + [
        ("orphaned", "ft/.tmp-a"), ("orphaned", f"ft/{'1' * 16}"),
        ("orphaned", f"original/{KEY}/extra"),
        ("orphaned", f"relearn/{stage_key('relearn', gone)}")]
    assert listed(capsys, root) == (1, sorted(expected))
    with store.lock("ft", "1" * 16):  # another process has begun to train it
        assert listed(capsys, root, "--prune") == (1, sorted(expected))
    assert listed(capsys, root, "--prune") == (0, [("orphaned", f"ft/{'1' * 16}")])
    assert listed(capsys, root) == (0, [])
    assert store.complete("original", KEY) and young.exists()
    os.utime(young, (time.time() - 7200,) * 2)
    assert listed(capsys, root, "--prune")[0] == 0 and not young.exists()


def test_damaged_files_are_not_removed(store, capsys):
    path = store.path("original", KEY) / "history.json"
    path.write_text("{}")
    for _ in range(2):
        assert listed(capsys, store.root, "--prune") == (1, [
            ("damaged", str(path.relative_to(store.root)))])


def test_changed_source_files_are_told_of(tmp_path, capsys):
    folder = write_good(tmp_path / "faces")
    root = tmp_path / "store"
    dataset = load(folder, root / "data")
    write_store(root, {"seeds": [0, 1], "config": {"data": settings(folder).to_dict()},
                       "data_fingerprint": dataset.fingerprint})
    assert listed(capsys, root) == (0, [])
    images = next((root / "data").glob("*/images.npy"))
    content = images.read_bytes()
    change(images)
    assert listed(capsys, root) == (1, [("damaged", f"data/{images.parent.name}")])
    images.write_bytes(content)
    path = next(folder.iterdir())
    status, size = path.stat(), path.stat().st_size
    path.write_bytes(jpeg(200)[:-2] + b"\0" * (size - len(jpeg(200))) + b"\xff\xd9")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    from unlearn_jax.verify import store as verify_store
    verify_store._compare_data.cache_clear()
    assert listed(capsys, root) == (1, [("changed", str(folder))])


# --- work directories ---

@pytest.fixture
def run(tmp_path):
    directory = write_workdir(tmp_path / "run")
    manifest.write(directory)
    write_report(directory)
    return directory


def test_every_changed_or_missing_file_of_a_work_directory_is_listed(run, capsys):
    assert listed(capsys, run) == (0, [])
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        content = path.read_bytes()
        change(path)
        code, found = listed(capsys, run)
        assert code == 1 and ("damaged", str(path.relative_to(run))) in found
        path.write_bytes(content)
    (run / "results.csv").unlink()
    assert listed(capsys, run) == (1, [("missing", "results.csv")])


def test_orphans_of_a_work_directory_go_and_what_is_the_users_stays(run, capsys):
    (run / "figures").mkdir()
    for name in ("notes.txt", "notes.csv", "predictions/rnd.20-28.2.test.npz", "figures/.tmp-a"):
        (run / name).write_text("x")
    os.utime(run / "figures/.tmp-a", (time.time() - 7200,) * 2)
    orphans = [("orphaned", "figures/.tmp-a"), ("orphaned", "predictions/rnd.20-28.2.test.npz")]
    assert listed(capsys, run) == (1, orphans)
    assert listed(capsys, run, "--prune") == (0, orphans)
    assert listed(capsys, run) == (0, [])
    assert (run / "notes.txt").exists() and (run / "notes.csv").exists()


def test_a_report_that_was_killed_is_listed(run, capsys):
    manifest.begin_report(run)
    assert listed(capsys, run) == (1, [("missing", "report.html")])


def test_runs_without_a_manifest(run, capsys):
    manifest.remove(run)
    assert listed(capsys, run) == (0, [])  # of an earlier version
    change_json(run / "run.json", lambda r: r.update(finished=False))
    assert listed(capsys, run) == (1, [("missing", "manifest.json")])
    (run / "results.csv").write_text("method\n")
    assert main([str(run)]) == 1 and "the column" in capsys.readouterr().out


def test_a_sweep_is_its_runs(run, tmp_path, capsys):
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "results.csv").write_text("a,b\n")
    manifest.write(tmp_path, ("results.csv",))
    assert listed(capsys, tmp_path) == (0, [])
    for name in ("results.csv", "run/data.json"):
        change(tmp_path / name)
    assert listed(capsys, tmp_path) == (1, [("damaged", "results.csv"),
                                            ("damaged", "run/data.json")])


@pytest.mark.parametrize("name, words", [("none", "does not exist"), ("file", "is no directory"),
                                         ("empty", "no store, no work directory and no sweep")])
def test_other_paths_are_refused(tmp_path, capsys, name, words):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / name)]) == 2
    assert words in capsys.readouterr().err
    assert main([]) == 2 and "usage: python -m unlearn_jax.verify" in capsys.readouterr().err
