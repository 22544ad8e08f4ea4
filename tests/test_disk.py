"""Renames that fail and full disks; real kills and real file systems: test_store.py."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unlearn_jax import startup
from unlearn_jax.system import disk


def names(directory):
    return {p.name for p in directory.iterdir()}


def test_failed_rename_puts_the_old_back(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("x")
    with pytest.raises(FileNotFoundError):
        disk.move_into_place(tmp_path / "missing", tmp_path / "a", replace=True)
    assert names(tmp_path) == {"a"} and names(tmp_path / "a") == {"old"}


def test_what_another_process_has_just_removed_is_replaced_all_the_same(tmp_path):
    with disk.temporary_directory(tmp_path / "a") as temp:
        (temp / "new").write_text("x")
        disk.move_into_place(temp, tmp_path / "a", replace=True)
    assert names(tmp_path / "a") == {"new"}


@pytest.mark.parametrize("host, age, kept", [
    (socket.gethostname(), 0, False),
    ("", 0, False),  # as earlier versions wrote it
    # Of a process on another host a lock may tell nothing.
    ("elsewhere", 0, True), ("elsewhere", 7200, False),
])
def test_what_a_dead_writer_left_is_removed(tmp_path, host, age, kept):
    left = tmp_path / ".tmp-b-0123"
    left.mkdir()
    (left / ".lock").write_text(host)
    for path in (left / ".lock", left):
        os.utime(path, (time.time() - age,) * 2)
    with disk.temporary_directory(tmp_path / "a"):
        assert left.exists() == kept


def test_a_living_writer_is_left_alone(tmp_path):
    with disk.temporary_directory(tmp_path / "a") as first:
        with disk.temporary_directory(tmp_path / "a"):
            assert (first / ".lock").read_text() == socket.gethostname()


def test_full_disk_is_recognised_by_a_real_error():
    with pytest.raises(OSError) as e:
        Path("/dev/full").write_bytes(b"x")
    assert disk.is_full(e.value)
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = e.value
    assert disk.is_full(wrapped)
    assert not disk.is_full(OSError(errno.EACCES, "no"))
    assert not disk.is_full(ValueError("shape"))


def test_a_disk_without_any_room_is_told_in_words(tmp_path):
    with pytest.raises(disk.DiskFullError, match="/a: nothing of it could be written, .* free"), \
            disk.temporary_directory(tmp_path / "a"):
        _full(None)


@pytest.mark.parametrize("name, words", [("/data/x.csv", "for /data/x.csv.\n"),
                                         (None, "for this run's work directory, its store or ")])
def test_a_program_says_where_a_full_disk_is(name, words):
    def fails():
        raise OSError(errno.ENOSPC, "No space left on device", name)

    with pytest.raises(SystemExit, match=words):
        startup.run(fails)


def test_require_space(tmp_path):
    disk.require_space(tmp_path / "a" / "b", 1000)
    with pytest.raises(disk.DiskFullError, match="1000 TB needed, .* free"):
        disk.require_space(tmp_path / "a" / "b", 10 ** 15)


@pytest.mark.parametrize("content", ["caf\u00e9\n", "caf\u00e9\n".encode(),
                                     lambda f: f.write("caf\u00e9\n".encode())])
def test_a_file_is_replaced_as_a_whole(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text("old")
    disk.write_file(path, content)
    assert path.read_bytes() == b"caf\xc3\xa9\n" and names(tmp_path) == {"a.csv"}
    reference = tmp_path / "plain"
    reference.write_text("")
    assert path.stat().st_mode == reference.stat().st_mode


def test_a_file_and_its_name_are_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}"))
                        or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("renamed") or replace(a, b))
    disk.write_file(tmp_path / "a", "x")
    assert done[0].startswith(str(tmp_path / ".tmp-a-"))
    assert done[1:] == ["renamed", str(tmp_path)]


def test_what_fails_while_a_file_is_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def fails(f):
        f.write(b"new")
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        disk.write_file(path, fails)
    assert path.read_text() == "old" and names(tmp_path) == {"a"}


@pytest.mark.parametrize("content, words", [("12345", "5 B needed"),
                                            (lambda f: os.fsync(_full(f)), "more was needed")])
def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path, monkeypatch, content, words):
    path = tmp_path / "summary.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(disk.DiskFullError, match=f"summary.csv: {words}, .* free"):
        disk.write_file(path, content)
    assert path.read_text() == "old" and names(tmp_path) == {"summary.csv"}


def _full(_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_is_refused_with_its_name(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(disk.DiskError, match="cannot write .*/a: Is a directory"):
        disk.write_file(tmp_path / "a", "x")
    with pytest.raises(disk.DiskError, match="cannot write .*/b/c: No such file"):
        disk.write_file(tmp_path / "b" / "c", "x")
    assert names(tmp_path) == {"a"}


_WRITES = """
import sys, time
from pathlib import Path
from unlearn_jax import startup
from unlearn_jax.system import disk
def slowly(f):
    f.write(b"half")
    f.flush()
    print("writing", flush=True)
    time.sleep(60)
