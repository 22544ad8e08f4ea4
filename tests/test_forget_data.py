"""What a deletion removes from a store of made-up stages; test_docs_deletion.py has a real one."""

import json
import multiprocessing

import numpy as np
import pytest
from test_storage_traces import (
    FORGET,
    M_E,
    M_O,
    M_R,
    O_KEY,
    PREDICTIONS,
    TEST,
    TRAIN,
    VALIDATION,
    write,
    write_entry,
    write_progress,
)

from unlearn_jax.forget_data.__main__ import main
from unlearn_jax.storage import traces
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.system import disk


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    traces.record_samples(store, O_KEY, M_O, [TRAIN, VALIDATION, TEST])
    traces.record_forget_set(store, FORGET, ["a", "b", "v"])
    for stage, parts in (("original", M_O), ("retrain", M_R), ("ft", M_E)):
        write(store, stage, parts)
    for parts in (PREDICTIONS, {**PREDICTIONS, "model": stage_key("ft", M_E)}):
        write(store, "predictions", parts, model=False)
    write_entry(store.root, "folder-index", ids=np.array(["a", "b"]))
    write_progress(store.root, ("ft", "e" * 16))
    return store


def run(store, capsys, *ids, flags=()):
    """(exit code, what was printed to stdout, and to stderr)."""
    path = store.root.parent / "ids.txt"
    path.write_text("\n".join(ids))
    code = main([str(store.root), f"--ids={path}", *flags])
    return code, *capsys.readouterr()


def held(store):
    """Folders of the store that are not empty."""
    return {p.relative_to(store.root).parts[0] for p in everything(store) if p.is_file()}


def everything(store):
    return sorted(p for p in store.root.rglob("*") if not p.name.endswith(".lock"))


def test_without_yes_it_says_what_it_would_do(store, capsys):
    before = everything(store)
    code, out, err = run(store, capsys, "a", "b")
    assert code == 1 and not err and everything(store) == before
    remove, keep = out.split("Kept: 3\n")
    assert "To be removed: 4\n" in remove
    for path in ("original", "predictions", "data", "population"):
        assert f"{store.root}/{path}/" in remove
    assert f"{store.root}/ft/" in keep and f"{store.root}/retrain/" in keep
    assert "Nothing was removed: give --yes to do it." in keep


def test_with_yes_it_removes_that_and_a_second_call_finds_nothing(store, capsys):
    code, out, _ = run(store, capsys, "a", "b", flags=["--yes"])
    assert code == 0 and "Removed all 4." in out
    assert held(store) == {"retrain", "ft", "predictions", "samples"}
    assert [p["parts"]["model"] for p in map(
        lambda key: json.loads((store.path("predictions", key) / "DONE.json").read_text()),
        store.keys("predictions"))] == [stage_key("ft", M_E)]
    before = everything(store)
    for flags in ((), ("--yes",)):
        code, out, _ = run(store, capsys, "a", "b", flags=flags)
        assert code == 0 and "Nothing is left to remove." in out and everything(store) == before


def test_models_that_were_to_forget_only_some_of_them_go(store, capsys):
    code, out, _ = run(store, capsys, "a", "c", flags=["--yes"])
    assert code == 0 and held(store) == {"samples"} and "Kept: 0" in out


def test_models_without_a_note_are_kept_and_named(store, capsys):
    write(store, "original", {"data": "early", "split": {}})
    code, out, _ = run(store, capsys, "a", "b", flags=["--yes"])
    assert code == 0 and "Kept: 4" in out and "Of 1 that are kept it is not known" in out
    assert len(store.keys("original")) == 1


def test_unknown_ids_remove_nothing(store, capsys):
    before = everything(store)
    code, out, _ = run(store, capsys, "absent", "gone", flags=["--yes"])
    assert code == 0 and "Unknown in this store (2): 'absent', 'gone'" in out
    assert everything(store) == before


def test_samples_of_the_test_split_leave_the_models(store, capsys):
    code, out, _ = run(store, capsys, "t", flags=["--yes"])
    assert code == 0 and {"original", "retrain", "ft"} <= held(store)


def _hold(root, began, end):
    with Store(root).in_use():
        began.set()
        end.wait(60)


def test_nothing_is_removed_while_a_run_uses_the_store(store, capsys):
    spawn = multiprocessing.get_context("spawn")
    began, end = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(store.root, began, end))
    process.start()
    assert began.wait(60)
    before = everything(store)
    code, _, err = run(store, capsys, "a", flags=["--yes"])
    assert code == 2 and everything(store) == before
    assert err == (f"error: {store.root} is in use: a run trains or reads models there\n"
                   "nothing was removed; run this again when the run has ended\n")
    end.set()
    process.join()
    assert run(store, capsys, "a", flags=["--yes"])[0] == 0


def test_runs_share_the_store_and_a_deletion_does_not(store):
    with store.in_use(), Store(store.root).in_use(), store.unused() as unused:
        assert not unused
    with store.unused() as unused:
        assert unused
        with disk.lock(store.root / "in-use.lock", shared=True) as held_too:
            assert not held_too


@pytest.mark.parametrize("arguments, message", [
    (["{root}/gone", "--ids={ids}"], "gone is no store\ngive the directory"),
    (["{root}/store"], "--ids\nusage: python -m unlearn_jax.forget_data STORE --ids=FILE"),
    (["{root}/store", "--ids={root}/none.txt"], "the file cannot be read"),
])
def test_wrong_calls(store, capsys, arguments, message):
    root, ids = store.root.parent, store.root.parent / "ids.txt"
    ids.write_text("a\n")
    assert main([word.format(root=root, ids=ids) for word in arguments]) == 2
    assert message in capsys.readouterr().err
