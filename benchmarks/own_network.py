"""An own network beside the same one of the package, and depthwise convolutions of many members.

    python -m benchmarks.own_network

Side by side, in turns: training steps of the package's ResNet18 and of a plain Flax ResNet18 in a
user's file (`own_resnet.py`), with all members; and of the networks in `--scaled` with one member
and with all. Images are counted for each member, so equal numbers mean that a member costs the same
among others as alone.
"""

import argparse
import copy
from pathlib import Path

import jax

from benchmarks import measure, workload

OWN = {"resnet18": "ResNet18", "resnet4": "ResNet4"}  # the same network, in own_resnet.py


def main() -> None:
    """Prints the table; see `--help`."""
    args = arguments().parse_args()
    file = Path(__file__).with_name("own_resnet.py")
    compared = [(args.network, args.network, args.members),
                ("the same, own", f"{file}:{OWN[args.network]}", args.members)]
    compared += [(name, name, members) for name in args.scaled for members in (1, args.members)]
    works, runs = {}, {}
    for title, name, members in compared:
        row = title, members
        works[row], runs[row] = _timed(args, name, members)
    seconds = measure.in_turns(runs, args.n, warmup=1)
    rates = {row: works[row].images / seconds[row] for row in runs}
    rows = []
    for title, members in runs:
        reference = rates[_reference(args, title)]
        rows.append({"network": title, "members": members,
                     "images_per_s": measure.spread(rates[title, members]),
                     "of_reference": measure.spread(rates[title, members] / reference)})
    measure.finish(args, rows)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = measure.arguments(__doc__, members=8, steps=2)
    parser.add_argument("--scaled", nargs="*", default=["convnext_tiny"],
                        help="networks that are measured with one member and with all")
    parser.add_argument("--scaled-stem", default="strided", help="their first layers")
    return parser


def _reference(args: argparse.Namespace, title: str) -> tuple[str, int]:
    """The row that another is divided by: the package's network, or a single member."""
    return (title, 1) if title in args.scaled else (args.network, args.members)


def _timed(args: argparse.Namespace, name: str, members: int):
    own = copy.copy(args)
    own.network = name
    if name in args.scaled:
        own.stem = args.scaled_stem
    work = workload.make_workload(own, members)
    run = workload.engine_run(work, workload.layout_for(members))

    def epoch() -> None:
        run.train_epoch()
        jax.block_until_ready([group.carry for group in run.groups])

    return work, epoch


if __name__ == "__main__":
    main()
