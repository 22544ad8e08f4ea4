"""Which parts of a store have seen samples, on stages of made-up keys."""

import unicodedata

import numpy as np
import pytest

from unlearn_jax.data.arrays import write_arrays
from unlearn_jax.storage import traces
from unlearn_jax.storage.half_finished import POPULATION, STAGES
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.storage.traces import SAW, UNKNOWN, UNLEARNED, WITHOUT, find_traces
from unlearn_jax.system import disk

M_O = {"data": "d", "split": {"seed": 0}, "model": {"name": "resnet4"}}
O_KEY = stage_key("original", M_O)
TRAIN, VALIDATION, TEST = ["a", "b", "c", "é"], ["v"], ["t"]
FORGET = {"name": "ids-x", "ids": "0" * 16}
M_R = {**M_O, "forget": FORGET}
M_E = {"original": O_KEY, "forget": FORGET, "epochs": 2}
SISA = {"data": "d", "split": {"seed": 0}, "slice": 1}
SISA_E = {"training": stage_key("sisa_original", SISA), "forget": FORGET}
PREDICTIONS = {"model": O_KEY, "forget": FORGET}


def write(store, stage, parts, model=True):
    key = stage_key(stage, parts)
    with store.write(stage, key, parts) as directory:
        if model:
            (directory / "checkpoint").mkdir()
            (directory / "checkpoint" / "metadata.json").write_text("{}")
        else:
            np.save(directory / "test.npy", np.zeros(2))
    return key


def write_progress(root, *stages):
    stages = [list(stage) for stage in stages]
    path = root / POPULATION / "family" / stage_key(POPULATION, {"stages": stages})
    path.mkdir(parents=True)
    disk.write_file(path / STAGES, str(stages).replace("'", '"'))
    return path


def write_entry(root, name, **columns):
    path = root / "data" / f"{name}-0123456789abcdef"
    path.mkdir(parents=True)
    np.savez(path / "columns.npz", **columns)
    return path


@pytest.fixture
def store(tmp_path):
    """A study, and one of other data, each with the notes that a run makes."""
    store = Store(tmp_path)
    traces.record_samples(store, O_KEY, M_O, [TRAIN, VALIDATION, TEST])
    traces.record_forget_set(store, FORGET, ["a", "b", "v"])
    for stage, parts in (("original", M_O), ("retrain", M_R), ("ft", M_E),
                         ("sisa_original", SISA), ("sisa", SISA_E)):
        write(store, stage, parts)
    write(store, "predictions", PREDICTIONS, model=False)
    other = {"data": "other", "split": {}}
    traces.record_samples(store, write(store, "original", other), other, [["z"], ["y"], ["x"]])
    return store


def found(store, *ids):
    return {f"{t.path.parent.name}": t.saw for t in find_traces(store.root, ids)}


def test_each_stage_says_what_it_saw(store):
    assert found(store, "a") == {
        "original": SAW, "retrain": WITHOUT, "ft": UNLEARNED, "sisa_original": SAW,
        "sisa": WITHOUT, "predictions": SAW}
    # The forget set lacks c: the retrained and the unlearned models saw it.
    assert found(store, "a", "c") == dict.fromkeys(found(store, "a"), SAW)
    assert found(store, "v")["original"] == SAW  # it chose the epoch
    assert set(found(store, "t").values()) == {WITHOUT}
    assert found(store, "absent") == {}


def test_ids_match_in_any_unicode_form(store):
    assert found(store, unicodedata.normalize("NFD", "é"))["original"] == SAW


def test_models_without_a_note_are_unknown(store):
    write(store, "original", {"data": "early", "split": {}})
    write(store, "rnd", {"original": O_KEY, "forget": {"name": "20-28", "ids": "1" * 16}})
    by_key = {t.path: t.saw for t in find_traces(store.root, ["a"])}
    early = store.path("original", stage_key("original", {"data": "early", "split": {}}))
    assert by_key[early] == UNKNOWN
    assert [saw for path, saw in by_key.items() if path.parent.name == "rnd"] == [UNKNOWN]


def test_progress_is_free_only_where_all_its_models_are(store):
    free = stage_key("original", {"data": "other", "split": {}})
    saw = write_progress(store.root, ("original", O_KEY), ("retrain", "f" * 16))
    unknown = write_progress(store.root, ("ft", "e" * 16))
    write_progress(store.root, ("original", free))
    assert {t.path: t.saw for t in find_traces(store.root, ["a"]) if t.kind == traces.PROGRESS} == {
        saw: SAW, unknown: UNKNOWN}


def test_caches_that_hold_the_ids(store):
    dropped = np.array([["bad.jpg", "read", "broken"]])
    index = write_entry(store.root, "folder-index", ids=np.array(["a", "q"]), dropped=dropped)
    pixels = write_entry(store.root, "folder-32", ids=np.array(["a"]), digests=np.zeros((1, 16)))
    write_entry(store.root, "folder-16", ids=np.array(["q"]))
    early = write_entry(store.root, "folder-8", digests=np.zeros((1, 16)))
    write_entry(store.root, "utkface-index", ids=np.array(["f"]), dropped=dropped[:0])
    write_entry(store.root, "utkface-8", digests=np.zeros((1, 16)))

    def caches(*ids):
        return {t.path: t.saw for t in find_traces(store.root, ids) if t.kind == traces.CACHE}

    assert caches("a") == {index: SAW, pixels: SAW, early: UNKNOWN}
    assert caches("bad.jpg") == {index: SAW, early: UNKNOWN}
    assert caches("absent") == {}


def test_another_split_of_the_same_images_is_other_data(store):
    """A split that the user gives has the same fingerprint and the same seed."""
    given = {**M_O, "given": "splits of a file"}
    traces.record_samples(store, stage_key("original", given), given, [["t"], ["v"], ["a"]])
    for parts in (given, {**given, "forget": FORGET}):
        write(store, "retrain" if "forget" in parts else "original", parts)
    saw = [t.saw for t in find_traces(store.root, ["a"]) if t.path.parent.name == "retrain"]
    assert saw == [WITHOUT, WITHOUT]
    saw = {t.path.name: t.saw for t in find_traces(store.root, ["t"])}
    assert saw[stage_key("original", given)] == SAW and saw[O_KEY] == WITHOUT


def test_arrays_of_a_python_program_that_hold_the_ids(store):
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    first, other = (write_arrays(store.root / "data", {"images": pixels, "labels": np.arange(2),
                                                       "ids": np.array(ids)})
                    for ids in (("a", "q"), ("q", "r")))
    broken = first.with_name("arrays-0.npz")
    broken.write_bytes(b"")
    found = {t.path: t for t in find_traces(store.root, ["a"]) if t.kind == traces.CACHE}
    assert {path: t.saw for path, t in found.items()} == {first: SAW, broken: UNKNOWN}
    assert all(map(traces.removable, found.values())) and other.exists()


def test_notes_hold_no_ids(store):
    assert not any(b"ids-requests" in p.read_bytes() or b"\xc3\xa9" in p.read_bytes()
                   for p in (store.root / traces.SAMPLES).rglob("*") if p.is_file())
    before = sorted((store.root / traces.SAMPLES).iterdir())
    traces.record_samples(store, O_KEY, M_O, [TRAIN, VALIDATION, TEST])
    assert sorted((store.root / traces.SAMPLES).iterdir()) == before


def test_a_damaged_stage_is_unknown(store):
    path = store.path("ft", stage_key("ft", M_E))
    (path / "DONE.json").write_text("{")
    assert found(store, "a")["ft"] == UNKNOWN
