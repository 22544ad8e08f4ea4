"""Checks of a store."""

import contextlib
import dataclasses
import functools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from unlearn_jax.data.cache import check_entry
from unlearn_jax.errors import InputError
from unlearn_jax.stages import progress
from unlearn_jax.storage import store
from unlearn_jax.system import compiled, disk

DAMAGED, MISSING, ORPHANED, LEFT_OVER, CHANGED = KINDS = (
    "damaged", "missing", "orphaned", "left over", "changed")
PRUNED = (ORPHANED, LEFT_OVER)
_DATA = "data"
_NO_STAGES = (_DATA, progress.POPULATION, compiled.FOLDER)
_KEY = re.compile("[0-9a-f]{16}")
_ON_DISK = ("utkface", "folder", "tfds", "arrays")  # sources of data with files that may change


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault in a file or directory.

    Attributes:
      kind: one of `KINDS`.
      path: the file or directory.
      why: the fault.
      lock: lock of the store, held during removal; None: nothing else uses the path.
    """

    kind: str
    path: Path
    why: str
    lock: Path | None = None

    def remove(self) -> bool:
        """Removes the path unless another process is about to use it; returns True if removed."""
        with disk.lock(self.lock) if self.lock else contextlib.nullcontext(True) as held:
            if held:
                with contextlib.suppress(FileNotFoundError):  # its writer removed it first
                    disk.remove(self.path)
        return held


def is_store(root: Path) -> bool:
    """Returns True if a directory looks like a store."""
    return any((root / name).is_dir() for name in _NO_STAGES) or any(_stages(root))


def verify_store(root: Path) -> Iterator[Finding]:
    """Reads all files in a store and yields the findings."""
    for folder in (root, *root.glob("*/"), *root.glob(f"{progress.POPULATION}/*/*/")):
        for path in disk.stale(folder):
            yield Finding(ORPHANED, path, "left by a process that was killed")
    markers = {}
    for directory in _stages(root):
        with_marker = (directory / store.MARKER).exists()
        try:
            marker = markers[directory] = store.parse_marker(directory)
            if (marker["stage"], marker["key"]) != (directory.parent.name, directory.name):
                raise store.StoreError(f"its {store.MARKER} is that of {marker['stage']}/"
                                       f"{marker['key']}")
        except store.StoreError as e:
            kind = DAMAGED if with_marker else ORPHANED
            yield Finding(kind, directory, str(e), directory.with_name(f"{directory.name}.lock"))
            continue
        yield from _files_of(directory, marker)
    keys = {directory.name for directory in markers}
    for directory, marker in markers.items():
        parts = marker["parts"] if isinstance(marker["parts"], dict) else {}
        if "model" in parts and isinstance(parts["model"], str) and parts["model"] not in keys:
            yield Finding(ORPHANED, directory, f"its models, {parts['model']}, are not stored",
                          directory.with_name(f"{directory.name}.lock"))
    yield from _progress(root)
    for entry in sorted((root / _DATA).glob("*/")):
        if not entry.name.startswith("."):
            try:
                check_entry(entry)
            except InputError as e:
                yield Finding(DAMAGED, entry, str(e))
    for path in sorted((root / compiled.FOLDER).glob(f"*{compiled.SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            if compiled.content(path.read_bytes()) is None:
                yield Finding(DAMAGED, path, "it does not match its digest; the next run that "
                                             "needs it compiles it anew")
    yield from _data(markers)


def _stages(root: Path) -> Iterator[Path]:
    """The directories of all stages, finished or not."""
    for folder in sorted(root.glob("*/")):
        if folder.name not in _NO_STAGES and not folder.name.startswith("."):
            yield from (d for d in sorted(folder.glob("*/")) if _KEY.fullmatch(d.name))


def _files_of(directory: Path, marker: dict[str, Any]) -> Iterator[Finding]:
    bad = False
    for name, size in marker["files"].items():
        path = directory / name
        try:
            found = path.stat().st_size
            if found != size:
                yield Finding(DAMAGED, path, f"it has {found} bytes, not {size}")
            elif "digests" in marker and disk.digest(path) != marker["digests"][name]:
                yield Finding(DAMAGED, path, "it does not match its digest")
            else:
                continue
        except OSError as e:
            yield Finding(MISSING, path, e.strerror or str(e))
        bad = True
    if "digests" not in marker and not bad:
        yield from _earlier(directory, marker)
    for name in disk.files_below(directory):
        if name not in marker["files"] and name != store.MARKER:
            yield Finding(ORPHANED, directory / name, f"{store.MARKER} does not name it")


def _earlier(directory: Path, marker: dict[str, Any]) -> Iterator[Finding]:
    """Visible damage in a stage without digests."""
    readers = {".npy": store.load_array, ".npz": store.load_arrays, ".json": store.load_json}
    checkpoints = sorted({name.split("/")[0] for name in marker["files"] if "/" in name})
    for name in marker["files"]:
        if "/" not in name and Path(name).suffix in readers:
            try:
                readers[Path(name).suffix](directory, name)
            except store.StoreError as e:
                yield Finding(DAMAGED, directory / name, str(e))
    for name in checkpoints:
        yield from _checkpoint(directory / name)


def _checkpoint(path: Path) -> Iterator[Finding]:
    from unlearn_jax.storage import checkpoints

    try:
        checkpoints.restore(path)
    except checkpoints.CheckpointError as e:
        if path.exists():  # else its process has just removed it
            yield Finding(DAMAGED, path, str(e))


def _progress(root: Path) -> Iterator[Finding]:
    held = store.Store(root)
    for directory in progress.progress_directories(held):
        stages = progress.saved_stages(directory)
        if not stages:
            # A process makes the directory first and writes the names of its models after that.
            if (directory / progress.STAGES).exists() or disk.is_old(directory):
                yield Finding(LEFT_OVER, directory, "nothing says of which models it is")
        elif all(held.complete(*stage) for stage in stages):
            yield Finding(LEFT_OVER, directory, "its models are all stored")
        else:
            for path in sorted(directory.glob("[0-9]*/")):
                yield from _checkpoint(path)


def _data(markers: dict[Path, dict[str, Any]]) -> Iterator[Finding]:
    """Findings for source files that differ from those that M_Os were trained on."""
    from unlearn_jax.storage import metadata

    compared = {}
    for directory in markers:
        if directory.parent.name == "original":
            with contextlib.suppress(metadata.CheckpointError):  # reported as a file
                known = metadata.read(directory / "checkpoint")["metadata"]
                settings, fingerprint = known["config"]["data"], known["data_fingerprint"]
                compared[json.dumps([settings, fingerprint])] = settings, fingerprint
    for settings, fingerprint in compared.values():
        if why := compare_data(settings, fingerprint):
            yield Finding(CHANGED, Path(settings["path"]), why)


def compare_data(settings: dict[str, Any], fingerprint: str) -> str:
    """The fault of the source files of some data; '' if there is none, or it is not known.

    Args:
      settings: the section `data` of a config, as read from JSON.
      fingerprint: fingerprint of the data when they were loaded with these settings.
    """
    return _compare_data(json.dumps(settings, sort_keys=True), fingerprint)


@functools.cache  # the runs of a sweep share it
def _compare_data(settings: str, fingerprint: str) -> str:
    from unlearn_jax import data
    from unlearn_jax.stages.workdir import config_of

    try:
        section = config_of({"data": json.loads(settings)}).data
    except (TypeError, ValueError) as e:  # settings of another version
        return f"its settings cannot be read: {e}"
    if section.source.partition(":")[0] not in _ON_DISK:
        return ""
    path = Path(section.path).expanduser()
    if section.path and not path.exists():
        logging.warning("%s is not there: its images were not compared", path)
        return ""
    try:
        with tempfile.TemporaryDirectory(prefix="unlearn_jax-") as cache:
            found = data.load(section, Path(cache)).fingerprint
    except InputError as e:
        return f"it cannot be loaded as it was: {e}"
    if found == fingerprint:
        return ""
    return (f"its images or labels are others ({found}) than those that models were trained on "
            f"({fingerprint})")
