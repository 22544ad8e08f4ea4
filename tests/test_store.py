import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unlearn_jax.storage.store import (
    Store,
    StoreError,
    load_array,
    load_arrays,
    load_json,
    read_marker,
    stage_key,
)
from unlearn_jax.system.disk import DiskError, DiskFullError

PARTS = {"model": {"width": 16, "name": "resnet"}, "seeds": (0, 1), "rate": 0.1}
KEY = stage_key("original", PARTS)


def write(s: Store, text: str = "hello") -> None:
    with s.write("original", KEY, PARTS) as d:
        (d / "sub").mkdir()
        (d / "sub" / "a.txt").write_text(text)


def names(directory: Path) -> set[str]:
    return {p.name for p in directory.iterdir() if not p.name.endswith(".lock")}


# --- keys ---

def test_key_is_the_digest_of_canonical_json():
    text = '{"parts":{"a":[1,2.5,"x"],"b":{"c":null,"d":true}},"stage":"ft"}'
    expected = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    assert stage_key("ft", {"b": {"d": True, "c": None}, "a": (1, 2.5, "x")}) == expected
    assert stage_key("ft", {"a": [1, 2.5, "x"], "b": {"c": None, "d": True}}) == expected


def test_each_part_and_the_stage_change_the_key():
    variants = [("ft", {"a": 1}), ("rnd", {"a": 1}), ("ft", {"a": 2}), ("ft", {"b": 1}),
                ("ft", {"a": 1.0}), ("ft", {"a": True}), ("ft", {"a": "1"}), ("ft", {"a": (1,)}),
                ("ft", {"a": None}), ("ft", {"a": 0.1 + 0.2}), ("ft", {"a": 0.3})]
    assert len({stage_key(stage, parts) for stage, parts in variants}) == len(variants)


@pytest.mark.parametrize("parts,path", [
    ({"a": {"b": [1, np.float32(2)]}}, r"a\.b\[1\]"),
    ({"a": np.float64(2)}, r"^parts\.a is"),
    ({"a": {"b": {1, 2}}}, r"a\.b is .* set"),
    ({"a": Path("x")}, "PosixPath"),
    ({"a": {1: 2}}, "a has the key 1"),
])
def test_key_refuses_what_has_no_stable_text(parts, path):
    with pytest.raises(TypeError, match=path):
        stage_key("ft", parts)


# --- writing and completeness ---

def test_write_then_complete(tmp_path):
    s = Store(tmp_path / "new" / "store")
    assert not s.complete("original", KEY)
    write(s)
    assert s.complete("original", KEY)
    path = s.path("original", KEY)
    assert path == tmp_path / "new" / "store" / "original" / KEY
    assert (path / "sub" / "a.txt").read_text() == "hello"
    marker = read_marker(path)
    assert marker["files"] == {"sub/a.txt": 5}
    assert marker["parts"] == json.loads(json.dumps(PARTS))
    assert marker["seconds"] >= 0
    # Neither the temporary directory nor its lock remains.
    assert names(path.parent) == {KEY} and names(path) == {"sub", "DONE.json"}


def test_exception_leaves_nothing(tmp_path):
    s = Store(tmp_path)
    with pytest.raises(KeyError), s.write("original", KEY, PARTS) as d:
        (d / "a").write_text("x")
        raise KeyError("boom")
    assert names(tmp_path / "original") == set()


def test_a_root_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/store cannot be created"):
        Store(tmp_path / "file" / "store").create()
    Store(tmp_path / "new" / "store").create()
    assert (tmp_path / "new" / "store").is_dir()


def test_key_must_belong_to_the_parts(tmp_path):
    with pytest.raises(ValueError, match=KEY), \
            Store(tmp_path).write("original", "0" * 16, PARTS):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x"])
def test_names_stay_inside_the_root(tmp_path, name):
    with pytest.raises(ValueError, match="letters"):
        Store(tmp_path).path(name, KEY)
    with pytest.raises(ValueError, match="letters"):
        Store(tmp_path).path("original", name)


def _truncate_marker(path):
    marker = path / "DONE.json"
    marker.write_bytes(marker.read_bytes()[:-20])


def _edit_marker(path, **changes):
    marker = json.loads((path / "DONE.json").read_text())
    (path / "DONE.json").write_text(json.dumps(marker | changes))


