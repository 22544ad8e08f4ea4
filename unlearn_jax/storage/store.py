"""The content-addressed store of finished stages, which appear in it only whole.

A stage is a directory `ROOT/STAGE/KEY`. The key is a hash of exactly what determines the
stage, so an existing stage never needs to be computed again. A stage exists only with a valid
marker `DONE.json`, which is written last: a directory of a killed process, an empty one or a broken
copy is never used.

The marker names every file with its size and digest, and holds a digest of itself. Sizes are
compared whenever a stage is looked up; digests are compared when a file is read (`checked`,
`load_array`, `load_arrays`, `load_json`) and by `unlearn_jax.verify`. Arrays of checkpoints have
digests in the checkpoint (checkpoints.py). Markers of earlier versions have no digests; they are
accepted.
"""

import contextlib
import datetime
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unlearn_jax.errors import InputError
from unlearn_jax.system import disk, processes

MARKER = "DONE.json"
_FORMAT = 1
# On a network file system, a process may see another one's files only later.
_SEEN_SECONDS = 30.0
_IN_USE = "in-use.lock"  # shared by all runs of a store
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")

T = TypeVar("T")

_log = logging.getLogger(__name__)


class StoreError(InputError):
    """The store cannot be read or written; the message says how to fix it."""


def stage_key(stage: str, parts: dict[str, Any]) -> str:
    """The key of a stage: a hash of its name and of exactly what determines it.

    Args:
      stage: name of the stage, such as 'original'.
      parts: nested dict (string keys) of str, bool, int, float, None, and lists or tuples of
        them; a tuple and a list with the same elements are the same. 1, 1.0 and True differ.

    Returns:
      16 hexadecimal digits.

    Raises:
      TypeError: a part has another type; the message names its path.
    """
    text = canonical_json({"stage": stage, "parts": parts})
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def canonical_json(value: Any) -> str:
    """The canonical JSON text of a nested plain value: sorted keys, no spaces.

    Raises:
      TypeError: a value is not plain; the message names its path.
    """
    _check_plain(value, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _check_plain(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{path or 'the top level'} has the key {key!r} of type "
                                f"{type(key).__name__}; allowed: str")
            _check_plain(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{path}[{i}]")
    elif value is not None and type(value) not in (str, bool, int, float):
        # Exact types only: the text of a numpy scalar or an enum may change between versions.
        raise TypeError(f"{path or 'the value'} is {value!r} of type {type(value).__name__}; "
                        "allowed: str, bool, int, float, None, and dict, list, tuple of them")


class Store:
    """A directory of finished stages that withstands kills and concurrent writers.

    All processes of a program call the same methods; process 0 alone looks, writes and locks.

    Args:
      root: the directory; created when the first stage is written.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)

    def create(self) -> None:
        """Creates the root if it is missing, and checks it.

        Raises:
          StoreError: it cannot be created or written to, or several processes do not see the same
            directory.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StoreError(f"--store={self.root} cannot be created: {e.strerror}") from e
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise StoreError(f"--store={self.root} cannot be written to; choose another")
        if processes.count() > 1:
            self._check_shared()

    def _check_shared(self) -> None:
        def write() -> str:
            token = self.root / f"{disk.TEMP}{secrets.token_hex(6)}"
            token.write_text("")
            return token.name

        token = self.root / processes.on_first_process("a file in the store", write)
        until = time.monotonic() + _SEEN_SECONDS
        while not token.exists():
            if time.monotonic() > until:
                raise StoreError(f"--store={self.root} is not where process 0 writes; it must be "
                                 "on a file system that all processes see")
            list(self.root.iterdir())  # makes the file system refresh its view
            time.sleep(0.2)
        processes.wait("the store")
        if processes.is_first_process():
            token.unlink()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """For a run: nothing is deleted from the store meanwhile; waits for a deletion to end."""
        with contextlib.ExitStack() as locks:
            processes.on_first_process("the store", lambda: locks.enter_context(disk.lock(
                self.root / _IN_USE, f"waiting for forget-data, which deletes from {self.root}",
                shared=True)))
            yield

    @contextlib.contextmanager
    def unused(self) -> Iterator[bool]:
        """For a deletion: yields whether no run uses the store; a run that starts then waits."""
        with disk.lock(self.root / _IN_USE) as held:
            yield held

    def path(self, stage: str, key: str) -> Path:
        """The directory of the stage, existing or not."""
        for name in (stage, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a stage or key; allowed: letters, "
                                 "digits, '.', '_', '=', '-', not starting with a sign or dot")
        return self.root / stage / key

    def complete(self, stage: str, key: str) -> bool:
        """Whether the stage exists: a valid marker, and each listed file with its size."""
        return processes.on_first_process(f"{stage}/{key}", lambda: self._complete(stage, key))

    def _complete(self, stage: str, key: str) -> bool:
        try:
            marker = read_marker(self.path(stage, key))
        except StoreError:
            return False
        return (marker["stage"], marker["key"]) == (stage, key)

    def keys(self, stage: str) -> list[str]:
        """The keys of all finished stages of a name, sorted."""
        def find() -> list[str]:
            found = (p.name for p in (self.root / stage).glob("*") if _NAME.fullmatch(p.name))
            return sorted(key for key in found if self._complete(stage, key))

        return processes.on_first_process(f"stages of {stage}", find)

    @contextlib.contextmanager
    def write(self, stage: str, key: str, parts: dict[str, Any]) -> Iterator[Path]:
        """Writes a stage: `with store.write(...) as directory:` fill `directory`.

        On success one rename moves the directory, with its marker, to its place. On an
        exception nothing is left of it. If another process has completed the same stage
        meanwhile, that one is kept.

        Args:
          stage: name of the stage.
          key: `stage_key(stage, parts)`.
          parts: all that determines the stage; kept in the marker.

        Yields:
          An empty directory on the store's file system; in all processes but the first it is
          discarded.

        Raises:
          ValueError: the key does not match the parts.
          DiskFullError: the file system is full; nothing but this attempt is lost.
        """
        if key != stage_key(stage, parts):
            raise ValueError(f"{key!r} is not the key of this {stage!r} stage; "
                             f"stage_key(stage, parts) is {stage_key(stage, parts)!r}")
        if not processes.is_first_process():
            with tempfile.TemporaryDirectory(prefix="unlearn_jax-") as unused:
                yield Path(unused)
            processes.wait(f"{stage}/{key} to be stored")
            return
        path = self.path(stage, key)
        started = time.time()
        with disk.temporary_directory(path) as temp:
            yield temp
            sizes = {n: (temp / n).stat().st_size for n in disk.files_below(temp)}
            marker: dict[str, Any] = {
                "format": _FORMAT, "stage": stage, "key": key, "parts": parts, "files": sizes,
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "seconds": round(time.time() - started, 3),
            }
            marker["digests"] = {n: disk.digest(temp / n) for n in sizes}
            marker["digest"] = _digest(marker)
            (temp / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n")
            self._put_in_place(temp, stage, key)
        processes.wait(f"{stage}/{key} to be stored")

    def _put_in_place(self, temp: Path, stage: str, key: str) -> None:
        path = self.path(stage, key)
        while True:
            if self._complete(stage, key):
                _log.info("%s/%s was completed by another process; keeping that one", stage, key)
                return
            broken = os.path.lexists(path)
            if broken:
                _log.warning("replacing %s: it has no valid %s", path, MARKER)
            try:
                disk.move_into_place(temp, path, replace=broken)
                return
            except OSError as e:
                # Another writer's directory appeared between the check and the rename.
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    @contextlib.contextmanager
    def lock(self, stage: str, key: str, wait: bool = True) -> Iterator[bool]:
        """Locks a stage: a second process waits here until the first is done or dead.

        Check `complete` inside. On a file system without locks nothing is held; the stage may then
        be computed twice, and one of the two is kept.

        Yields:
          Whether it is held; without `wait`, another process may hold it.
        """
        path = self.path(stage, key)
        waiting = f"waiting for another process that is computing {stage}/{key}" if wait else ""
        with contextlib.ExitStack() as locks:
            yield processes.on_first_process(
                f"the lock of {stage}/{key}", lambda: locks.enter_context(
                    disk.lock(path.with_name(path.name + ".lock"), waiting)))


def read_marker(directory: str | os.PathLike) -> dict[str, Any]:
    """The marker of a finished stage, after checking that its files are all there.

    Returns:
      See `parse_marker`.

    Raises:
      StoreError: see `parse_marker`; or a listed file is missing or of another size.
    """
    directory = Path(directory)
    marker = parse_marker(directory)
    for name, size in marker["files"].items():
        try:
            found = (directory / name).stat().st_size
        except OSError as e:
            raise StoreError(f"{directory} is incomplete: {name}: {e.strerror}") from e
        if found != size:
            raise StoreError(f"{directory} is damaged: {name} has {found} bytes, not {size}")
    return marker


def parse_marker(directory: Path) -> dict[str, Any]:
    """The marker of a finished stage, without a check of its files.

    Returns:
      A dict with format, stage, key, parts, files ({relative path: bytes}), time (UTC), seconds,
      and unless an earlier version wrote it, digests ({relative path: hex}) and digest (its own).

    Raises:
      StoreError: no marker, an unreadable one, or one that was changed.
    """
    try:
        marker = json.loads((directory / MARKER).read_bytes())
        expected = {n: int(size) for n, size in marker["files"].items()}
        version = marker["format"]
        whole = (stage_key(marker["stage"], marker["parts"]) == marker["key"]
                 and marker.get("digest", _digest(marker)) == _digest(marker)
                 and marker.get("digests", expected).keys() == expected.keys())
    except OSError as e:
        raise StoreError(f"{directory} is not a finished stage: {MARKER}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise StoreError(f"{directory} is not a finished stage: {MARKER} is broken") from e
    if version != _FORMAT:
        raise StoreError(f"{directory} has format {version!r}; this version reads {_FORMAT}")
    if not whole:
        raise StoreError(f"{directory} is not a finished stage: {MARKER} does not match its digest")
    return marker


def _digest(marker: dict[str, Any]) -> str:
    """The digest of a marker, without the digest that it holds."""
    text = canonical_json({k: v for k, v in marker.items() if k != "digest"})
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def checked(directory: str | os.PathLike, name: str) -> Path:
    """The path of a file of a finished stage, after comparing its digest.

    Args:
      directory: directory of the stage.
      name: name of the file in it, as in the marker.

    Raises:
      StoreError: the stage is not finished or lacks the file, or the file was changed.
    """
    directory, marker = Path(directory), read_marker(directory)
    if name not in marker["files"]:
        raise StoreError(f"{directory} has no file {name!r}; it has "
                         + (", ".join(marker["files"]) or "none"))
    if "digests" in marker and disk.digest(directory / name) != marker["digests"][name]:
        raise _damaged(directory, f"{name} does not match its digest")
    return directory / name


def load_array(directory: str | os.PathLike, name: str) -> np.ndarray:
    """The array in a .npy file of a finished stage.

    Raises:
      StoreError: see `checked`; or it holds no array.
    """
    return _load(directory, name, np.load)


def load_arrays(directory: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    """The arrays in a .npz file of a finished stage.

    Raises:
      StoreError: see `checked`; or it holds no arrays.
    """
    def read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return dict(arrays)

    return _load(directory, name, read)


def load_json(directory: str | os.PathLike, name: str) -> Any:
    """The content of a JSON file of a finished stage.

    Raises:
      StoreError: see `checked`; or it holds no JSON.
    """
    return _load(directory, name, lambda path: json.loads(path.read_bytes()))


def _load(directory: str | os.PathLike, name: str, read: Callable[[Path], T]) -> T:
    path = checked(directory, name)
    try:
        return read(path)
    except MemoryError:
        raise
    except Exception as e:  # for damaged files NumPy and zipfile raise a dozen types
        text = " ".join(str(e).split())[:200]
        raise _damaged(directory, f"{name} cannot be read ({type(e).__name__}: {text})") from e


def _damaged(directory: str | os.PathLike, what: str) -> StoreError:
    return StoreError(f"{directory} is damaged: {what}; restore a copy, or remove that directory "
                      "and run again")
