"""Shared parts of the benchmarks: timing in turns, the machine, tables and JSON files."""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.stages import workdir
from unlearn_jax.system import disk
from unlearn_jax.system.cpu import divide_cores, keep_freed_memory


def in_turns(runs: dict[str, Callable[[], None]], n: int, warmup: int) -> dict[str, np.ndarray]:
    """Seconds `[n]` of each run.

    The runs take turns, so that a slow minute of the machine affects all of them equally.

    Args:
      runs: functions that return when their work is done, not when it is queued.
      n: number of counted rounds.
      warmup: number of rounds before them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warmup + n):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values[warmup:]) for name, values in seconds.items()}


def spread(values: np.ndarray) -> dict[str, float]:
    """Smallest, median and largest of `[n]` values."""
    return {"min": float(values.min()), "median": float(np.median(values)),
            "max": float(values.max())}


def arguments(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The common workload flags of the training benchmarks, with `--n` and `--json`.

    As in a run of the product, the C library is set to keep freed memory; this holds for PyTorch
    too.
    """
    keep_freed_memory()
    divide_cores()
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    workload = dict(members=[1, 2, 4, 8], network="resnet18", stem="small", width=16,
                    image_size=32, batch=64, steps=5, n=5) | defaults
    for name, value in workload.items():
        kind = type(value[0] if isinstance(value, list) else value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value,
                            nargs="+" if isinstance(value, list) else None, help="workload")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints rows as a Markdown table; a column missing in a row stays empty."""
    flat = [{key: _text(value) for key, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in flat:
        print("| " + " | ".join(row.get(column, "") for column in columns) + " |")


def finish(args: argparse.Namespace, rows: list[dict[str, Any]], packages: Sequence[str] = (),
           **more: Any) -> None:
    """Prints the rows as a Markdown table and, with `--json`, writes them with all context."""
    print_table(rows)
    versions = workdir.versions() | {name: importlib.metadata.version(name) for name in packages}
    print(f"{workdir.device()}; n={args.n}; median (smallest to largest); "
          + ", ".join(f"{name} {version}" for name, version in versions.items()
                      if name in ("python", "jax", "flax", *packages)))
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        content = {"device": workdir.device(), "versions": versions, "n": args.n,
                   "settings": settings, "rows": rows, **more}
        disk.write_file(args.json, json.dumps(content, indent=1) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['min']:.4g} to {value['max']:.4g})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
