import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from unlearn_jax.inspect.__main__ import main
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import Store, stage_key

ROOT = Path(__file__).parents[1]


def tree(scale: float = 1.0) -> dict:
    """Two members; the norms of member 0 can be seen: sqrt(4 * 2^2) = 4, sqrt(9 + 16) = 5."""
    return {
        "params": {
            "stem": {"kernel": np.array([[[2, 2], [2, 2]], [[0, 0], [0, 0]]], np.float32) * scale,
                     "bias": np.array([[3, 4], [1, np.inf]], np.float32)},
            "head": np.array([[1], [1]], np.float32),
        },
        "batch_stats": {"stem": {"mean": np.array([[1, 2, 2], [np.nan, 0, 0]], np.float32)}},
    }


def user(stage: str = "original", forget_set="", seeds=(7, 8)) -> dict:
    return {"stage": stage, "forget_set": forget_set, "epochs": 4, "seeds": list(seeds),
            "config": {"train": {"epochs": 4, "widths": [1, 2]}}, "config_name": "ft",
            "data_fingerprint": "abc123", "step": [11, 22], "images": [640, 700],
            "metric": {"validation_loss": [5.25, math.nan]}, "failed": [False, True]}


@pytest.fixture
def original(tmp_path) -> Path:
    return put(tmp_path, "original", tree(), user())


def put(root: Path, stage: str, arrays: dict, metadata: dict) -> Path:
    s, parts = Store(root), {"metadata": json.dumps(metadata)}
    key = stage_key(stage, parts)
    with s.write(stage, key, parts) as directory:
        checkpoints.save(directory / "checkpoint", arrays, metadata)
    return s.path(stage, key)


def run(capsys, *args) -> str:
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def load(capsys, *args) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(run(capsys, *args, "--json"), parse_constant=refuse)


