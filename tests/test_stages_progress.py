import json
import types

import numpy as np
import pytest
from toy import recipe

from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.stages import populations
from unlearn_jax.stages.graph import Stage
from unlearn_jax.stages.progress import (
    CheckpointSaver,
    clean,
    parts_as_saved,
    progress_directories,
    saved_stages,
)
from unlearn_jax.storage.store import Store
from unlearn_jax.system import disk

PARTS = {"data": "d", "seeds": (0, 1)}
NOBODY = np.zeros(0, np.int32)
ORIGINAL = Stage("original", None, 0, PARTS)
RETRAINED = [Stage("retrain", ForgetSet(name, name, NOBODY, NOBODY), 3,
                   {**PARTS, "forget": {"name": name}}) for name in ("20-28", "30-35")]
TREE = {"w": np.arange(6, dtype=np.float32)}


def finish(store, stage):
    with store.write(stage.method, stage.key, stage.parts) as directory:
        (directory / "models").write_text("x")


def test_a_run_that_lacks_fewer_stages_goes_on_from_the_same_progress(tmp_path):
    store = Store(tmp_path)
    first = CheckpointSaver(store, recipe(), [ORIGINAL, *RETRAINED], 0)
    assert first.due() and first.load(lambda metadata: None) is None
    first.save(3, TREE, {"epoch": 3})
    # The disk was full after the first stage was stored.
    finish(store, ORIGINAL)
    second = CheckpointSaver(store, recipe(), RETRAINED, 0)
    tree, metadata = second.load(lambda metadata: None)
    np.testing.assert_array_equal(tree["w"], TREE["w"])
    assert second.resumed and not first.resumed and metadata == {"epoch": 3}
    # Its own progress comes first, and all of it goes when all stages are there.
    second.save(4, TREE, {"epoch": 4})
    assert second.load(lambda metadata: None)[1] == {"epoch": 4}
    second.finish()
    assert CheckpointSaver(store, recipe(), RETRAINED, 0).load(lambda metadata: None)
    for stage in RETRAINED:
        finish(store, stage)
    # What a kill left of another process' progress is nobody's concern.
    cut_off = next((tmp_path / "population").glob("*")) / "other" / "stages.json"
    cut_off.parent.mkdir()
    cut_off.touch()
    second.finish()
    assert list((tmp_path / "population").rglob("*.json")) == [cut_off]


@pytest.mark.parametrize("other", [
    (recipe(epochs=9), RETRAINED),
    (recipe(name="other"), RETRAINED),
    (recipe(), [Stage("retrain", None, 3, {**PARTS, "data": "other"})]),
])
def test_other_populations_have_their_own_progress(tmp_path, other):
    CheckpointSaver(Store(tmp_path), recipe(), RETRAINED, 0).save(3, TREE, {})
    assert CheckpointSaver(Store(tmp_path), *other, 0).load(lambda metadata: None) is None


def test_what_was_saved_in_several_populations_goes_on_in_as_many(tmp_path):
    store = Store(tmp_path)
    one, two = RETRAINED
    third = Stage("retrain", ForgetSet("50-60", "50-60", NOBODY, NOBODY), 3,
                  {**PARTS, "forget": {"name": "50-60"}})
    everything = [one, ORIGINAL, third, two]
    assert parts_as_saved(store, recipe(), everything) == [everything]
    # Two processes were asked to leave: one trained M_O and an M_R, the other the second M_R.
    for stages in ([ORIGINAL, one], [two]):
        CheckpointSaver(store, recipe(), stages, 0).save(3, TREE, {})
    # Another one holds M_O this time, and an M_R of its own.
    assert parts_as_saved(store, recipe(), [ORIGINAL, two]) == [[ORIGINAL], [two]]
    assert parts_as_saved(store, recipe(), everything) == [[one, ORIGINAL], [two],
                                                                [third]]
    assert parts_as_saved(store, recipe(epochs=9), everything) == [everything]
    assert parts_as_saved(store, recipe(), [third]) == [[third]]


def test_what_a_changed_byte_makes_of_the_list_of_stages_is_not_believed(tmp_path):
    store = Store(tmp_path)
    saver = CheckpointSaver(store, recipe(), RETRAINED, 0)
    saver.save(3, TREE, {})
    (path,) = (tmp_path / "population").rglob("stages.json")
    content = path.read_bytes()
    assert saved_stages(path.parent) == [[s.method, s.key] for s in RETRAINED]
    for stage in RETRAINED:
        finish(store, stage)
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1 << i % 8
        path.write_bytes(changed)
        # A changed blank between two words changes nothing.
        assert saved_stages(path.parent) == [] or json.loads(changed) == json.loads(content)
    path.write_bytes(content.replace(b"retrain", b"re/rain"))
    clean(store)
    CheckpointSaver(store, recipe(), RETRAINED[:1], 0).finish()
    assert path.exists()
    saver.finish()  # knows its stages itself
    assert not path.exists()


def test_a_start_removes_what_killed_processes_left(tmp_path):
    store = Store(tmp_path)
    for stages in ([ORIGINAL, RETRAINED[0]], [RETRAINED[1]]):
        CheckpointSaver(store, recipe(), stages, 0).save(3, TREE, {})
    for stage in (ORIGINAL, RETRAINED[0]):
        finish(store, stage)
    half = tmp_path / "retrain" / ".tmp-0123"
    half.mkdir()
    (half / ".lock").touch()
    with disk.temporary_directory(tmp_path / "retrain" / "written") as living:
        clean(store)
        assert living.exists() and not half.exists()
    # Killed between the last store and the end; the other population has still to be trained.
    (left,) = progress_directories(store)
    assert saved_stages(left) == [["retrain", RETRAINED[1].key]]


def test_populations_are_those_that_were_saved(tmp_path, monkeypatch):
    store, trained = Store(tmp_path), []
    for stages in ([ORIGINAL, RETRAINED[0]], [RETRAINED[1]]):
        CheckpointSaver(store, recipe(), stages, 0).save(3, TREE, {})

    def train(stages, population):
        assert population.made_for == stages
        trained.append([s.forget_name for s in stages])
        for stage in stages:
            finish(store, stage)

    def make(stages):
        return types.SimpleNamespace(recipe=recipe(), made_for=stages)

    reused = []
    monkeypatch.setattr(populations, "_train", train)
    populations.train_and_store(store, [ORIGINAL, RETRAINED[1]], make, reused.append)
    assert (trained, reused) == ([[""], ["30-35"]], [])
    populations.train_and_store(store, [ORIGINAL, RETRAINED[0]], make, reused.append)
    assert (trained[2:], reused) == ([["20-28"]], [ORIGINAL])
