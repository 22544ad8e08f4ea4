"""Many work directories as one: one table, one report.

Results that several runs share (M_O, M_R, a seed that two of them trained) must agree and are kept
once; all others are added. Runs on different data are refused, unless `other_data` allows them.
"""

import dataclasses
import functools
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearn_jax.errors import ReportError
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables import across, inputs
from unlearn_jax.report.tables.files import checked, read_arrays, read_csv
from unlearn_jax.report.tables.predictions import parse_prediction_name
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.system.cells import safe_table

_IDENTITY = ["method", "forget_set", "epochs", "seed", "metric"]
# Tables that a run may have: the column of the method's name, and what identifies a row.
_TABLES = {"history.csv": ("stage", ["stage", "forget_set", "seed", "epoch"]),
           "layers.csv": ("method", ["method", "forget_set", "epochs", "seed", "layer"]),
           "touched.csv": ("method", ["method", "forget_set", "epochs", "seed", "layer"])}
# About the data: kept where all runs have the same.
_DATA = ("dropped.csv", "labels.csv")
# About one run alone: its choice among its own trials, its own samples.
_LEFT_OUT = ("trials.csv", "explain.csv", "channels.csv", "explanations", "sisa_history.csv")

# What a run says of an audit that had too few models (audits.py, metrics/).
_FEW_SEEDS = re.compile(r"audit (\w+) of .*: .*(?:\bseeds?\b|models of each|half of).*", re.DOTALL)
_NOT_AGAIN = ("audit {}: a run alone had too few seeds for it, and a merger does not compute "
              "audits again")


@dataclasses.dataclass(frozen=True)
class MergedRun:
    """A work directory to be merged.

    Attributes:
      directory: where it is.
      label: added to the names of its methods (`ft+LABEL`), except M_O, M_R and the median. It
        tells runs apart that differ in other things than method, forget set, budget and seed; ''
        leaves the names.
    """

    directory: Path
    label: str = ""

    def method(self, name: str) -> str:
        """A method's name in the merged run."""
        return name if _is_shared(name) or not self.label else f"{name}+{self.label}"


def _is_shared(method: str) -> bool:
    return method in ("median", *inputs.REFERENCES)


def merge_runs(sources: Sequence[MergedRun], out: Path, other_data: bool = False) -> None:
    """Writes results.csv, predictions, data.json, run.json and `_TABLES` of all runs together.

    Means over pairs of seeds are computed again, over all pairs of the merged seeds (`across.py`).
    A file of `_DATA` is kept if it is the same in all runs. Trials of comparisons and explanations
    are not merged; a warning in run.json names them.

    Args:
      sources: finished runs, at least one.
      out: the merged work directory; must be empty or not exist.
      other_data: allow runs with different data fingerprints, tasks being the same.

    Raises:
      ReportError: a run is unfinished or cannot be read, two runs are on different data, two runs
        give different values for one cell, or `out` is not empty. A merger by the same command
        whose report is missing may be in `out`; it is made again.
    """
    out, command = Path(out), _command(sources, out, other_data)
    again = out.exists() and any(out.iterdir())
    # A merger by the same command without a whole report was killed; it is made again.
    if again and (_merged_by(out) != command or manifest.is_reported(out)):
        raise ReportError(f"{out} is not empty; give a new folder as --out")
    runs = [inputs.read_run(s.directory) for s in sources]
    _check_alike(sources, runs, other_data)
    results = _results(sources)
    with disk.temporary_directory(out.absolute()) as temp:  # half a merger looks like a whole one
        for name, (column, identity) in _TABLES.items():
            _write_table(sources, temp, name, column, identity)
        for name in _agreed(sources):
            shutil.copyfile(checked(sources[0].directory, name), temp / name)
        _write_predictions(sources, temp)
        whole = across.over_all_pairs(results, temp, runs[0].classification, _from_seeds(runs))
        disk.write_file(temp / "results.csv", safe_table(whole).to_csv(index=False))
        disk.write_file(temp / "data.json", json.dumps(_data(runs), indent=1))
        disk.write_file(temp / "run.json", json.dumps(_run(sources, runs, command), indent=1))
        manifest.write(temp)
        disk.move_into_place(temp, out.absolute(), replace=again)


