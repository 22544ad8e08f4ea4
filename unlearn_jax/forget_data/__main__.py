"""Removes samples from a store:  python -m unlearn_jax.forget_data STORE --ids=FILE [--yes]

Removed are the image caches that hold the samples, the models that were trained with them (M_O, and
the M_Rs of other forget sets), the outputs of these models, and half-finished models. Kept are the
models that were trained without them, and the unlearned models that were to forget all of them.

Without --yes nothing is removed; the command says what it would do. It removes nothing while a run
uses the store. A second call finds nothing to remove. FILE lists one id a line, as for
--config.forget.sets=ids:FILE.

Exit status: 0: nothing is left to remove; 1: without --yes, something would be removed; 2: it
cannot be done.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unlearn_jax.data.asked import read_lines
from unlearn_jax.errors import InputError
from unlearn_jax.forget_data.plan import Deletion, carry_out, make_plan
from unlearn_jax.storage.traces import Trace
from unlearn_jax.system.arguments import Parser
from unlearn_jax.system.cells import plain
from unlearn_jax.system.disk import human_bytes


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    try:
        args = _parser().parse_args(argv)
        # A line that no data set knows, such as a comment, matches nothing.
        ids = list(dict.fromkeys(plain(line) for line in read_lines(
            args.ids, f"--ids={args.ids}")))
        plan = make_plan(args.store, ids)
        print("\n".join(_lines(plan)))
        if not plan.remove:
            print("Nothing is left to remove.")
            return 0
        if not args.yes:
            print("Nothing was removed: give --yes to do it.")
            return 1
        removed = carry_out(args.store, ids).remove
    except (InputError, PermissionError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"Removed all {len(removed)}.")
    return 0


def _lines(plan: Deletion) -> Iterator[str]:
    if plan.unknown:
        yield (f"Unknown in this store ({len(plan.unknown)}): "
               + ", ".join(map(repr, plan.unknown)))
    yield from _listed("To be removed", plan.remove)
    yield from _listed("Kept", plan.keep)
    yield "Not in reach of this command:"
    yield from (f"  data file {file}" for file in plan.files)
    yield from (f"  work directory {path}: its predictions and tables name samples"
                for path in plan.runs)
    yield "  exported models, copies of the store, backups, work directories elsewhere"
    if plan.files:
        yield ("As long as the data files are there, a run of the same config trains a model with "
               "them again.")


def _listed(title: str, traces: Sequence[Trace]) -> Iterator[str]:
    yield f"{title}: {len(traces)}"
    for trace in traces:
        yield f"  {trace.path} ({human_bytes(_size(trace.path))}): {trace.why}"


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.forget_data", "STORE --ids=FILE [--yes]", __doc__)
    p.add_argument("store", type=Path, metavar="STORE", help="the store, by default runs/store")
    p.add_argument("--ids", required=True, metavar="FILE", help="sample ids, one a line")
    p.add_argument("--yes", action="store_true", help="do it, instead of saying what would be done")
    return p


if __name__ == "__main__":
    sys.exit(main())
