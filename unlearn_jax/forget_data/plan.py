"""What a deletion removes from a store, what it keeps, and what it cannot reach."""

import dataclasses
import secrets
import types
from collections.abc import Sequence
from pathlib import Path

from unlearn_jax.data.locations import location
from unlearn_jax.errors import InputError
from unlearn_jax.storage import metadata, traces
from unlearn_jax.storage.store import Store
from unlearn_jax.storage.traces import Trace
from unlearn_jax.system import disk


@dataclasses.dataclass(frozen=True)
class Deletion:
    """A deletion from a store.

    Attributes:
      remove: what goes, in the order in which it goes: what was computed by models goes before the
        models, so that a killed deletion leaves no outputs of missing models.
      keep: what stays, though it has to do with the samples.
      files: data files of the samples, which the program never changes.
      runs: work directories beside the store whose runs used what goes.
      unknown: ids that the store does not know.
    """

    remove: tuple[Trace, ...]
    keep: tuple[Trace, ...]
    files: tuple[str, ...]
    runs: tuple[Path, ...]
    unknown: tuple[str, ...]


def make_plan(root: Path, ids: Sequence[str]) -> Deletion:
    """What a deletion of these samples does to a store; changes nothing.

    Raises:
      InputError: `root` is no store, or a note in it is damaged.
    """
    if not root.is_dir() or not traces.is_store(root):
        raise InputError(f"{root} is no store\n"
                         "give the directory that runs got as --store; default: runs/store")
    found = traces.find_traces(root, ids)
    unknown = traces.unknown_ids(root, ids)
    known = [own for own in ids if own not in set(unknown)]
    # Half-finished models of which nothing is known go only if the store knows one of the ids.
    goes = {t.path for t in found if known and traces.removable(t)}
    order = (traces.DERIVED, traces.MODELS, traces.PROGRESS, traces.CACHE)
    remove = sorted((t for t in found if t.path in goes), key=lambda t: order.index(t.kind))
    keep = [t for t in found if t.path not in goes]
    keys = {t.path.name for t in found if t.kind == traces.MODELS}
    return Deletion(tuple(remove), tuple(keep), _files(found, known),
                tuple(traces.work_directories(root, keys)), tuple(unknown))


def carry_out(root: Path, ids: Sequence[str]) -> Deletion:
    """Removes what `make_plan` finds; returns that plan.

    Raises:
      InputError: see `make_plan`; or a run uses the store. Nothing is removed then.
    """
    with Store(root).unused() as unused:
        if not unused:
            raise InputError(f"{root} is in use: a run trains or reads models there\n"
                             "nothing was removed; run this again when the run has ended")
        plan = make_plan(root, ids)
        for trace in plan.remove:
            with disk.lock(trace.path.with_name(f"{trace.path.name}.lock")) as held:
                if not held:
                    raise InputError(f"{trace.path} is in use by another process\n"
                                     "it stays, and so does what would go after it; run this again "
                                     "when that process has ended")
                _remove(trace.path)
    return plan


def _remove(path: Path) -> None:
    """Removes a directory; it is renamed first, so that no process finds half of it."""
    aside = path.with_name(f"{disk.TEMP}{path.name}-{secrets.token_hex(6)}")
    path.rename(aside)
    disk.remove(aside)


def _files(found: Sequence[Trace], ids: Sequence[str]) -> tuple[str, ...]:
    """The data files of the samples, by the configs of the models that have to do with them."""
    files = set()
    for trace in found:
        if trace.kind == traces.MODELS:
            try:
                content = metadata.read(trace.path / "checkpoint")
                settings = types.SimpleNamespace(**content["metadata"]["config"]["data"])
            except (metadata.CheckpointError, KeyError):
                continue  # unlearn_jax.verify names a damaged checkpoint
            files |= {location(settings, own) for own in ids}
    return tuple(sorted(files - {""}))
