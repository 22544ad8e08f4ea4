"""Writes the results of a sweep as one table, and a report for each family of runs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from launch.plan import Plan, Run, family
from unlearn_jax.report import write_report
from unlearn_jax.report.tables.files import read_csv, write_table
from unlearn_jax.report.tables.merge import MergedRun, merge_runs
from unlearn_jax.report.tables.stats import summarise
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.system.cells import rows_text, safe_table


def gather(plan: Plan) -> list[Path]:
    """Writes results.csv, summary.csv, points.csv and report/ of all finished runs.

    `results.csv` has the columns of a run's table. After them comes `point`, with the numbers of
    the points that a row of an unlearned model belongs to, and a column for each swept key that is
    not an axis of a population. Rows of M_O, M_R and the median belong to many points; their
    `point` is empty.

    Args:
      plan: plan of the sweep.

    Returns:
      The reports: one, or one for each family (see `launch.plan.family`). There are several
      families if the sweep changes the data or training of M_O, or the evaluation of M_R.

    Raises:
      ReportError: runs that should agree do not agree.
    """
    runs = [run for run in plan.runs if plan.finished(run)]
    for folder in (plan.directory, plan.directory / "logs"):
        disk.remove_stale(folder)
    manifest.remove(plan.directory)
    _write_points(plan, {run.name for run in runs})
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(family(run), []).append(run)
    reports, tables = [], []
    root = plan.directory / "report"
    shutil.rmtree(root, ignore_errors=True)
    for number, own in enumerate(families.values(), 1):
        out = root / f"{number}" if len(families) > 1 else root
        out.parent.mkdir(parents=True, exist_ok=True)
        sources = [MergedRun(plan.workdir(run), _label(run, own)) for run in own]
        merge_runs(sources, out)
        write_report(out)
        reports.append(out / "report.html")
        tables.append(_table(plan, own, sources, out))
    if tables:
        whole = pd.concat(tables, ignore_index=True)
        disk.write_file(plan.directory / "results.csv", safe_table(whole).to_csv(index=False))
        write_table(plan.directory / "summary.csv", _summary(whole, _keys(runs)))
        manifest.write(plan.directory, ("points.csv", "results.csv", "summary.csv"))
    return reports


def _label(run: Run, companions: Sequence[Run]) -> str:
    """The label of a run in its family, without parts that are the same in the whole family."""
    return run.label if len({r.label for r in companions}) > 1 else ""


def _keys(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.keys))


def _table(plan: Plan, runs: Sequence[Run], sources: Sequence[MergedRun],
           out: Path) -> pd.DataFrame:
    """A family's merged table with points and keys."""
    merged = read_csv(out, "results.csv", ())
    owners: dict[str, list[tuple[Run, dict[str, str]]]] = {}
    for run, source in zip(runs, sources):
        table = read_csv(source.directory, "results.csv", ())
        entries = json.loads((source.directory / "data.json").read_text())["forget_sets"]
        requests = {name: entry["request"] for name, entry in entries.items()}
        for method in table.method.unique():
            owners.setdefault(source.method(method), []).append((run, requests))
    by_number = {p.number: p for p in plan.points}

    def points(method: str, forget_set: str, epochs: str, seed: str) -> str:
        if method in ("median", "original", "retrain"):
            return ""
        found = set()
        for run, requests in owners[method]:
            for number in run.points:
                config = by_number[number].config
                # A comparison and the arms of a study choose their own budgets.
                chooses = config.compare.methods or config.thesis.arms
                if (requests.get(forget_set) in config.forget.sets
                        and (chooses or int(epochs) in config.unlearn.epochs)
                        and (int(seed) < 0 or int(seed) in config.seeds)):
                    found.add(number)
        return " ".join(map(str, sorted(found)))

    def value(key: str, method: str) -> str:
        own = {str(run.keys.get(key, "")) for run, _ in owners[method]}
        return own.pop() if len(own) == 1 else ""

    rows = merged[["method", "forget_set", "epochs", "seed"]].drop_duplicates()
    rows = rows.assign(point=[points(*row) for row in rows.itertuples(index=False)])
    merged = merged.merge(rows, how="left")
    for key in _keys(runs):
        merged[key] = merged.method.map({m: value(key, m) for m in merged.method.unique()})
    return merged


def _summary(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """summary.csv of a run, with a column for each swept key."""
    rows = rows.astype({"value": float, "seed": int, "epochs": int})
    if not keys:
        return summarise(rows)
    return pd.concat([summarise(part).assign(**dict(zip(keys, values)))
                      for values, part in rows.groupby(keys, sort=False)])


def _write_points(plan: Plan, finished: set[str]) -> None:
    """Writes points.csv: number, swept values, run, and state (finished or not)."""
    runs = {number: run for run in plan.runs for number in run.points}
    keys = list(dict.fromkeys(key for p in plan.points for key in p.values))
    rows: list[dict[str, Any]] = []
    for point in plan.points:
        own = [run for run in plan.runs if point.number in run.points]
        rows.append({"point": point.number, "config": point.file,
                     **{key: point.values.get(key, "") for key in keys},
                     "run": " ".join(r.name for r in own), "label": runs[point.number].label,
                     "finished": all(r.name in finished for r in own)})
    disk.write_file(plan.directory / "points.csv", rows_text(list(rows[0]), rows))
