"""Saves, restores and describes Orbax checkpoints.

A checkpoint is a directory with `arrays/` (written by Orbax) and `metadata.json` (metadata.py).
Orbax silently casts a wrong dtype, silently loads flipped bits, and accepts an empty directory as
a checkpoint; here each is an error.

A leaf is named by its path, such as `params/stem/kernel`; the member axis is inside the arrays.

With several processes, all of them must call the functions that save or restore. A save gathers the
arrays that are divided over them, and process 0 writes. Each process reads for itself. So another
number of processes can continue from it.
"""

import contextlib
import datetime
import errno
import functools
import hashlib
import logging
import operator
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint
from orbax.checkpoint import v1 as ocp

from unlearn_jax.storage import metadata as metadata_file
from unlearn_jax.storage.metadata import ARRAYS, CheckpointError, DamagedError
from unlearn_jax.system import arrays, disk, processes

_KEEP = 2

_log = logging.getLogger(__name__)


def save(path: str | os.PathLike, tree: Any, metadata: dict[str, Any],
         overwrite: bool = False, yielding: bool = False) -> None:
    """Writes a checkpoint; returns when all of it is on the disk.

    Args:
      path: the checkpoint's directory; its parent is created.
      tree: any pytree of jax or numpy arrays. JAX's typed random keys are not stored: pass
        `jax.random.key_data(key)`.
      metadata: nested dict of plain values; numpy scalars and arrays become numbers and lists,
        tuples become lists. NaN and infinities are kept.
      overwrite: replaces the checkpoint at `path`, if there is one.
      yielding: keeps the same checkpoint if another process has written it meanwhile.

    Raises:
      CheckpointError: something is at `path`, or a leaf or its path cannot be stored.
      TypeError: the metadata holds another type; the message names its path.
      disk.DiskFullError: no room; a checkpoint at `path` is unchanged.
    """
    path = Path(path).absolute()
    named, empty = _flatten(tree)
    leaves = _to_host(named)
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def write() -> None:
        _check_target(path, overwrite)
        disk.require_space(path, sum(a.nbytes for a in leaves.values()))
        with disk.temporary_directory(path) as temp:
            (temp / metadata_file.FILE).write_text(metadata_file.text(metadata, {
                name: {"shape": list(a.shape), "dtype": a.dtype.name, "digest": _digest(a)}
                for name, a in leaves.items()}, empty, time))
            if leaves:
                with _quiet_orbax():
                    _write_alone(temp / ARRAYS, _nest(leaves))
            else:
                (temp / ARRAYS).mkdir()  # Orbax refuses a tree without leaves
            try:
                disk.move_into_place(temp, path, replace=overwrite)
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if yielding:
                    _log.warning("%s was written by another process meanwhile, and stays", path)
                    return
                raise CheckpointError(f"{path} was written by another process meanwhile") from e

    processes.on_first_process("a checkpoint", write)


def _write_alone(path: Path, tree: Any) -> None:
    """Writes a tree by Orbax without waiting for other processes."""
    if processes.count() == 1:
        ocp.save(path, tree)
        return
    # With v1 all processes would have to save, and to meet in barriers that time out after five
    # minutes and whose names count each process's loads. v1 reads the checkpoints of this function.
    alone = orbax.checkpoint.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="writer")
    with orbax.checkpoint.Checkpointer(
            orbax.checkpoint.PyTreeCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone) as checkpointer:
        checkpointer.save(path, tree)