def _merged_by(out: Path) -> str | None:
    """The command that made the merger in a folder; None: it holds something else."""
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
        return record["command"] if "merged" in record else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_alike(sources: Sequence[MergedRun], runs: Sequence[inputs.Run],
                 other_data: bool) -> None:
    first = runs[0]
    for source, run in zip(sources, runs):
        if not run.run.get("finished", True):
            raise ReportError(f"{source.directory} is not finished; run its command again")
        if run.task != first.task or run.unit != first.unit:
            raise ReportError(f"{source.directory} is a {run.task} in {run.unit}, "
                              f"{sources[0].directory} a {first.task} in {first.unit}")
        own, theirs = run.data["fingerprint"], first.data["fingerprint"]
        if own != theirs and not other_data:
            raise ReportError(
                f"{source.directory} is of data {own}, {sources[0].directory} of data {theirs}; "
                "their numbers cannot be compared. --other-data merges them all the same")
        if run.alpha != first.alpha:
            raise ReportError(f"{source.directory} has eval.alpha={run.alpha:g}, "
                              f"{sources[0].directory} {first.alpha:g}")


def _from_seeds(runs: Sequence[inputs.Run]) -> dict[str, int]:
    """By the key of a stage whose members all started from one M_O, the seed of that M_O."""
    return {s["key"]: int(s["from_seed"]) for run in runs for s in run.run["stages"]
            if "from_seed" in s}


def _results(sources: Sequence[MergedRun]) -> pd.DataFrame:
    """All rows, each once; the column `run` names the run of a row."""
    tables = []
    for source in sources:
        table = read_csv(source.directory, "results.csv", tuple(_IDENTITY) + ("value",))
        table["method"] = table.method.map(source.method)
        table["run"] = str(source.directory)
        tables.append(table)
    merged = pd.concat(tables, ignore_index=True).fillna("")
    # Runs differ in times, and in the M_Rs of other seeds that a model is compared with. The row of
    # the first run is kept; one over pairs only if that run has all seeds.
    own = (merged.metric.map(catalogue.timed_once) | merged.metric.map(catalogue.over_pairs)
           | (merged.method == "retrain") & merged.metric.map(catalogue.reference_apart))
    compared = merged[merged.duplicated(_IDENTITY, keep=False) & ~own]
    spread = compared.assign(value=compared.value.astype(float)).groupby(_IDENTITY).value
    differs = spread.transform(lambda v: float(not np.allclose(v, v.iloc[0], rtol=1e-6,
                                                               equal_nan=True))) == 1
    # A value of all seeds of a run together does not exist for several sets of seeds.
    whole = compared.metric.map(catalogue.has_no_seed).astype(bool)
    merged = merged.drop(index=compared.index[differs & whole])
    if (differs & ~whole).any():
        raise ReportError(_disagreement(compared, compared[differs & ~whole]))
    return across.of_whole_runs(merged).drop_duplicates(_IDENTITY)


def _disagreement(compared: pd.DataFrame, differing: pd.DataFrame) -> str:
    """The message. M_O, M_R and the median come first: labels cannot tell these apart."""
    shared = differing[differing.method.map(_is_shared)]
    key = (differing if shared.empty else shared).iloc[0][_IDENTITY]
    rows = compared[(compared[_IDENTITY] == key).all(axis=1)]
    cells = "; ".join(f"{r.run}: {r.value}" for r in rows.itertuples())
    what = ", ".join(f"{k}={v}" for k, v in key.items())
    text = f"two runs give different values for {what} ({cells}); "
    if shared.empty:
        return text + "tell them apart by labels: DIR=LABEL"
    return text + (f"all methods of a report are measured against one {key.method!r}, so the runs "
                   "must have trained and evaluated it alike; these did not")


def _write_table(sources: Sequence[MergedRun], out: Path, name: str, column: str,
                 identity: list[str]) -> None:
    """The rows of a table that some of the runs have; the first of equal rows is kept."""
    tables = []
    for source in sources:
        if (source.directory / name).exists():
            table = read_csv(source.directory, name, tuple(identity))
            table[column] = table[column].map(source.method)
            tables.append(table)
    if tables:
        whole = pd.concat(tables).drop_duplicates(identity)
        disk.write_file(out / name, safe_table(whole).to_csv(index=False))


def _write_predictions(sources: Sequence[MergedRun], out: Path) -> None:
    """One file for each name, with the seeds of all runs that have it."""
    (out / "predictions").mkdir()
    found: dict[str, list[Path]] = {}
    for source in sources:
        for path in sorted((source.directory / "predictions").glob("*.npz")):
            method, *_ = parse_prediction_name(path.name)
            checked(source.directory, f"predictions/{path.name}")
            name = source.method(method) + path.name.removeprefix(method)
            found.setdefault(name, []).append(path)
    for name, paths in found.items():
        if len(paths) == 1:
            shutil.copyfile(paths[0], out / "predictions" / name)
        else:
            arrays: dict[str, Any] = _joined(paths)
            disk.write_file(out / "predictions" / name, functools.partial(np.savez, **arrays))


