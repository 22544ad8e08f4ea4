import json
import shutil

import numpy as np
import pytest

from unlearn_jax.storage import metadata
from unlearn_jax.storage.metadata import CheckpointError

LEAVES = {"params/w": {"shape": [3, 2], "dtype": "bfloat16", "digest": "00"}}


def write(path, user, leaves=LEAVES, empty=()):
    (path / "arrays").mkdir(parents=True, exist_ok=True)
    (path / "metadata.json").write_text(
        metadata.text(user, leaves, list(empty), "2026-01-02T03:04:05+00:00"))


def test_round_trip(tmp_path):
    user = {"seeds": (0, 1), "config": {"a": {"b": (0.1, True, None)}}, "n": np.int32(3),
            "metric": {"mae": np.array([1.5, np.nan]), "top": float("inf"), "low": -np.inf}}
    write(tmp_path, user, empty=["batch_stats"])
    content = metadata.read(tmp_path)
    got = content["metadata"]
    assert got["seeds"] == [0, 1] and got["config"] == {"a": {"b": [0.1, True, None]}}
    assert got["n"] == 3 and type(got["n"]) is int
    assert got["metric"]["mae"][0] == 1.5 and np.isnan(got["metric"]["mae"][1])
    assert got["metric"]["top"] == np.inf and got["metric"]["low"] == -np.inf
    assert content["empty"] == ["batch_stats"]
    assert content["time"] == "2026-01-02T03:04:05+00:00"
    (shape, dtype), = metadata.specs(content).values()
    assert shape == (3, 2) and dtype.name == "bfloat16" and dtype.itemsize == 2


def test_file_is_strict_json(tmp_path):
    write(tmp_path, {"nan": float("nan")})

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "metadata.json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize("user,path", [
    ({"a": {"b": [1, {2}]}}, r"metadata\.a\.b\[1\] is \{2\} of type set"),
    ({"a": {3: 1}}, "metadata.a has the key 3"),
])
def test_refuses_other_kinds(tmp_path, user, path):
    with pytest.raises(TypeError, match=path):
        write(tmp_path, user)


@pytest.mark.parametrize("old,new,message", [
    ('"seed": 1', '"seed": 3', "does not match its digest"),
    ('"float32"', '"float64"', "does not match its digest"),
    ('"format": 1', '"format": 2', "does not match its digest"),
    ('"seed": 1', '"seed": 1,,', "cannot be read"),
    ('"digest": "0123', '"digits": "0123', "does not match its digest"),
    ('{', '[', "cannot be read"),
])
def test_damage(tmp_path, old, new, message):
    write(tmp_path, {"seed": 1}, {"w": {"shape": [3], "dtype": "float32", "digest": "0123"}})
    text = (tmp_path / "metadata.json").read_text()
    assert old in text
    (tmp_path / "metadata.json").write_text(text.replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        metadata.read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"digest": "00"}'])
def test_other_json(tmp_path, content):
    write(tmp_path, {})
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        metadata.read(tmp_path)


def test_a_checkpoint_that_goes_while_it_is_read(tmp_path, monkeypatch):
    write(tmp_path / "a", {})
    monkeypatch.setattr(metadata, "is_checkpoint", lambda path: shutil.rmtree(path) is None)
    with pytest.raises(CheckpointError, match="a cannot be read: No such file"):
        metadata.read(tmp_path / "a")


def test_other_format(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "_FORMAT", 7)
    write(tmp_path, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 7; this version reads 1"):
        metadata.read(tmp_path)