def restore(path: str | os.PathLike, like: Any = None, sharding: Any = None,
            verify: bool = True) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint.

    Args:
      path: the checkpoint's directory.
      like: the expected pytree of arrays or `jax.ShapeDtypeStruct`. The result has its structure;
        each leaf must have its shape and dtype. None: nested dicts as stored
        (tuples become dicts with keys '0', '1', ...).
      sharding: one `jax.sharding.Sharding` for all leaves, or a tree of them with the result's
        structure. None: numpy arrays on the host.
      verify: compares the digest of each leaf.

    Returns:
      (tree, metadata as saved).

    Raises:
      CheckpointError: not a checkpoint; incomplete; damaged (the message names the leaf); or other
        leaves, shapes or dtypes than `like` (the message names the leaf and both).
    """
    content = metadata_file.read(path)
    wanted: dict[str, Any] = {}
    if like is not None:
        wanted, _ = _flatten(like)
        _check_like(path, content["leaves"], wanted)
    leaves = _load(path, content["leaves"], list(content["leaves"]), verify)
    if like is None:
        tree = _nest(leaves | {name: {} for name in content["empty"]})
    else:
        tree = jax.tree.unflatten(jax.tree.structure(like), [leaves[n] for n in wanted])
    if sharding is not None:
        tree = _place(path, tree, sharding)
    return tree, content["metadata"]


def restore_leaves(path: str | os.PathLike, names: list[str],
                   verify: bool = True) -> dict[str, np.ndarray]:
    """Reads some leaves only.

    Args:
      path: the checkpoint's directory.
      names: paths of leaves, as `describe` gives them.
      verify: compares their digests.

    Returns:
      {leaf path: numpy array}.

    Raises:
      CheckpointError: as `restore`, or there is no such leaf.
    """
    stored = metadata_file.read(path)["leaves"]
    for name in names:
        if name not in stored:
            raise CheckpointError(f"{path} has no leaf {name!r}; it has {_some(stored)}")
    return _load(path, stored, names, verify)


def describe(path: str | os.PathLike) -> tuple[
        dict[str, Any], dict[str, tuple[tuple[int, ...], np.dtype]]]:
    """Describes a checkpoint without reading its arrays.

    Returns:
      (metadata as saved, {leaf path: (shape, dtype)}).

    Raises:
      CheckpointError: not a checkpoint, or its metadata is damaged.
    """
    content = metadata_file.read(path)
    return content["metadata"], metadata_file.specs(content)


def save_progress(directory: str | os.PathLike, step: int, tree: Any,
                  metadata: dict[str, Any]) -> Path:
    """Saves the checkpoint `directory/STEP` and keeps only the newest two.

    On a file system without locks, two processes may train the same population here. They reach
    the same states, so the checkpoint of either serves both.

    Returns:
      The checkpoint's directory.
    """
    path = Path(directory) / f"{step:08d}"
    exists = processes.on_first_process("an earlier checkpoint", path.exists)
    save(path, tree, metadata, overwrite=exists, yielding=True)
    processes.on_first_process("older checkpoints", lambda: _remove_others(path, step))
    return path


def _remove_others(path: Path, step: int) -> None:
    others = [p for p in _numbered(path.parent) if p != path]
    # A later one is broken; otherwise `restore_latest` would have used it.
    later = [p for p in others if int(p.name) > step]
    earlier = [p for p in others if int(p.name) < step]
    for old in later + earlier[:-(_KEEP - 1)]:
        with contextlib.suppress(FileNotFoundError):  # another process is removing it
            shutil.rmtree(old)


def restore_latest(directory: str | os.PathLike,
                   like: Callable[[dict[str, Any]], Any] = lambda metadata: None,
                   ) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest checkpoint of `save_progress` that is whole and usable.

    Others are skipped with a log line.

    Args:
      directory: as given to `save_progress`; may be missing.
      like: maps a checkpoint's metadata to the argument `like` of `restore`; raises CheckpointError
        if that checkpoint is not usable.

    Returns:
      As `restore`; None: there is no usable checkpoint.
    """
    for name in processes.on_first_process("checkpoints", lambda: [
            p.name for p in reversed(_numbered(directory))]):
        path, found = Path(directory, name), None
        try:
            found = restore(path, like(describe(path)[0]))
        except CheckpointError as e:
            _log.warning("passing over a checkpoint: %s", e)
        # Its owner may remove it when only some processes have read it.
        if processes.lowest("a checkpoint that all have read", found is not None):
            return found
    return None


def _numbered(directory: str | os.PathLike) -> list[Path]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:  # it never existed, or another process has just removed it
        return []
    return [Path(directory, n) for n in sorted((n for n in names if n.isdecimal()), key=int)]


def _check_target(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise CheckpointError(f"{path} exists; choose another path or ask to overwrite it")
    if not ((path / metadata_file.FILE).exists() or (path / ARRAYS).exists()):
        raise CheckpointError(f"{path} is not a checkpoint; it is not overwritten")


def _flatten(tree: Any) -> tuple[dict[str, Any], list[str]]:
    """({path: leaf}, paths of empty dicts), since no leaf shows that batch_stats is empty."""
    named: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_empty)[0]:
        parts = [jax.tree_util.keystr((k,), simple=True) for k in keys]
        name = "/".join(parts)
        if not parts and not _is_empty(leaf):
            raise CheckpointError(f"a checkpoint holds a tree; this is a {type(leaf).__name__}")
        if any(not p or "/" in p for p in parts):
            raise CheckpointError(f"the leaf {parts} has a key that is empty or holds '/'")
        if name in named:
            raise CheckpointError(f"two leaves have the path {name!r}")
        named[name] = leaf
    leaves = {name: leaf for name, leaf in named.items() if not _is_empty(leaf)}
    return leaves, [name for name in named if name and name not in leaves]


def _is_empty(node: Any) -> bool:
    return isinstance(node, dict) and not node