disk.write_file(Path(sys.argv[1]), slowly)
"""


def test_the_file_of_a_living_writer_stays_and_that_of_a_killed_one_goes(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", _WRITES, path], stdout=subprocess.PIPE,
                          cwd=Path(__file__).parents[1]) as child:
        assert child.stdout.readline() == b"writing\n"
        disk.remove_stale(tmp_path)
        assert disk.stale(tmp_path) == []
        (half,) = tmp_path.glob(".tmp-*")
        assert half.read_bytes() == b"half"
        child.send_signal(signal.SIGKILL)
    assert path.read_text() == "old" and disk.stale(tmp_path) == [half]
    disk.remove_stale(tmp_path)
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("age, kept", [(0, True), (7200, False)])
def test_the_file_of_another_host_goes_only_when_old(tmp_path, age, kept):
    left = tmp_path / ".tmp-a-0123.ffffffff"
    left.write_text("x")
    os.utime(left, (time.time() - age,) * 2)
    disk.remove_stale(tmp_path)
    assert left.exists() == kept


def test_a_file_taken_for_a_killed_writers_is_begun_again(tmp_path, monkeypatch):
    lock, begun = disk.try_lock, []

    def removed_meanwhile(fd, missing=True):
        (temp,) = tmp_path.glob(".tmp-*")
        begun.append(temp)
        if len(begun) == 1:
            temp.unlink()
        return lock(fd, missing)

    monkeypatch.setattr(disk, "try_lock", removed_meanwhile)
    disk.write_file(tmp_path / "a", "x")
    assert len(set(begun)) == 2 and names(tmp_path) == {"a"}


@pytest.mark.parametrize("size,text", [(0, "0 B"), (999, "999 B"), (1000, "1 kB"),
                                       (12_345, "12.3 kB"), (4_500_000, "4.5 MB"),
                                       (999_700, "1 MB"), (2e13, "20 TB")])
def test_human_bytes(size, text):
    assert disk.human_bytes(size) == text


def test_disks_are_asked_once_for_all_that_goes_there(tmp_path):
    disk.require_room({tmp_path / "a": 1000, tmp_path / "b" / "c": 1000})
    with pytest.raises(disk.DiskFullError, match="a and .*b: about 1600 TB needed, .* free"):
        disk.require_room({tmp_path / "a": 8 * 10 ** 14, tmp_path / "b": 8 * 10 ** 14})


@pytest.mark.parametrize("make, words", [
    (lambda root: (root / "original").write_text(""), "original"),
    (lambda root: (root / "original" / "KEY.lock").mkdir(parents=True), "Is a directory"),
])
def test_what_is_in_the_way_of_a_lock_is_named(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(disk.DiskError, match="cannot make the lock file .*KEY.lock: ") as e:
        with disk.lock(tmp_path / "original" / "KEY.lock"):
            pytest.fail("locked")
    assert words in str(e.value) and len(str(e.value).splitlines()) == 1
