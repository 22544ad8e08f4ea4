"""Files that appear whole or not at all, locks that die with their holder, and full disks."""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from unlearn_jax.errors import InputError
from unlearn_jax.system import interrupt

TEMP = ".tmp-"  # begins the name of a file or directory that is being written
_LOCK = ".lock"
_LONGEST = 100  # characters of a file's name in its temporary name: names have a limit
# A temporary file whose writer is unknown (no lock file) is left alone for this long.
_GRACE_SECONDS = 3600.0
_POLL_SECONDS = 0.2  # between two tries to take a lock

_log = logging.getLogger(__name__)


class DiskError(InputError):
    """Something cannot be written; the message says what to do."""


class DiskFullError(DiskError):
    """The file system has no room left; existing files are unchanged."""


Content = str | bytes | Callable[[BinaryIO], Any]


def write_file(path: Path, content: Content) -> None:
    """Writes a file that appears whole or not at all, and is there after a power cut.

    It is written beside its place under a name that begins with `TEMP`, flushed, and renamed. A
    lock that ends with the process distinguishes a living writer's file from one that a kill left.

    Args:
      path: the file; an existing one is replaced.
      content: text (written as UTF-8), bytes, or a function that writes to an open binary file.

    Raises:
      DiskFullError: no room; a file at `path` is unchanged.
      DiskError: the file cannot be created, or `path` is a directory.
    """
    path = Path(path)
    try:
        temp, fd = _begin(path)
    except OSError as e:
        raise _refused(path, e) from e
    try:
        with open(fd, "wb") as f:
            if callable(content):
                content(f)
            else:
                f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(fd)
            try:
                os.replace(temp, path)
            except OSError as e:
                raise _refused(path, e) from e
        sync(path.parent)
    except BaseException as e:
        temp.unlink(missing_ok=True)
        if is_full(e) and not isinstance(e, DiskError):
            needed = "more was" if callable(content) else human_bytes(len(content))
            raise _no_room(path, f"{needed} needed", _free(path)) from e
        raise


def _begin(path: Path) -> tuple[Path, int]:
    """Creates a file beside `path`; returns its path and its open, locked descriptor."""
    while True:
        temp = path.with_name(f"{TEMP}{path.name[:_LONGEST]}-{secrets.token_hex(6)}.{_host()}")
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Before it was locked, another process may have removed it as one that a kill left.
        if try_lock(fd) and os.fstat(fd).st_nlink:
            return temp, fd
        os.close(fd)
        temp.unlink(missing_ok=True)


def _host() -> str:
    """An identifier of the host, for file names."""
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _refused(path: Path, error: OSError) -> DiskError:
    if is_full(error):
        return _no_room(path, "not even its name fits", _free(path))
    return DiskError(f"cannot write {path}: {error.strerror}")


