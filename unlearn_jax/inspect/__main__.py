"""Shows the content of checkpoints:  python -m unlearn_jax.inspect PATH [--diff OTHER] [--json]

PATH is a checkpoint, a stage of the store that holds one, or any directory with checkpoints
below it; these are then listed. Arrays are read only for norms and differences.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearn_jax.errors import InputError
from unlearn_jax.inspect.text import json_of, text_of
from unlearn_jax.inspect.tree import describe, diff, find_checkpoint, open_checkpoint
from unlearn_jax.storage import metadata
from unlearn_jax.storage.store import StoreError
from unlearn_jax.system.arguments import Parser


def main(argv: list[str] | None = None) -> int:
    """Shows what is in a store or a checkpoint; returns the exit status.

    0: success; 1: a checkpoint or its stage is damaged; 2: the request cannot be met. With 1 and 2
    a line is on stderr, or beside the checkpoint in a list of several.
    """
    code = 0
    try:
        args = _parser().parse_args(argv)
        report = _report(args)
        print(json_of(report) if args.json else text_of(report, config=args.config))
        sys.stdout.flush()
        code = int(any("error" in c for c in report.get("checkpoints", ())))
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (metadata.DamagedError, StoreError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except (InputError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.inspect", "PATH [--diff OTHER] [--json] [--help]", __doc__)
    p.add_argument("path", type=Path, metavar="PATH", help="checkpoint, stage, or directory")
    p.add_argument("--diff", type=Path, metavar="OTHER",
                   help="distance of OTHER from PATH per layer; members are matched by seed")
    p.add_argument("--json", action="store_true", help="print JSON; NaN and infinite numbers "
                   "become strings")
    p.add_argument("--members", type=_indices, metavar="0,2", help="only these members, "
                   "counted from 0")
    p.add_argument("--depth", type=int, metavar="N", help="one row for all parameters "
                   "whose paths begin with the same N parts")
    p.add_argument("--sort", default="tree", help="order of the rows: tree (the default), "
                   "bytes or norm; with --diff: tree, distance or relative")
    p.add_argument("--no-norms", action="store_true",
                   help="print no norms, so that no array is read")
    p.add_argument("--config", action="store_true", help="print the whole config, too")
    return p


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,2") from None


def _report(args: argparse.Namespace) -> dict[str, Any]:
    sorts = ("tree", "bytes", "norm") if args.diff is None else ("tree", "distance", "relative")
    if args.sort not in sorts:
        raise InputError(f"--sort is {args.sort!r}; allowed here: {', '.join(sorts)}")
    if args.no_norms and (args.diff is not None or args.sort == "norm"):
        raise InputError("--no-norms reads no arrays; leave it out for norms and differences")
    if args.depth is not None and args.depth < 1:
        raise InputError(f"--depth is {args.depth}; allowed: at least 1")
    plain = args.diff is None and args.members is None and args.depth is None
    if plain and args.sort == "tree" and find_checkpoint(args.path) is None:
        return list_checkpoints(args.path)
    one = open_checkpoint(args.path)
    if args.diff is None:
        report = describe(one, args.members, args.depth, not args.no_norms)
    else:
        report = diff(one, open_checkpoint(args.diff), args.members, args.depth)
    if args.sort != "tree":
        report["rows"].sort(key=lambda row: _largest(row[args.sort]), reverse=True)
    return report


def list_checkpoints(root: Path) -> dict[str, Any]:
    """All checkpoints below a directory, from their metadata alone.

    Raises:
      InputError: there are none.
    """
    found = []
    for path in _walk(root):
        entry: dict[str, Any] = {"path": str(path.relative_to(root))}
        try:
            c = open_checkpoint(path)
            entry |= {"metadata": c.content["metadata"], "time": c.content["time"],
                      "bytes": c.bytes(), "parameters": c.parameters()}
        except InputError as e:
            entry["error"] = str(e)
        found.append(entry)
    if not found:
        raise InputError(f"no checkpoint in {root}; checkpoints are in the store, in "
                         "STAGE/KEY/checkpoint")
    return {"kind": "list", "path": str(root), "checkpoints": found}


def _walk(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(n for n in names if not n.startswith("."))
        if metadata.FILE in files or metadata.ARRAYS in names:
            names.clear()
            yield Path(directory)


def _largest(values: list[float] | int) -> float:
    values = values if isinstance(values, list) else [values]
    return max((math.inf if math.isnan(v) else v for v in values), default=0.0)


if __name__ == "__main__":
    # This command must not take the GPU away from a job that runs there.
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.exit(main())