def _joined(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    parts = []
    for path in paths:
        found = read_arrays(path, str(path))
        if missing := {"outputs", "labels", "ids", "seeds"} - set(found):
            raise ReportError(f"{path}: the array {sorted(missing)[0]!r} is missing")
        parts.append(found)
    first, seen = parts[0], set()
    outputs, seeds = [], []
    for path, part in zip(paths, parts):
        for key in ("labels", "ids"):
            if not np.array_equal(part[key], first[key]):
                raise ReportError(f"{path} and {paths[0]} are of different samples: their arrays "
                                  f"{key!r} differ")
        for m, seed in enumerate(part["seeds"].tolist()):
            if seed not in seen:
                seen.add(seed)
                seeds.append(seed)
                outputs.append(part["outputs"][m])
    # What is of the samples alone, such as `member`; of an array that runs differ in there is none.
    further = {key: value for key, value in first.items()
               if key not in ("outputs", "labels", "ids", "seeds")
               and all(key in part and np.array_equal(part[key], value) for part in parts)}
    return {"outputs": np.stack(outputs), "labels": first["labels"], "ids": first["ids"],
            "seeds": np.array(seeds), **further}


def _data(runs: Sequence[inputs.Run]) -> dict[str, Any]:
    sets = {name: entry for run in runs for name, entry in run.data["forget_sets"].items()}
    return {**runs[0].data, "forget_sets": sets}


def _command(sources: Sequence[MergedRun], out: Path, other_data: bool) -> str:
    names = [f"{s.directory}={s.label}" if s.label else str(s.directory) for s in sources]
    return shlex.join(["python", "-m", "unlearn_jax.report", *names, f"--out={out}",
                       *["--other-data"] * other_data])


def _agreed(sources: Sequence[MergedRun]) -> list[str]:
    """Which of `_DATA` are the same in all runs."""
    contents = {name: {path.read_bytes() if (path := s.directory / name).exists() else None
                       for s in sources} for name in _DATA}
    return [name for name, found in contents.items() if len(found) == 1 and None not in found]


def _left_out(directory: Path, agreed: Sequence[str]) -> list[str]:
    """A warning, if the run has files that cannot be merged."""
    names = (*_LEFT_OUT, *(name for name in _DATA if name not in agreed))
    found = [name for name in names if (directory / name).exists()]
    return [f"not merged, and to be found in {directory} alone: {', '.join(found)}"] * bool(found)


def _run(sources: Sequence[MergedRun], runs: Sequence[inputs.Run], command: str) -> dict[str, Any]:
    stages = {(s["stage"], s["key"]): s for run in runs for s in run.run["stages"]}
    merged = [{"directory": str(s.directory), "label": s.label, "command": r.run["command"],
               "config": r.run["config"], "data_fingerprint": r.data["fingerprint"]}
              for s, r in zip(sources, runs)]
    agreed = _agreed(sources)
    return {
        **runs[0].run, "config_name": " + ".join(dict.fromkeys(r.run["config_name"] for r in runs)),
        "command": command, "merged": merged,
        "seconds": sum(r.run.get("seconds", 0.0) for r in runs), "stages": list(stages.values()),
        "warnings": [*(warning for s in sources for warning in _left_out(s.directory, agreed)),
                     *_warnings({str(s.directory): r for s, r in zip(sources, runs)})]}


def _warnings(runs: dict[str, inputs.Run]) -> list[str]:
    """The warnings of runs, by directory: each once, with the runs that have it if not all do.

    An audit that one run refused for its few seeds is named, without the number of that run's
    seeds, because the merged models have more.
    """
    seeds = {seed for run in runs.values() for seed in run.seeds}
    found: dict[str, list[str]] = {}
    for directory, run in runs.items():
        for warning in run.run["warnings"]:
            few = _FEW_SEEDS.fullmatch(warning) if set(run.seeds) < seeds else None
            found.setdefault(_NOT_AGAIN.format(few[1]) if few else warning, []).append(directory)
    return [text if len(own) == len(runs) else f"{', '.join(dict.fromkeys(own))}: {text}"
            for text, own in found.items()]


def parse_source(text: str) -> MergedRun:
    """`DIR` or `DIR=LABEL`.

    Raises:
      ReportError: the label is no part of a method's name.
    """
    directory, equals, label = text.rpartition("=")
    if not equals or Path(text).is_dir():
        return MergedRun(Path(text))
    if not label or not all(c.isascii() and (c.isalnum() or c in "_-") for c in label):
        raise ReportError(f"{text!r}: the label {label!r} may hold letters, digits, _ and -")
    return MergedRun(Path(directory), label)


