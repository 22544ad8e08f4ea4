"""Saves half-finished populations, so that a killed run continues where it was saved."""

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
from unlearn_jax.storage.half_finished import POPULATION, STAGES, saved_stages
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.system import disk, processes

# Parts of a stage that differ between the members of one population.
_OF_A_MEMBER = ("forget", "epochs")


class CheckpointSaver(Saver):
    """Keeps a population under `ROOT/population/COMMON/OWN`.

    COMMON is a hash of the parts that all its stages share; if several learning rates share the
    program, of the first one. OWN is a hash of the stages. A run that lacks fewer stages than an
    earlier one did (some were stored before the disk was full, or are no longer wanted) takes its
    members from the earlier run's progress. Each run writes to its own directory.

    Args:
      store: where the stages are kept.
      recipe: how the population is trained.
      stages: the stages that it trains.
      seconds: time between two saves.

    Attributes:
      resumed: whether earlier progress was found and used.
    """

    def __init__(self, store: Store, recipe: Recipe, stages: list[Stage], seconds: float) -> None:
        own = {"stages": [[s.method, s.key] for s in stages]}
        self._store, self._stages = store, own["stages"]
        self._family = _family(store, recipe, stages)
        self._own = self._family / stage_key(POPULATION, own)
        self._seconds = seconds
        self._last = time.monotonic()
        self.resumed = False

    def due(self) -> bool:
        return processes.on_first_process("is a save due",
                                lambda: time.monotonic() - self._last >= self._seconds)

    def save(self, epoch: int, tree: Any, metadata: dict[str, Any]) -> None:
        began = time.monotonic()
        processes.on_first_process("whose progress it is", self._write_stages)
        checkpoints.save_progress(self._own, epoch, tree, metadata)
        self._last = time.monotonic()
        # However slow the disk, most of the time goes into training.
        self._seconds = max(self._seconds, 20 * (self._last - began))

    def _write_stages(self) -> None:
        self._own.mkdir(parents=True, exist_ok=True)
        disk.write_file(self._own / STAGES, json.dumps(self._stages))

    def load(self, template: Callable[[dict[str, Any]], Any | None]) -> tuple[Any, dict] | None:
        for directory in processes.on_first_process("earlier progress",
                                          lambda: [str(d) for d in self._directories()]):
            found = checkpoints.restore_latest(directory, template)
            if found is not None:
                logging.info("going on from %s", directory)
                self.resumed = True
                return found
        return None

    def finish(self) -> None:
        """Removes all progress whose stages are all in the store."""
        processes.on_first_process("finished progress", self._finish)

    def _finish(self) -> None:
        for directory in self._directories():
            # The stages of this population are known here, even if its file is damaged.
            stages = self._stages if directory == self._own else saved_stages(directory)
            if stages and all(self._store.complete(*stage) for stage in stages):
                shutil.rmtree(directory, ignore_errors=True)

    def _directories(self) -> Iterator[Path]:
        """The directory of this population, then the others of its family."""
        yield from (self._own, *sorted(d for d in self._family.glob("*") if d != self._own))


def clean(store: Store) -> None:
    """Removes files that killed processes left in a store: half-written ones, finished progress.

    Finished progress has all its stages in the store; its process was killed before it removed the
    progress. Files that a running process writes stay.
    """
    for folder in (store.root, *store.root.glob("*/"), *store.root.glob(f"{POPULATION}/*/*/")):
        disk.remove_stale(folder)
    for directory in progress_directories(store):
        stages = saved_stages(directory)
        if stages and all(store.complete(*stage) for stage in stages):
            logging.info("removing %s: its models are all stored", directory)
            shutil.rmtree(directory, ignore_errors=True)


def progress_directories(store: Store) -> list[Path]:
    """The directories of all half-finished populations of a store, sorted."""
    return sorted(d for d in (store.root / POPULATION).glob("*/*/")
                  if not d.name.startswith(disk.TEMP))


def parts_as_saved(store: Store, recipe: Recipe, stages: list[Stage]) -> list[list[Stage]]:
    """The stages in parts: one for each saved population, and last the stages that were not saved.

    The stages that a process trains together depend on those that other processes hold at that
    moment. After all were stopped, the next process may hold other stages. So it continues the
    populations as they were saved, and no progress is lost.

    Args:
      store: where the stages are kept.
      recipe: how the population is trained.
      stages: at least one, all to be trained.
    """
    return [[stages[i] for i in part] for part in processes.on_first_process(
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