@contextlib.contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Makes a directory beside `path`; removes it at the end unless it was moved away.

    A lock that ends with the process holds it, so that the next writer can remove the directory of
    a killed one.

    Raises:
      DiskFullError: replaces an error inside the `with` that means a full disk.
      DiskError: the directory cannot be created.
    """
    temp = path.with_name(f"{TEMP}{path.name}-{secrets.token_hex(6)}")
    lock = None
    try:
        try:
            temp.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(temp.parent)
            temp.mkdir()
        except OSError as e:
            if is_full(e):
                raise
            raise DiskError(f"cannot create {temp.parent}: {e.strerror}; choose another "
                             "directory") from e
        # Locked before it gets its name: no process ever finds a living writer's lock free.
        lock = os.open(temp / f"{_LOCK}.new", os.O_RDWR | os.O_CREAT, 0o644)
        try_lock(lock)
        os.write(lock, socket.gethostname().encode())
        os.rename(temp / f"{_LOCK}.new", temp / _LOCK)
        yield temp
    except Exception as e:
        if not is_full(e):
            raise
        written = sum((temp / n).stat().st_size for n in files_below(temp))
        raise _no_room(path, f"more than the {human_bytes(written)} written so far needed"
                       if written else "nothing of it could be written", _free(path)) from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def move_into_place(temp: Path, path: Path, replace: bool = False) -> None:
    """Flushes a temporary directory to the disk and renames it to `path`.

    Args:
      temp: from `temporary_directory(path)`, filled.
      path: missing or an empty directory; with `replace` anything, which is removed.

    Raises:
      OSError: ENOTEMPTY or the like if something is at `path`; both are unchanged.
    """
    for parent, _, names in os.walk(temp):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))
    old = path.with_name(f"{TEMP}{path.name}-{secrets.token_hex(6)}")
    if replace:
        try:
            os.rename(path, old)
        except FileNotFoundError:  # it was missing, or another process has just removed it
            replace = False
    try:
        os.rename(temp, path)
    except OSError:
        if replace:
            os.rename(old, path)
        raise
    # Unlocked only now: under its temporary name the directory always has a lock.
    (path / _LOCK).unlink(missing_ok=True)
    sync(path.parent)
    if replace:
        remove(old)


def remove_stale(parent: Path) -> None:
    """Removes the temporary files and directories in `parent` whose writers are dead."""
    for temp in parent.glob(f"{TEMP}*"):
        with _is_stale(temp) as dead:
            if dead:
                _log.warning("removing %s, left by a process that was killed", temp)
                with contextlib.suppress(FileNotFoundError):  # another process was first
                    remove(temp)


def stale(parent: Path) -> list[Path]:
    """The temporary files and directories in `parent` whose writers are dead, sorted."""
    found = []
    for temp in sorted(parent.glob(f"{TEMP}*")):
        with _is_stale(temp) as dead:
            found += [temp] * dead
    return found


@contextlib.contextmanager
def _is_stale(temp: Path) -> Iterator[bool]:
    """Yields whether the writer is dead; its lock is held inside the block, if possible."""
    whole = temp.is_dir()
    try:
        fd = os.open(temp / _LOCK if whole else temp, os.O_RDWR)
    except FileNotFoundError:
        # Its writer is about to lock it, or was killed at that moment.
        yield whole and is_old(temp)
        return
    try:
        if not try_lock(fd, missing=False):
            yield False
            return
        # On some network file systems, hosts do not see each other's locks.
        mine = (os.read(fd, 1024).decode(errors="replace") in ("", socket.gethostname()) if whole
                else temp.name.endswith(f".{_host()}"))
        yield mine or is_old(temp)
    finally:
        os.close(fd)


def is_old(temp: Path) -> bool:
    """Whether nothing in it was written for a while; False if it was just removed."""
    try:
        latest = max(p.stat().st_mtime for p in (temp, *temp.rglob("*")))
    except FileNotFoundError:
        return False
    return time.time() - latest > _GRACE_SECONDS


@contextlib.contextmanager
def lock(path: Path, waiting: str = "", shared: bool = False) -> Iterator[bool]:
    """Holds the lock file `path`, made if missing; the end of its holder's process frees it.

    Args:
      path: the lock file; it is empty and is not removed.
      waiting: message for the log before waiting for another holder; '': does not wait.
      shared: whether others may hold it at the same time, if they share it, too.

    Yields:
      Whether the lock is held; also True on a file system without locks, where nothing is held.

    Raises:
      DiskError: the file's or its directory's path is taken by something else.
      Interrupted: a signal requested this process to end while it waited.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise DiskError(f"cannot make the lock file {path}: {e.strerror}"
                        + (f" ({e.filename})" if e.filename != str(path) else "")
                        + "; remove what is in its way, or choose another directory") from e
    try:
        held = try_lock(fd, shared=shared)
        if waiting and not held:
            _log.warning("%s", waiting)
            while not (held := try_lock(fd, shared=shared)):
                interrupt.leave_if_requested()
                time.sleep(_POLL_SECONDS)
        yield held
    finally:
        # The file is not removed: otherwise two processes could lock two different files.
        os.close(fd)


def try_lock(fd: int, missing: bool = True, shared: bool = False) -> bool:
    """Tries to lock without waiting; returns `missing` on file systems without locks."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
        return missing


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, means that the disk (or a quota) is full."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # TensorStore and numpy's tofile report it only in their messages.
        if full or re.search("No space left|quota exceeded|[0-9] requested and [0-9]+ written",
                             str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def require_space(path: Path, size: int) -> None:
    """Refuses to start writing `size` bytes where they cannot fit.

    Raises:
      DiskFullError: says how much is needed and how much is free.
    """
    if size > _free(path):
        raise _no_room(path, f"{human_bytes(size)} needed", _free(path))


def require_room(needed: Mapping[Path, int]) -> None:
    """Refuses to start work that will write `needed[path]` bytes below each path.

    Paths on the same disk count together.

    Raises:
      DiskFullError: says how much is needed and how much is free.
    """
    disks: dict[int, list[Path]] = {}
    for path in needed:
        disks.setdefault(os.stat(_existing(path)).st_dev, []).append(path)
    for paths in disks.values():
        size = sum(needed[path] for path in paths)
        if size > _free(paths[0]):
            raise _no_room(" and ".join(map(str, paths)), f"about {human_bytes(size)} needed",
                           _free(paths[0]))


def _no_room(path: Path | str, needed: str, free: int) -> DiskFullError:
    return DiskFullError(
        f"no room left on the disk for {path}: {needed}, {human_bytes(free)} free.\n"
        "Free some space or choose another place, and run the same command again; what was "
        "finished is kept.")


def _free(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def human_bytes(size: float) -> str:
    """A size in words: 0 B, 12.3 kB, 4.5 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def files_below(directory: Path) -> list[str]:
    """Relative paths of all files below, sorted, without the lock file."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*")
                  if p.is_file() and p != directory / _LOCK)


def digest(path: Path) -> str:
    """The digest of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync(path: Path) -> None:
    """Flushes a file, or the names in a directory, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