def _to_host(leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    dotted: dict[str, str] = {}
    for name, leaf in leaves.items():
        other = dotted.setdefault(name.replace("/", "."), name)
        if other != name:  # Orbax writes a.b and a/b to the same place
            raise CheckpointError(f"the leaves {other!r} and {name!r} would share a file")
        _check_leaf(name, leaf)
    host = {name: np.asarray(a, order="C") for name, a in arrays.fetch(leaves).items()}
    return {name: a.astype(a.dtype.newbyteorder("="), copy=False) for name, a in host.items()}


def _check_leaf(name: str, leaf: Any) -> None:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise CheckpointError(f"the leaf {name} is a {type(leaf).__name__}; allowed: arrays")
    if isinstance(leaf, jax.Array):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise CheckpointError(f"the leaf {name} is a typed random key; store "
                                  "jax.random.key_data(key)")
        if leaf.is_deleted():
            raise CheckpointError(f"the leaf {name} was donated or deleted before the save")
    if not (jax.dtypes.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_):
        raise CheckpointError(f"the leaf {name} has dtype {leaf.dtype}; allowed: numbers, bool")
    if leaf.size == 0:
        raise CheckpointError(f"the leaf {name} has shape {leaf.shape}: nothing to store")


def _load(path: str | os.PathLike, stored: dict[str, Any], names: list[str],
          verify: bool) -> dict[str, np.ndarray]:
    if not names:
        return {}
    expected = {n: (tuple(stored[n]["shape"]), np.dtype(stored[n]["dtype"])) for n in names}
    # An untouched np.empty takes no memory: it only describes a numpy array, its shape and dtype.
    abstract = {n: np.empty(*expected[n]) if n in expected else ocp.PLACEHOLDER for n in stored}
    try:
        with _quiet_orbax(), _by_itself():
            loaded = ocp.load(Path(path, ARRAYS).absolute(), _nest(abstract))
    except MemoryError:
        raise
    except Exception as e:  # for damaged files Orbax and TensorStore raise a dozen types
        if len(names) > 1:  # one by one, to name the leaf
            return {n: _load(path, stored, [n], verify)[n] for n in names}
        text = " ".join(str(e).split())[:200]
        raise DamagedError(f"{path} is damaged: the leaf {names[0]} cannot be read "
                           f"({type(e).__name__}: {text})") from e
    leaves = {n: functools.reduce(operator.getitem, n.split("/"), loaded) for n in names}
    for name, a in leaves.items():
        if (a.shape, a.dtype) != expected[name]:
            raise DamagedError(f"{path} is damaged: the leaf {name} is {a.dtype}"
                               f"{list(a.shape)}, not {_spec(stored[name])}")
        if verify and _digest(a) != stored[name]["digest"]:
            raise DamagedError(f"{path} is damaged: the leaf {name} does not match its "
                               "digest; restore a copy, or remove it and run again")
    return leaves


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keeps Orbax' tracebacks off the terminal; the caller reports its exceptions."""
    def keep(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _by_itself() -> Any:
    """Makes Orbax not wait for other processes: each may read another checkpoint."""
    if processes.count() == 1:
        return contextlib.nullcontext()
    me = jax.process_index()
    return ocp.Context(multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"))


def _check_like(path: str | os.PathLike, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    for title, names in (("lacks", [n for n in wanted if n not in stored]),
                         ("also has", [n for n in stored if n not in wanted])):
        if names:
            raise CheckpointError(f"{path} {title} {_some(names)}")
    for name, leaf in wanted.items():
        want = _spec({"shape": leaf.shape, "dtype": leaf.dtype.name})
        have = _spec(stored[name])
        if have != want:
            raise CheckpointError(f"{path}: the leaf {name} is {have}; expected {want}")


def _place(path: str | os.PathLike, tree: Any, sharding: Any) -> Any:
    placed = _put(tree, sharding)
    for (name, a), b in zip(_flatten(tree)[0].items(), jax.tree.leaves(placed), strict=True):
        if a.dtype != b.dtype:
            raise CheckpointError(f"{path}: the leaf {name} is {a.dtype}, which jax would cast "
                                  f"to {b.dtype}; restore it to the host or enable jax_enable_x64")
    return placed


def _put(tree: Any, sharding: Any) -> Any:
    if isinstance(sharding, jax.sharding.Sharding):
        return arrays.put(tree, sharding)
    return jax.tree.map(arrays.put, tree, sharding)


def _nest(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def _digest(a: np.ndarray) -> str:
    """The digest of the bytes in row-major order; shape and dtype are compared separately."""
    data = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def _spec(leaf: dict[str, Any]) -> str:
    return f"{leaf['dtype']}{list(leaf['shape'])}"


def _some(names: Any, most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
