"""A sweep as one population, on SLURM, and point by point:  python -m benchmarks.sweep

The same points run in three ways, each from an empty store: `launch.sweep` locally, `launch.sweep`
on this machine's SLURM (`launch/local_slurm.sh` starts one), and `unlearn_jax.main` once for each
point, as in a shell loop. The runs of the third way share a store, so no M_O and no M_R is trained
twice, and are merged at the end. The tables are compared cell by cell.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import measure

WAYS = ("population", "slurm", "singly")
CELL = ["method", "forget_set", "epochs", "seed", "metric"]
_ROOT = Path(__file__).parent.parent


def main() -> None:
    """Prints the table; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", default="configs/ft.py", help="of all points")
    parser.add_argument("--epochs", nargs="+", default=["1", "2", "3", "4"], help="budgets")
    parser.add_argument("--sets", nargs="+", help="forget sets",
                        default=["20-28", "28-36", "36-44", "44-52", "52-60"])
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["population", "singly"])
    parser.add_argument("--slurm", nargs="*", default=["jobs=5", "cpus=2"], metavar="FLAG=VALUE",
                        help="flags of launch.sweep on SLURM, without their dashes")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE",
                        help="keys of the config, such as data.size=300")
    parser.add_argument("--n", type=int, default=1, help="rounds, each from empty stores")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rounds = []
    for _ in range(args.n):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(_round(args, Path(folder)))
    measure.finish(args, [_row(way, rounds, args) for way in args.ways])


def _round(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds of each way, and the comparison of its table with the first one."""
    found: dict[str, dict[str, Any]] = {}
    first = None
    for way in args.ways:
        began = time.perf_counter()
        results = (_singly if way == "singly" else _sweep)(args, way, folder / way)
        seconds = time.perf_counter() - began
        table = cells(results)
        first = table if first is None else first
        found[way] = {"seconds": seconds, **compare(first, table)}
        print(f"{way}: {found[way]}", file=sys.stderr, flush=True)
    return found


def _sweep(args: argparse.Namespace, way: str, folder: Path) -> Path:
    where = ["--on=slurm", *(f"--{flag}" for flag in args.slurm)] if way == "slurm" else []
    _run(folder, "launch.sweep", f"--config={args.config}", *_overrides(args),
         f"--store={folder}/store", f"--workdir={folder}/sweep",
         *(f"--sweep={key}={','.join(values)}" for key, values in (
             ("unlearn.epochs", args.epochs), ("forget.sets", args.sets), ("seeds", args.seeds))),
         *where)
    return folder / "sweep" / "results.csv"


def _singly(args: argparse.Namespace, way: str, folder: Path) -> Path:
    runs = []
    for epochs, name, seed in itertools.product(args.epochs, args.sets, args.seeds):
        runs.append(folder / f"{epochs}-{len(runs)}")
        _run(folder, "unlearn_jax.main", f"--config={args.config}", *_overrides(args),
             f"--store={folder}/store", f"--workdir={runs[-1]}",
             f"--config.unlearn.epochs=({epochs},)", f"--config.forget.sets=({name!r},)",
             f"--config.seeds=({seed},)")
    _run(folder, "unlearn_jax.report", *map(str, runs), f"--out={folder}/merged")
    return folder / "merged" / "results.csv"


def _overrides(args: argparse.Namespace) -> list[str]:
    return [f"--config.{pair}" for pair in args.set]


def _run(folder: Path, module: str, *flags: str) -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / "log", "a") as log:
        done = subprocess.run([sys.executable, "-m", module, *flags], cwd=_ROOT, stdout=log,
                              stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{module} ended with exit code {done.returncode}:\n"
                 + "\n".join((folder / "log").read_text().splitlines()[-20:]))


def cells(path: Path) -> pd.Series:
    """Values by method, forget set, budget, seed and metric; without times, and without values of
    the average over seeds, which a single seed does not have."""
    table = pd.read_csv(path, dtype={"seed": str}, keep_default_na=False, na_values={"value": ""})
    told = table.metric.str.startswith(("wall_", "averaged:"))
    return table[~told].drop_duplicates(CELL).set_index(CELL)["value"]


def compare(first: pd.Series, other: pd.Series) -> dict[str, Any]:
    """The numbers of cells in both tables and in only one, and the largest difference.

    The difference is relative to the larger of 1 and the value; for two nan it is zero.
    """
    both = first.index.intersection(other.index)
    a, b = first[both].to_numpy(float), other[both].to_numpy(float)
    apart = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b) / np.fmax(1.0, np.abs(a)))
    return {"cells": len(both), "only_one": len(first) + len(other) - 2 * len(both),
            "difference": float(apart.max(initial=0.0))}


def _row(way: str, rounds: list[dict[str, dict[str, Any]]],
         args: argparse.Namespace) -> dict[str, Any]:
    every = [r[way] for r in rounds]
    return {"way": way, "points": len(args.epochs) * len(args.sets) * len(args.seeds),
            "seconds": measure.spread(np.array([r["seconds"] for r in every])),
            "cells": every[0]["cells"], "only in one": max(r["only_one"] for r in every),
            "largest difference": max(r["difference"] for r in every)}


if __name__ == "__main__":
    main()
