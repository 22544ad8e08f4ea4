"""A run that its disks have no room for is refused before any training."""

import dataclasses
import shutil
import types
from collections import namedtuple

import jax
import pytest
from test_stages_rehearsal import make_study

from unlearn_jax import stages
from unlearn_jax.engine.memory import tree_bytes
from unlearn_jax.stages.graph import original_stage, retrain_stage, unlearn_stages
from unlearn_jax.stages.room import require_room
from unlearn_jax.storage.store import Store
from unlearn_jax.system import disk

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def study(loaded, tmp_path):
    run = types.SimpleNamespace(directory=tmp_path / "w")
    return dataclasses.replace(loaded, store=Store(tmp_path / "store"), run=run)


def with_free(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))


def planned(study):
    original = original_stage(study)
    retrained = [retrain_stage(study, original, f) for f in study.splits.forget_sets]
    made = [s for f in study.splits.forget_sets for s in unlearn_stages(study, original, f)]
    return original, retrained, made


def needed(study, monkeypatch, models=0):
    """Bytes that are asked for, by the name of the directory."""
    found = []
    monkeypatch.setattr(disk, "require_room", found.append)
    original, retrained, made = planned(study)
    require_room([(study, made, models)], original, retrained)
    return {path.name: size for path, size in found[0].items()}


def test_models_and_predictions_are_counted(study, monkeypatch):
    one = tree_bytes(jax.eval_shape(study.model.init, jax.random.key(0)))
    splits = study.splits
    samples = sum(len(x) for x in (splits.test, splits.train, splits.validation))
    outputs = 3 * 2 * samples * 4  # three stages of two seeds, float32
    assert needed(study, monkeypatch) == {"store": 3 * 2 * one + outputs, "w": outputs}
    assert needed(study, monkeypatch, models=5)["store"] == 11 * one + outputs


def test_what_the_store_has_needs_no_room(study, monkeypatch):
    original, retrained, made = planned(study)
    before = needed(study, monkeypatch)
    for stage in (original, *retrained, *made):
        with study.store.write(stage.method, stage.key, stage.parts) as directory:
            (directory / "x").write_text("")
    after = needed(study, monkeypatch)
    assert after["w"] == before["w"] and after["store"] == before["w"]


def test_without_room_nothing_begins(study, monkeypatch):
    original, retrained, made = planned(study)
    with_free(monkeypatch, 1000)
    with pytest.raises(disk.DiskFullError, match="no room left on the disk for .*store.* needed, "
                                                 "1 kB free"):
        require_room([(study, made, 0)], original, retrained)


@pytest.mark.parametrize("name", ["original", "ft", "predictions", "population"])
def test_a_file_in_the_place_of_a_directory_is_found_before_training(study, name):
    original, retrained, made = planned(study)
    study.store.root.mkdir()
    (study.store.root / name).write_text("")
    with pytest.raises(disk.DiskError, match=f"store/{name} is a file, and the store needs"):
        require_room([(study, made, 0)], original, retrained)


def test_without_room_for_progress_a_warning_is_given(study, monkeypatch, caplog):
    original, retrained, made = planned(study)
    with pytest.MonkeyPatch.context() as patch:
        enough = sum(needed(study, patch).values()) + 10
    with_free(monkeypatch, enough)
    require_room([(study, made, 0)], original, retrained)
    assert "may not be able to save its progress" in caplog.text
    with_free(monkeypatch, 100 * enough)
    caplog.clear()
    require_room([(study, made, 0)], original, retrained)
    assert not caplog.text


def test_the_study_asks_before_it_trains(tmp_path, monkeypatch):
    asked = []

    def refuse(*args):
        asked.append(args)
        raise disk.DiskFullError("no room")

    monkeypatch.setattr(stages, "require_room", refuse)
    monkeypatch.setattr(stages, "train_missing", lambda *_: pytest.fail("trained"))
    config = make_study(tmp_path / "cache").config
    with pytest.raises(disk.DiskFullError):
        stages.run_study(config, "ft", tmp_path / "w", Store(tmp_path / "store"), "command")
    assert len(asked) == 1
