"""Where a half-finished population is kept, so that a killed run goes on and not back."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

from unlearn_jax.engine.recipe import Recipe, Saver
from unlearn_jax.stages.graph import Stage
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.system import disk, processes

# Parts of a stage that differ between the members of one population.
_OF_A_MEMBER = ("forget", "epochs")
STAGES = "stages.json"
POPULATION = "population"  # the folder of the store


class CheckpointSaver(Saver):
    """Keeps a population under `ROOT/population/COMMON/OWN`.

    COMMON hashes what all its stages share (of several learning rates in one program, the first
    one's), OWN which stages they are. A run that lacks fewer stages than an earlier one did (some
    were stored before the disk was full, or are no longer asked for) takes its members out of the
    earlier one's progress; each run writes to its own.

    Args:
      store: of the stages.
      recipe: of the population.
      stages: those that it trains.
      seconds: how often to save.

    Attributes:
      resumed: something was found and taken over.
    """

    def __init__(self, store: Store, recipe: Recipe, stages: list[Stage], seconds: float):
        own = {"stages": [[s.method, s.key] for s in stages]}
        self._store, self._stages = store, own["stages"]
        self._family = _family(store, recipe, stages)
        self._own = self._family / stage_key(POPULATION, own)
        self._seconds = seconds
        self._last = time.monotonic()
        self.resumed = False

    def due(self) -> bool:
        return processes.agreed("is a save due",
                                lambda: time.monotonic() - self._last >= self._seconds)

    def save(self, epoch: int, tree: Any, metadata: dict[str, Any]) -> None:
        began = time.monotonic()
        processes.agreed("whose progress it is", self._write_stages)
        checkpoints.save_progress(self._own, epoch, tree, metadata)
        self._last = time.monotonic()
        # However slow the disk, most of the time goes into training.
        self._seconds = max(self._seconds, 20 * (self._last - began))

    def _write_stages(self) -> None:
        self._own.mkdir(parents=True, exist_ok=True)
        disk.write_file(self._own / STAGES, json.dumps(self._stages))

    def load(self, template: Callable[[dict[str, Any]], Any | None]) -> tuple[Any, dict] | None:
        for directory in processes.agreed("earlier progress",
                                          lambda: [str(d) for d in self._directories()]):
            found = checkpoints.restore_latest(directory, template)
            if found is not None:
                logging.info("going on from %s", directory)
                self.resumed = True
                return found
        return None

    def finish(self) -> None:
        """Removes all progress of which every stage is in the store by now."""
        processes.agreed("finished progress", self._finish)

    def _finish(self) -> None:
        for directory in self._directories():
            # Our own we know, whatever has become of what says so there.
            stages = self._stages if directory == self._own else saved_stages(directory)
            if stages and all(self._store.complete(*stage) for stage in stages):
                shutil.rmtree(directory, ignore_errors=True)

    def _directories(self) -> Iterator[Path]:
        """This population's own, then the others of its family."""
        yield from (self._own, *sorted(d for d in self._family.glob("*") if d != self._own))


def clean(store: Store) -> None:
    """Removes what killed processes left in a store: half-written files, and finished progress.

    That is progress whose stages are all stored: its process was killed before it came to remove
    it. What living processes write stays.
    """
    for folder in (store.root, *store.root.glob("*/"), *store.root.glob(f"{POPULATION}/*/*/")):
        disk.remove_stale(folder)
    for directory in progress_directories(store):
        stages = saved_stages(directory)
        if stages and all(store.complete(*stage) for stage in stages):
            logging.info("removing %s: its models are all stored", directory)
            shutil.rmtree(directory, ignore_errors=True)


def progress_directories(store: Store) -> list[Path]:
    """Of all half-finished populations of a store, sorted."""
    return sorted(d for d in (store.root / POPULATION).glob("*/*/")
                  if not d.name.startswith(disk.TEMP))


def parts_as_saved(store: Store, recipe: Recipe, stages: list[Stage]) -> list[list[Stage]]:
    """The stages in parts, each of which one saved population holds; last those that none holds.

    Which stages a process trains together depends on what others hold at that moment. After all
    were asked to leave, another one may get M_O: so that nobody's progress is lost, it trains as
    populations what was saved as such.

    Args:
      store: of the stages.
      recipe: of the population.
      stages: to be trained; at least one.
    """
    return [[stages[i] for i in part] for part in processes.agreed(
        "which progress there is", lambda: _positions_as_saved(store, recipe, stages))]


def _positions_as_saved(store: Store, recipe: Recipe, stages: list[Stage]) -> list[list[int]]:
    saved = [{tuple(stage) for stage in saved_stages(directory)}
             for directory in sorted(_family(store, recipe, stages).glob("*"))]
    left, parts = list(range(len(stages))), []
    while held := max(([i for i in left if (stages[i].method, stages[i].key) in of]
                       for of in saved), key=len, default=[]):
        parts.append(held)
        left = [i for i in left if i not in held]
    return sorted(parts) + [left] * bool(left)


def _family(store: Store, recipe: Recipe, stages: list[Stage]) -> Path:
    common = {k: v for k, v in stages[0].parts.items() if k not in _OF_A_MEMBER}
    return store.path(POPULATION, stage_key(
        POPULATION, {"recipe": recipe.name, "epochs": recipe.epochs, **common}))


def saved_stages(directory: Path) -> list[list[str]]:
    """(method, key) of the stages of a saved population.

    None where that cannot be read, or was changed: a population's directory has its name from it.
    """
    try:
        stages = json.loads((directory / STAGES).read_bytes())
        whole = stage_key(POPULATION, {"stages": stages}) == directory.name
    except (OSError, ValueError, TypeError):  # or just removed by another process
        return []
    return stages if whole else []
