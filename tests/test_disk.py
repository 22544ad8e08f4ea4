"""Renames that fail and full disks; real kills and real file systems: test_store.py."""

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from unlearn_jax import disk


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


def test_require_space(tmp_path):
    disk.require_space(tmp_path / "a" / "b", 1000)
    with pytest.raises(disk.DiskFullError, match="1000 TB needed, .* free"):
        disk.require_space(tmp_path / "a" / "b", 10 ** 15)


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