def fails(capsys, *args, code=2) -> str:
    assert main([str(a) for a in args]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") <= 2
    return err


# --- one checkpoint ---

def test_text(capsys, original):
    out = run(capsys, original)
    lines = [line.split() for line in out.splitlines()]
    assert ["seeds", "7", "8"] in lines and ["stage", "original"] in lines
    assert ["data", "abc123"] in lines
    assert ["parameters", "3", "in", "batch_stats,", "7", "in", "params", "per",
            "member"] in lines
    assert ["0", "7", "-", "11", "640", "false", "5.25"] in lines
    assert ["1", "8", "-", "22", "700", "true", "nan"] in lines
    assert ["params/stem/kernel", "[2,", "2,", "2]", "float32", "4", "32", "B", "4", "0"] in lines
    assert ["params/stem/bias", "[2,", "2]", "float32", "2", "16", "B", "5", "inf"] in lines
    assert ["batch_stats/stem/mean", "[2,", "3]", "float32", "3", "24", "B", "3",
            "nan"] in lines
    # sqrt(16 + 25 + 1)
    assert ["params", "6.481", "inf"] in lines
    assert f"original/{original.name}, finished" in out
    assert not any(line[:1] in (["step"], ["images"]) for line in lines)
    assert "train.epochs" not in out and "2 values; --config" in out
    assert "  train.widths = [1, 2]" in run(capsys, original, "--config")
    # The checkpoint itself says the same.
    assert run(capsys, original / "checkpoint") == out


def test_json(capsys, original):
    r = load(capsys, original)
    assert r["metadata"]["metric"]["validation_loss"] == [5.25, "nan"]
    assert r["members"] == [{"index": 0, "seed": 7, "forget_set": ""},
                            {"index": 1, "seed": 8, "forget_set": ""}]
    assert r["parameters"] == {"batch_stats": 3, "params": 7} and r["bytes"] == 80
    rows = {row["path"]: row for row in r["rows"]}
    assert rows["params/stem/bias"] == {
        "path": "params/stem/bias", "leaves": 1, "parameters": 2, "bytes": 16, "shape": [2, 2],
        "dtype": "float32", "norm": [5.0, "inf"]}
    assert r["norm"]["params"] == [math.sqrt(42), "inf"]
    assert r["stage"]["key"] == original.name


def test_members_and_depth(capsys, original):
    r = load(capsys, original, "--members", "1", "--depth", "2")
    assert [m["seed"] for m in r["members"]] == [8]
    rows = {row["path"]: row for row in r["rows"]}
    assert set(rows) == {"batch_stats/stem", "params/head", "params/stem"}
    assert rows["params/stem"] == {"path": "params/stem", "leaves": 2, "parameters": 6,
                                   "bytes": 48, "norm": ["inf"]}
    assert rows["params/head"]["norm"] == [1.0] and rows["params/head"]["shape"] == [2, 1]
    assert "2 leaves" in run(capsys, original, "--depth", "2")


def test_sort(capsys, original):
    def paths(*args):
        return [row["path"] for row in load(capsys, original, *args)["rows"]]

    assert paths("--sort=bytes") == ["params/stem/kernel", "batch_stats/stem/mean",
                                     "params/stem/bias", "params/head"]
    assert paths("--sort=norm", "--members=0") == ["params/stem/bias", "params/stem/kernel",
                                                   "batch_stats/stem/mean", "params/head"]
    assert paths() == ["batch_stats/stem/mean", "params/head", "params/stem/bias",
                       "params/stem/kernel"]


def test_without_norms_reads_neither_arrays_nor_jax(original):
    for file in (original / "checkpoint" / "arrays").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x" * file.stat().st_size)
    code = ("import sys; from unlearn_jax.inspect.__main__ import main; "
            f"assert main([{str(original)!r}, '--no-norms']) == 0; "
            f"assert main([{str(original.parents[1])!r}]) == 0; "
            "assert 'jax' not in sys.modules and 'orbax' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "params/stem/kernel" in done.stdout and "norm seed" not in done.stdout


def test_checkpoint_without_seeds(capsys, tmp_path):
    checkpoints.save(tmp_path / "c", {"w": np.full((2, 2), 2, np.float32)},
                     {"note": "mine", "metric": {"mae": 6.5}})
    r = load(capsys, tmp_path / "c")
    assert r["members"] == [] and r["parameters"] == {"w": 4} and r["stage"] is None
    assert r["rows"][0]["norm"] == [4.0]
    out = run(capsys, tmp_path / "c")
    assert "note        mine" in out and "mae         6.5" in out


def test_leaf_without_a_member_axis_belongs_to_each(capsys, tmp_path):
    arrays = {"params": {"w": np.ones((2, 4), np.float32), "count": np.array(3, np.int32)}}
    checkpoints.save(tmp_path / "c", arrays, {"seeds": [0, 1]})
    r = load(capsys, tmp_path / "c")
    assert r["parameters"] == {"params": 5}
    assert {row["path"]: row["norm"] for row in r["rows"]} == {
        "params/count": [3.0, 3.0], "params/w": [2.0, 2.0]}


def test_many_members_are_announced(capsys, tmp_path):
    checkpoints.save(tmp_path / "c", {"w": np.ones((10, 2), np.float32)},
                     {"seeds": list(range(10))})
    out = run(capsys, tmp_path / "c")
    assert "seed 7" in out and "norm seed 8" not in out and "2 more members" in out
    assert len(load(capsys, tmp_path / "c")["rows"][0]["norm"]) == 10
    assert "norm seed 9" in run(capsys, tmp_path / "c", "--members=8,9")


def test_arrays_are_read_in_groups(capsys, original, monkeypatch):
    whole = load(capsys, original)
    monkeypatch.setattr("unlearn_jax.inspect.tree._GROUP_BYTES", 40)
    groups = []
    read = checkpoints.restore_leaves
    monkeypatch.setattr(checkpoints, "restore_leaves",
                        lambda path, names: groups.append(list(names)) or read(path, names))
    assert load(capsys, original) == whole
    assert groups == [["batch_stats/stem/mean", "params/head", "params/stem/bias"],
                      ["params/stem/kernel"]]


# --- lists ---

def test_list(capsys, tmp_path, original):
    put(tmp_path, "ft", tree(), user("ft", "20-28"))
    broken = put(tmp_path, "rnd", tree(), user("rnd", "20-28")) / "checkpoint"
    (broken / "metadata.json").write_text("{")
    (tmp_path / "ft" / ".tmp-left" / "checkpoint" / "arrays").mkdir(parents=True)
    checkpoints.save_progress(tmp_path / "population" / "k", 3, tree(), user("ft", "a"))
    assert main([str(tmp_path), "--json"]) == 1  # one of them is damaged
    entries = {e["path"]: e for e in json.loads(capsys.readouterr().out)["checkpoints"]}
    assert len(entries) == 4
    assert entries["population/k/00000003"]["metadata"]["forget_set"] == "a"
    assert "cannot be read" in entries[str(broken.relative_to(tmp_path))]["error"]
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    line = next(x for x in lines if x.startswith("original/")).split()
    assert line[1:10] == ["original", "-", "4", "7", "8", "validation_loss", "5.25", "nan", "7"]
    assert "is damaged" in lines[-1] and lines[-1].startswith("rnd/")


# --- differences ---

def test_diff(capsys, tmp_path, original):
    # Seeds in another order, one more, one missing: members are matched by seed.
    arrays = tree()
    arrays["params"]["stem"]["kernel"] = np.array([[[9, 9], [9, 9]], [[2, 2], [2, 5]]], np.float32)
    arrays["params"]["stem"]["bias"] = np.array([[0, 0], [3, 8]], np.float32)
    arrays["params"]["head"] = np.array([[0], [1]], np.float32)
    arrays["batch_stats"]["stem"]["mean"] = np.array([[0, 0, 0], [1, 2, 2]], np.float32)
    other = put(tmp_path, "ft", arrays, user("ft", "20-28", seeds=(9, 7)))
    r = load(capsys, original, "--diff", other)
    assert r["members"] == [{"index": 0, "seed": 7, "forget_set": "", "other_index": 1,
                             "other_forget_set": "20-28"}]
    assert [(m["index"], m["seed"], m["path"]) for m in r["unmatched"]] == [
        (1, 8, str(original / "checkpoint")), (0, 9, str(other / "checkpoint"))]
    rows = {row["path"]: row for row in r["rows"]}
    # kernel: 3, bias: 4, against norms 4 and 5
    assert rows["params/stem"] == {"path": "params/stem", "distance": [5.0],
                                   "relative": [5 / math.sqrt(41)]}
    assert rows["params/head"]["distance"] == [0.0]
    assert rows["batch_stats/stem"]["distance"] == [0.0]
    assert r["total"]["params"] == {"distance": [5.0], "relative": [5 / math.sqrt(42)]}
    leaves = load(capsys, original, "--diff", other, "--depth=9", "--sort=distance")["rows"]
    assert [(row["path"], row["distance"]) for row in leaves] == [
        ("params/stem/bias", [4.0]), ("params/stem/kernel", [3.0]),
        ("batch_stats/stem/mean", [0.0]), ("params/head", [0.0])]
    leaves = load(capsys, original, "--diff", other, "--depth=9", "--sort=relative")["rows"]
    assert [row["relative"] for row in leaves[:2]] == [[0.8], [0.75]]
    text = run(capsys, original, "--diff", other)
    assert "left out: seed 8 (member 1 of" in text and "left out: seed 9 (member 0 of" in text
    assert "no members match" in fails(capsys, original, "--diff", other, "--members=1")
    assert "distance seed 7" in text
    assert ["params/stem", "5", "0.7809"] in [x.split() for x in text.splitlines()]


def test_diff_of_failed_members_is_nan_without_warnings(capsys, original):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = load(capsys, original, "--diff", original)["rows"]
    assert {r["path"]: r["distance"] for r in rows} == {
        "batch_stats/stem": [0.0, "nan"], "params/head": [0.0, 0.0], "params/stem": [0.0, "nan"]}


def test_diff_from_zero_is_infinite(capsys, tmp_path):
    for name, value in (("a", 0), ("b", 1)):
        checkpoints.save(tmp_path / name, {"w": np.full((1, 4), value, np.float32),
                                           "z": np.zeros((1, 4), np.float32)}, {"seeds": [0]})
    rows = load(capsys, tmp_path / "a", "--diff", tmp_path / "b")["rows"]
    assert [(r["distance"], r["relative"]) for r in rows] == [([2.0], ["inf"]), ([0.0], [0.0])]


def test_diff_against_several_forget_sets(capsys, tmp_path):
    one = {"w": np.array([[1.0], [2.0]], np.float32)}
    four = {"w": np.array([[1.0], [3.0], [5.0], [7.0]], np.float32)}
    checkpoints.save(tmp_path / "original", one, {"seeds": [0, 1], "forget_set": ""})
    many = {"seeds": [0, 1, 0, 1], "forget_set": ["a", "a", "b", "b"]}
    checkpoints.save(tmp_path / "ft", four, many)
    checkpoints.save(tmp_path / "b", one, {"seeds": [0, 1], "forget_set": "b"})
    r = load(capsys, tmp_path / "original", "--diff", tmp_path / "ft")
    assert [(m["seed"], m["other_forget_set"]) for m in r["members"]] == [
        (0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert r["rows"][0]["distance"] == [0.0, 4.0, 1.0, 5.0]
    r = load(capsys, tmp_path / "b", "--diff", tmp_path / "ft")
    assert [(m["seed"], m["other_index"]) for m in r["members"]] == [(0, 2), (1, 3)]
    assert "distance seed 0 b" in run(capsys, tmp_path / "original", "--diff", tmp_path / "ft")


def test_diff_of_different_trees(capsys, tmp_path, original):
    arrays = tree()
    del arrays["params"]["head"]
    arrays["params"]["new"] = np.zeros((2, 1), np.float32)
    arrays["params"]["stem"]["bias"] = np.zeros((2, 3), np.float32)
    other = put(tmp_path, "ft", arrays, user("ft"))
    err = fails(capsys, original, "--diff", other)
    assert "params/head is only in" in err and "params/new is only in" in err
    assert "params/stem/bias is [2, 2] against [2, 3]" in err
    other = put(tmp_path, "rnd", tree(), user("rnd", seeds=(1, 2)))
    assert "no members match: seeds 7, 8" in fails(capsys, original, "--diff", other)


# --- errors ---

def test_errors(capsys, tmp_path, original):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for args, message in [
        ([tmp_path / "missing"], "does not exist"),
        ([tmp_path / "file"], "no directory"),
        ([tmp_path / "empty"], "no checkpoint in"),
        ([tmp_path, "--diff", original], "is not a checkpoint"),
        ([tmp_path, "--depth", "1"], "is not a checkpoint; without other flags"),
        ([original, "--diff", tmp_path / "empty"], "is not a checkpoint"),
        ([original, "--members", "0,5"], "has no member 5; allowed: 0 to 1"),
        ([original, "--members", "a"], "'a' is not a list of numbers"),
        ([original, "--depth", "0"], "--depth is 0; allowed: at least 1"),
        ([original, "--sort", "distance"], "--sort is 'distance'; allowed here: tree, bytes"),
        ([original, "--sort", "norm", "--no-norms"], "--no-norms reads no arrays"),
        ([original, "--no-norms", "--diff", original], "--no-norms reads no arrays"),
        ([original, "--wrong"], "unrecognized arguments: --wrong"),
        ([], "required: PATH"),
    ]:
        assert message in fails(capsys, *args)
    (original / "checkpoint" / "metadata.json").unlink()
    assert "not a (complete) checkpoint" in fails(capsys, original, code=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_arrays(capsys, tmp_path):
    checkpoints.save(tmp_path / "c", {"w": np.arange(4000.0)}, {})
    data = max((tmp_path / "c").rglob("*"), key=lambda p: p.stat().st_size)
    os.truncate(data, 100)
    assert "the leaf w cannot be read" in fails(capsys, tmp_path / "c", code=1)


@pytest.mark.parametrize("name", ["metadata.json", "../DONE.json"])
def test_a_changed_byte_of_a_checkpoint_or_of_its_stage_ends_with_1(capsys, original, name):
    path = original / "checkpoint" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert original.name in fails(capsys, original, code=1)


def test_metadata_that_contradicts_the_arrays(capsys, tmp_path):
    checkpoints.save(tmp_path / "a", tree(), {"seeds": [1, 2, 3]})
    assert "3 seeds, but no leaf has a first axis of 3" in fails(capsys, tmp_path / "a")
    checkpoints.save(tmp_path / "b", tree(), {"seeds": [1, 2], "forget_set": ["a"]})
    assert "2 seeds, 1 forget sets" in fails(capsys, tmp_path / "b")


def test_command_line(tmp_path, original):
    command = [sys.executable, "-m", "unlearn_jax.inspect"]
    done = subprocess.run([*command, str(original), "--json"], cwd=ROOT, capture_output=True,
                          text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["norm"]["params"][0] == math.sqrt(42)
    done = subprocess.run([*command, str(tmp_path / "no")], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path / 'no'} does not exist\n"
    # A reader that stops at once: no traceback.
    pipe = subprocess.Popen([*command, str(original), "--no-norms"], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipe.stdout.close()
    assert pipe.stderr.read() == b"" and pipe.wait() == 0
    pipe.stderr.close()
