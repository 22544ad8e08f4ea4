"""A finished run, read back: its config, and the places of its models in the store."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from unlearn_jax.errors import InputError
from unlearn_jax.stages.graph import RunContext, Stage
from unlearn_jax.stages.workdir import RESULTS, RUN, config_of
from unlearn_jax.storage import manifest
from unlearn_jax.storage.store import Store, StoreError, read_marker


@dataclasses.dataclass(frozen=True)
class FinishedModels:
    """A stage that a row of results.csv names.

    Attributes:
      method: its name in the store, without the arm.
      forget_name: the forget set of the row.
      epochs: budget.
      key: its key in the store.
    """

    method: str
    forget_name: str
    epochs: int
    key: str


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedRun:
    """The work directory of a finished run.

    Attributes:
      config: the config of the run; unlocked copies may be changed.
      config_name: `ft`, or `ft:utkface`.
      store: the store with its models.
      fingerprint: fingerprint of its data.
      models: by their name in the results, the stages with models of their own.
    """

    config: ml_collections.ConfigDict
    config_name: str
    store: Path
    fingerprint: str
    models: dict[str, list[FinishedModels]]

    def stages(self, study: RunContext, names: Sequence[str]) -> list[Stage]:
        """The stages with the given names.

        Args:
          study: context of the run's config.
          names: names in `self.models`.

        Raises:
          InputError: the data differ from the run's data, or the store lacks a stage.
        """
        if study.dataset.fingerprint != self.fingerprint:
            raise InputError(f"the data are {study.dataset.fingerprint} now, and were "
                             f"{self.fingerprint} in the run: explanations would be of other "
                             "images than the models were trained on")
        sets = {f.name: f for f in study.splits.forget_sets}
        found = {}
        for name in names:
            for own in self.models[name]:
                # M_O stands once for each forget set in results.csv.
                of_set = None if name == "original" else sets[own.forget_name]
                parts = read_marker(study.store.path(own.method, own.key))["parts"]
                found[name, own.key] = Stage(own.method, of_set, own.epochs, parts,
                                             arm="" if name == own.method else name)
        return list(found.values())


def read_finished(directory: Path, store: Path | None = None) -> FinishedRun:
    """Reads a work directory.

    Args:
      directory: directory of the run.
      store: store with its models; None: the one named in run.json.

    Raises:
      InputError: it is not a work directory, its run has not finished, it is merged from several
        runs (which may have other seeds and data), or its store is missing.
    """
    for name in (RUN, RESULTS):
        manifest.check(directory, name)
    record = _record(directory)
    if merged := record.get("merged"):
        raise InputError(f"{directory} is merged from "
                         f"{', '.join(m['directory'] for m in merged)}: explain those")
    if not record.get("finished"):
        raise InputError(f"the run in {directory} has not finished ({RUN} says so); run its "
                         f"command again, it goes on where it stopped:\n{record.get('command')}")
    root = store or Path(record.get("store") or "runs/store")
    if not root.is_dir():
        raise InputError(f"the store {root} is not there; give its place as --store=DIR")
    models: dict[str, list[FinishedModels]] = {}
    path = directory / RESULTS
    try:
        with open(path, newline="") as f:
            rows = dict.fromkeys((r["method"], r["forget_set"], int(r["epochs"]), r["stage"])
                                 for r in csv.DictReader(f))
    except (OSError, KeyError, ValueError) as e:
        raise InputError(f"{path} cannot be read: {e!r}") from e
    for name, forget_name, epochs, key in rows:
        # A baseline has no stage, and an ensemble consists of models of several stages.
        if key and (method := _method_of(Store(root), key)):
            models.setdefault(name, []).append(FinishedModels(method, forget_name, epochs, key))
    for name in ("original", "retrain"):
        if name not in models:
            raise InputError(f"the store {root} lacks the models of {name!r} that the run in "
                             f"{directory} left; give the run's own as --store=DIR")
    return FinishedRun(config_of(record["config"]), record["config_name"], root,
                       record["data_fingerprint"], models)


def _record(directory: Path) -> dict[str, Any]:
    path = directory / RUN
    try:
        record = json.loads(path.read_text())
    except OSError as e:
        raise InputError(f"{directory} is no work directory of a run: {path}: "
                         f"{e.strerror}") from e
    except ValueError as e:
        raise InputError(f"{path} is not JSON: {e}") from e
    missing = {"config", "config_name", "data_fingerprint"} - set(record)
    if missing:
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}")
    return record


def _method_of(store: Store, key: str) -> str | None:
    """The store's name for the stage of a key, which is unique; None: it has no models."""
    for folder in store.root.iterdir():
        try:
            marker = read_marker(store.path(folder.name, key))
        except (StoreError, ValueError):
            continue
        # A slice of SISA holds the constituents of an ensemble, not its models.
        if "slice" not in marker["parts"] and any(
                name.startswith("checkpoint/") for name in marker["files"]):
            return folder.name
    return None