DAMAGES = {
    "no marker": lambda p: (p / "DONE.json").unlink(),
    "truncated marker": _truncate_marker,
    "empty marker": lambda p: (p / "DONE.json").write_text(""),
    "marker is a list": lambda p: (p / "DONE.json").write_text("[]"),
    "other format": lambda p: _edit_marker(p, format=99),
    "another stage's": lambda p: _edit_marker(p, key="0" * 16),
    "missing file": lambda p: (p / "sub" / "a.txt").unlink(),
    "shorter file": lambda p: (p / "sub" / "a.txt").write_text("hell"),
    "empty directory": lambda p: [(p / "sub" / "a.txt").unlink(), (p / "sub").rmdir(),
                                  (p / "DONE.json").unlink()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stage_is_not_trusted_but_replaced(tmp_path, damage, caplog):
    s = Store(tmp_path)
    write(s)
    DAMAGES[damage](s.path("original", KEY))
    assert not s.complete("original", KEY)
    with caplog.at_level(logging.WARNING):
        write(s, "again")
    assert s.complete("original", KEY)
    assert (s.path("original", KEY) / "sub" / "a.txt").read_text() == "again"
    assert names(tmp_path / "original") == {KEY}
    assert "no valid DONE.json" in caplog.text


def test_a_stage_completed_meanwhile_is_kept(tmp_path):
    s = Store(tmp_path)
    with s.write("original", KEY, PARTS) as d:
        (d / "mine").write_text("x")
        write(s, "theirs")
    assert (s.path("original", KEY) / "sub" / "a.txt").read_text() == "theirs"
    assert names(tmp_path / "original") == {KEY}


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="choose another directory"):
        write(Store(tmp_path / "file"))


# --- changed bytes ---

def store_three(s: Store) -> Path:
    with s.write("original", KEY, PARTS) as d:
        np.save(d / "a.npy", np.arange(3.0))
        np.savez(d / "b.npz", a=np.arange(3), b=np.ones(2))
        (d / "sub").mkdir()
        (d / "sub" / "c.json").write_text('{"loss": [0.5, 1.5]}')
    return s.path("original", KEY)


def of_an_earlier_version(path: Path) -> None:
    """Leaves of a marker what earlier versions wrote."""
    marker = json.loads((path / "DONE.json").read_text())
    del marker["digests"], marker["digest"]
    (path / "DONE.json").write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n")


def read_all(path: Path):
    arrays = load_arrays(path, "b.npz")
    return (load_array(path, "a.npy").tolist(), {k: a.tolist() for k, a in arrays.items()},
            load_json(path, "sub/c.json"))


WHOLE = ([0.0, 1.0, 2.0], {"a": [0, 1, 2], "b": [1.0, 1.0]}, {"loss": [0.5, 1.5]})


@pytest.mark.parametrize("earlier", [False, True])
def test_files_are_read_as_they_were_stored(tmp_path, earlier):
    path = store_three(Store(tmp_path))
    if earlier:
        of_an_earlier_version(path)
    assert read_all(path) == WHOLE
    with pytest.raises(StoreError, match="no file 'd'; it has a.npy, b.npz, sub/c.json"):
        load_json(path, "d")


@pytest.mark.parametrize("name", ["a.npy", "b.npz", "sub/c.json"])
def test_every_changed_byte_of_a_file_is_seen_when_it_is_read(tmp_path, name):
    path = store_three(Store(tmp_path))
    content = (path / name).read_bytes()
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1 << i % 8
        (path / name).write_bytes(changed)
        with pytest.raises(StoreError, match=f"{KEY} is damaged: {name} does not match .* again"):
            read_all(path)
    (path / name).write_bytes(content)
    assert read_all(path) == WHOLE


def test_a_changed_byte_of_a_marker_changes_nothing_or_ends_the_stage(tmp_path):
    s = Store(tmp_path)
    path = store_three(s)
    marker = path / "DONE.json"
    content, first, accepted = marker.read_bytes(), read_marker(path), 0
    for i in range(len(content)):
        changed = bytearray(content)
        changed[i] ^= 1 << i % 7
        marker.write_bytes(changed)
        try:
            found = read_marker(path)
        except StoreError:
            assert not s.complete("original", KEY)
            continue
        # Blanks between words; and where "digest" is misspelled, it is an earlier version's.
        accepted += 1
        assert {k: found[k] for k in first if k != "digest"} == {
            k: first[k] for k in first if k != "digest"}
    assert accepted < len(content) / 4


def test_damage_of_an_earlier_versions_file_is_named(tmp_path):
    path = store_three(Store(tmp_path))
    of_an_earlier_version(path)
    for name, load in (("a.npy", load_array), ("b.npz", load_arrays), ("sub/c.json", load_json)):
        size = (path / name).stat().st_size
        (path / name).write_bytes(b"{" * size)
        with pytest.raises(StoreError, match=f"{KEY} is damaged: {name} cannot be read"):
            load(path, name)


# --- real processes ---

CHILD = f"""
import sys, time, logging
from unlearn_jax.storage.store import Store
logging.basicConfig()
stage, parts, key, root, what = "original", {PARTS!r}, {KEY!r}, sys.argv[1], sys.argv[2]
s = Store(root)
if what == "hang":
    with s.write(stage, key, parts) as d:
        (d / "a").write_bytes(bytes(100000))
        print("ready", flush=True)
        time.sleep(60)
if what == "lock":
    with s.lock(stage, key):
        print("ready", flush=True)
        time.sleep(60 if len(sys.argv) == 3 else 0)
if what == "race":
    print("ready", flush=True)
    sys.stdin.readline()
    with s.write(stage, key, parts) as d:
        for i in range(50):
            (d / str(i)).write_text(sys.argv[3])
"""


def start(*args: str) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", CHILD, *args], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             cwd=Path(__file__).parents[1])
    return child


def ready(child: subprocess.Popen) -> None:
    assert child.stdout.readline() == "ready\n", child.stderr.read()


def kill(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


def test_killed_writer_leaves_no_stage_and_its_remains_are_removed(tmp_path, caplog):
    s = Store(tmp_path)
    child = start(str(tmp_path), "hang")
    ready(child)
    assert not s.complete("original", KEY)
    (remains,) = names(tmp_path / "original")
    # While its writer lives, another one leaves it alone.
    other = stage_key("original", {})
    with s.write("original", other, {}):
        pass
    assert names(tmp_path / "original") == {remains, other}
    kill(child)
    assert names(tmp_path / "original") == {remains, other}
    with caplog.at_level(logging.WARNING):
        write(s)
    assert names(tmp_path / "original") == {KEY, other}
    assert s.complete("original", KEY)
    assert "was killed" in caplog.text


def test_remains_without_a_lock_go_only_when_old(tmp_path):
    stage = tmp_path / "original"
    for name, age in (("young", 0), ("old", 7200)):
        (stage / f".tmp-{name}").mkdir(parents=True)
        os.utime(stage / f".tmp-{name}", (time.time() - age,) * 2)
    write(Store(tmp_path))
    assert names(stage) == {KEY, ".tmp-young"}


def test_two_concurrent_writers(tmp_path):
    children = [start(str(tmp_path), "race", name) for name in "ab"]
    for child in children:
        ready(child)
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
    assert Store(tmp_path).complete("original", KEY)
    path = tmp_path / "original" / KEY
    # One of the two, never a mixture.
    assert len({(path / str(i)).read_text() for i in range(50)}) == 1
    assert names(path.parent) == {KEY}


def test_lock_waits_for_a_living_process_and_is_freed_by_a_kill(tmp_path):
    holder = start(str(tmp_path), "lock")
    ready(holder)
    waiter = start(str(tmp_path), "lock", "short")
    assert "waiting for another process" in waiter.stderr.readline()
    time.sleep(0.1)
    assert waiter.poll() is None
    kill(holder)
    out, _ = waiter.communicate(timeout=10)
    assert out == "ready\n" and waiter.returncode == 0


# --- a full disk ---

@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 256 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)],
                          capture_output=True)
    if done.returncode:
        pytest.skip("cannot mount a file system here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("how", ["write", "tofile", "savez"])
def test_full_disk(tiny_disk, how):
    s = Store(tiny_disk)
    write(s)
    key = stage_key("ft", {})
    data = np.random.default_rng(0).bytes(500_000)
    with pytest.raises(DiskFullError) as e, s.write("ft", key, {}) as d:
        if how == "write":
            (d / "a").write_bytes(data)
        elif how == "tofile":
            np.save(d / "a.npy", np.frombuffer(data, np.uint8))
        else:
            np.savez(d / "a.npz", a=np.frombuffer(data, np.uint8))
    message = str(e.value)
    assert str(s.path("ft", key)) in message and "free" in message
    assert "Free some space" in message and message.count("\n") == 1
    assert s.complete("original", KEY) and names(tiny_disk / "ft") == set()
    # Room is back: the same command succeeds.
    with s.write("ft", key, {}) as d:
        (d / "a").write_bytes(data[:1000])
    assert s.complete("ft", key)


def test_full_disk_without_a_mount(tmp_path):
    s = Store(tmp_path)
    with pytest.raises(DiskFullError, match="more than the 1 kB written so far"), \
            s.write("original", KEY, PARTS) as d:
        (d / "a").write_bytes(bytes(1000))
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path / "original") == set()


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(PermissionError), Store(tmp_path).write("original", KEY, PARTS):
        raise PermissionError(errno.EACCES, "no")
