"""The work directory of a run: its lock, and the files of the output contract."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import logging

from unlearn_jax.config import default_config
from unlearn_jax.data import requested
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.given import drawn
from unlearn_jax.data.splits import ForgetSet, Splits
from unlearn_jax.errors import InputError
from unlearn_jax.labels import histogram
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk, processes
from unlearn_jax.system.cells import rows_text
from unlearn_jax.system.nested import differing, filled

RUN = "run.json"
RESULTS = "results.csv"
_LOCK = ".lock"  # in the work directory; held while a run writes there
_EARLIER_TEMP = re.compile(r"\.[a-z_]+\.(json|csv)\.tmp")  # as earlier versions wrote files
_BEGINS = b'{\n "config_name": '  # every run.json
ASIDE = "earlier-"  # begins the name of a folder for the files of a run whose record is lost
HISTORY_COLUMNS = ("stage", "forget_set", "seed", "epoch", "steps", "train_loss",
                   "validation_loss", "best", "learning_rate", "images")
CURVES = ("train_loss", "validation_loss", "learning_rate")
LABEL_COLUMNS = ("step", "split", "label", "count")
TOUCHED_COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", "touched", "of", "which")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets",
             "numpy", "ml-collections")


class RunRecord:
    """The record of a run. The first process writes it to run.json at every stage.

    Attributes:
      directory: the work directory.
    """

    def __init__(self, directory: Path, config: ml_collections.ConfigDict, config_name: str,
                 command: str) -> None:
        self.directory = directory
        self._data = config.data
        self._began = time.monotonic()
        settings: Any = jax.config  # JAX adds its options at import, where no checker sees them
        self._record: dict[str, Any] = {
            "config_name": config_name, "command": command, "config": config.to_dict(),
            "versions": versions(), "device": device(), "processes": processes.count(),
            "matmul_precision": settings.jax_default_matmul_precision or "default",
            "data_fingerprint": "", "store": "",
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": 0.0, "finished": False, "stages": [], "compile_seconds": {},
            "first_step_seconds": {}, "warnings": [],
        }
        self._write()

    def record_stage(self, stage: str, forget_set: str, key: str, status: str, seconds: float,
                     images: int, members: int = 0, epochs: int = 0, from_seed: int = -1) -> None:
        """Notes a stage: `computed`, `resumed` or `reused`; seconds without compilation.

        `from_seed` is the seed of the M_O that all members started from; -1: each started from the
        M_O of its own seed.
        """
        if stage == "data":
            self._record["data_fingerprint"] = key
        self._record["stages"].append({
            "stage": stage, "forget_set": forget_set, "epochs": epochs, "key": key,
            "status": status, "seconds": round(seconds, 3), "members": members, "images": images,
            "images_per_s": round(images / seconds, 1) if seconds else None,
            **({"from_seed": from_seed} if from_seed >= 0 else {})})
        self._write()

    def record_store(self, root: Path) -> None:
        """Notes the directory of the store."""
        self._record["store"] = str(root.absolute())
        self._write()

    def record_start(self, program: str, compile_seconds: float,
                     first_step_seconds: float | None) -> None:
        """Notes the time that a population took to start.

        Args:
          program: its name. The seconds of populations with the same name are added up.
          compile_seconds: spent compiling.
          first_step_seconds: until the first training step had ended, with compilation; None: there
            was no step. Of populations with the same name, the first counts.
        """
        total = self._record["compile_seconds"].get(program, 0.0) + compile_seconds
        self._record["compile_seconds"][program] = round(total, 3)
        if first_step_seconds is not None:
            self._record["first_step_seconds"].setdefault(program, round(first_step_seconds, 3))

    def record_plan(self, plan: dict[str, Any]) -> None:
        """Notes the plan."""
        self._record["plan"] = plan
        self._write()

    def warn(self, message: str) -> None:
        """Notes a warning for the reader of the report."""
        self._record["warnings"].append(message)

    def finish(self) -> None:
        """Notes the end of the run, once, and writes the manifest of the directory."""
        if not self._record["finished"]:
            self._record["finished"] = True
            self._write()
            if processes.is_first_process():
                manifest.write(self.directory)

    def write_table(self, name: str, rows: Iterable[dict[str, Any]],
                    columns: Sequence[str]) -> None:
        """Writes a CSV file with these columns; marks cells that a spreadsheet would run."""
        if not processes.is_first_process():
            return
        disk.write_file(self.directory / name, rows_text(columns, rows))

    def write_tensorboard(self, history: Iterable[dict[str, Any]]) -> None:
        """Writes the training curves as TensorBoard logs, one run per member; replaces old logs."""
        if not processes.is_first_process():
            return
        from tensorboardX import SummaryWriter

        directory = self.directory / "tensorboard"
        with disk.temporary_directory(directory) as temp:
            for name, rows in history_by_member(history).items():
                # Each writer has a thread and an open file.
                with SummaryWriter(str(temp / name)) as writer:
                    for row in rows:
                        for column in CURVES:
                            writer.add_scalar(column, row[column], row["epoch"])
            # TensorBoard would draw an earlier run's curves as well.
            disk.move_into_place(temp, directory, replace=True)

    def write_data(self, dataset: Dataset, splits: Splits) -> None:
        """Writes data.json, dropped.csv, labels.csv and, for files of ids, requests.csv."""
        if not processes.is_first_process():
            return
        reasons: dict[str, int] = {}
        for dropped in dataset.dropped:
            # The reason without its numbers, so that samples can be counted by it.
            kind = dropped.reason.split(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        trained = len(splits.train) + len(splits.validation)
        content = {
            "source": dataset.name, "fingerprint": dataset.fingerprint, "task": dataset.task,
            "label_unit": dataset.label_unit, "num_classes": dataset.num_classes,
            "class_names": list(dataset.class_names),
            "counts": {
                "all": sum(dataset.histograms["all"].values()), "used": len(dataset.labels),
                **{name: len(rows) for name, rows in parts.items()},
                "train_balanced": len(splits.rows.source), "dropped": len(dataset.dropped),
                "left_out": len(dataset.left_out_ids),
                "test_repeats_train": dataset.repeated(splits.test, splits.train)},
            "histograms": {
                **dataset.histograms,
                **{name: histogram(dataset.labels[rows]) for name, rows in parts.items()},
                "balanced": histogram(dataset.labels[splits.rows.source])},
            "forget_sets": {f.name: {
                "request": f.request, "train": len(f.train), "validation": len(f.validation),
                "peers": _peers(dataset, splits, f),
                "share": (len(f.train) + len(f.validation)) / trained,
                "asked_in_test": f.in_test, "asked_left_out": f.left_out,
                "repeated_in_retain": dataset.repeated(splits.forget(f), splits.retain_train(f))}
                for f in splits.forget_sets},
            "dropped_reasons": reasons,
            "drawn_splits": list(drawn(dataset)),
        }
        _write_json(self.directory / "data.json", content)
        self.write_table("labels.csv", _label_rows(dataset, splits), LABEL_COLUMNS)
        self.write_table("dropped.csv", ({"id": d.id, "step": d.step, "reason": d.reason}
                                         for d in dataset.dropped), ("id", "step", "reason"))
        if requested.has_requests(splits.forget_sets):
            self.write_table("requests.csv", requested.request_rows(dataset, splits, self._data),
                             requested.COLUMNS)

    def _write(self) -> None:
        self._record["seconds"] = round(time.monotonic() - self._began, 3)
        if processes.is_first_process():
            _write_json(self.directory / RUN, self._record)


@contextlib.contextmanager
def claim(directory: Path, config: ml_collections.ConfigDict, config_name: str,
          command: str) -> Iterator[RunRecord]:
    """Takes a work directory: a new one, an empty one, or one with a run of the same config.

    A directory whose run ended before any training may be taken with another config, too. Until the
    `with` ends, no other process can take the directory. The lock is held by the first process of a
    run and ends with it.

    Raises:
      InputError: the directory holds other files, which stay as they are, or another process is
        writing a run there.
    """
    with contextlib.ExitStack() as held:
        processes.on_first_process("the work directory", lambda: _take(directory, config, held))
        run = RunRecord(directory, config, config_name, command)
        yield run
        run.finish()


def _take(directory: Path, config: ml_collections.ConfigDict, held: contextlib.ExitStack) -> None:
    try:
        os.stat(directory)
    except FileNotFoundError:
        pass  # it will be made
    except OSError as e:
        raise InputError(f"--workdir={directory} cannot be used: {e.strerror}; give another "
                         "directory") from e
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--workdir={directory} is a file; give a directory")
    earlier = directory / RUN
    cut = _is_cut(earlier)
    if earlier.exists() and not cut:
        _check_same_config(directory, earlier, config)
    elif directory.exists() and not cut and not all(map(_is_own, directory.iterdir())):
        raise InputError(f"--workdir={directory} is not empty and holds no run ({RUN}). "
                         "Give a new or an empty directory.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--workdir={directory} cannot be created: {e.strerror}") from e
    if not held.enter_context(disk.lock(directory / _LOCK)):
        raise InputError(f"--workdir={directory} is in use: another process is writing a run there."
                         "\nWait for its end, or give another --workdir; what both have in common "
                         "is computed once.")
    manifest.remove(directory)
    _remove_debris(directory)
    if cut:
        _set_aside(directory)


def _is_own(path: Path) -> bool:
    """Whether a process may leave this file in a work directory before its first record."""
    return path.name == _LOCK or path.name.startswith(disk.TEMP) or bool(
        _EARLIER_TEMP.fullmatch(path.name))


def _remove_debris(directory: Path) -> None:
    """Removes files of processes that were killed while they wrote here."""
    manifest.remove_debris(directory)
    for path in directory.iterdir():
        if _EARLIER_TEMP.fullmatch(path.name):
            path.unlink()


def _is_cut(path: Path) -> bool:
    """Whether a run.json is empty, cut off or all zeros, as after a power cut."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    begun = text.rstrip(b"\0")
    return not begun or (_BEGINS.startswith(begun[:len(_BEGINS)])
                         and not text.endswith(b"\n}\n"))


