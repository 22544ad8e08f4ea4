"""Renames that fail and full disks; real kills and real file systems: test_store.py."""

import errno
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