def _set_aside(directory: Path) -> None:
    """Moves the files of a run whose record is lost, apart from the files of the next run."""
    (directory / RUN).unlink()
    kept = [p for p in directory.iterdir() if p.name != _LOCK
            and not p.name.startswith(ASIDE)]
    if not kept:
        return
    number = 1
    while (aside := directory / f"{ASIDE}{number}").exists():
        number += 1
    aside.mkdir()
    for path in kept:
        path.rename(aside / path.name)
    logging.warning("%s was cut off; what else its run left is in %s now", directory / RUN, aside)


def _check_same_config(directory: Path, earlier: Path, config: ml_collections.ConfigDict) -> None:
    try:
        record = json.loads(earlier.read_text())
        old, stages = record["config"], record["stages"]
        # Stages that it only took from the store are there for the next run, too.
        own = [s["stage"] for s in stages if s["stage"] != "data" and (
            s["status"] != "reused" or record["finished"])]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(f"{earlier} cannot be read ({e}). Remove the work directory or give "
                         "another --workdir.") from e
    new = json.loads(json.dumps(config.to_dict()))
    # A run of an earlier version has no value for a key that came later: its default was used.
    old = filled(old, json.loads(json.dumps(default_config().to_dict())))
    changed = [f"{key}: {before!r} there, {after!r} here"
               for key, before, after in differing(old, new)]
    if changed and (own or (directory / RESULTS).exists()):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(f"--workdir={directory} holds a run of another config "
                         f"({'; '.join(changed[:3])}{more}).\n"
                         "Give another --workdir; what both have in common is reused from the "
                         "store.")


def history_by_member(history: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each member, by a name such as `ft-20-28-seed0`."""
    members: dict[str, list[dict[str, Any]]] = {}
    for row in history:
        name = "-".join(filter(None, (row["stage"], row["forget_set"], f"seed{row['seed']}")))
        members.setdefault(name, []).append(row)
    return members


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def device() -> str:
    """The devices in words, such as `8 x NVIDIA H100` or `1 x cpu (2 cores)`."""
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind += f" ({len(os.sched_getaffinity(0))} cores)"
    return f"{len(devices)} x {kind}"


def _peers(dataset: Dataset, splits: Splits, forget_set: ForgetSet) -> int:
    """The number of test samples that attacks compare D_f with."""
    if splits.injection and forget_set.request == "injected":
        return len(splits.injection.like_injected(dataset.labels[splits.test])[0])
    return len(forget_set.peers)


def _label_rows(dataset: Dataset, splits: Splits) -> Iterator[dict[str, Any]]:
    """Rows of labels.csv: the number of samples with each label after each step of preparation.

    Steps before the split have an empty `split`. `balanced` has the augmented copies of the
    training set, too.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = [(step, "", found) for step, found in dataset.histograms.items()]
    counts += [("split", name, histogram(dataset.labels[rows])) for name, rows in parts.items()]
    parts["train"] = splits.rows.source
    counts += [("balanced", name, histogram(dataset.labels[rows]))
               for name, rows in parts.items()]
    for step, split, found in counts:
        for label, count in found.items():
            yield {"step": step, "split": split, "label": label, "count": count}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    disk.write_file(path, json.dumps(content, indent=1) + "\n")


def config_of(stored: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config of a run.json or a checkpoint; keys that it lacks get their defaults."""
    config = default_config()
    with config.unlocked():
        config.update(_tuples(stored))
    return config


def _tuples(value: Any) -> Any:
    """The value with tuples for lists, as JSON has no tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
