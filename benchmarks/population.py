"""Images per second against the number of members:  python -m benchmarks.population

It compares our engine, with the images on the device and streamed from the host, with the same step
under a plain `jit(vmap(...))` and in a Python loop over members. All use the same network, batches
and optimiser.
"""

import argparse
import time

import jax
import numpy as np

from benchmarks import measure, workload
from benchmarks.workload import Workload
from unlearn_jax.data.resident import Streamed
from unlearn_jax.engine.layout import Layout


def main() -> None:
    """Prints the table; see `--help`."""
    args = arguments().parse_args()
    rows = []
    for members in args.members:
        work = workload.make_workload(args, members)
        runs, facts = {}, {}
        for impl in args.impl:
            began = time.perf_counter()
            compiled, runs[impl] = IMPLEMENTATIONS[impl](work)
            facts[impl] = {"start_s": time.perf_counter() - began,
                           "temp_mb": compiled.memory_analysis().temp_size_in_bytes / 1e6}
        seconds = measure.in_turns(runs, args.n, warmup=1)
        rows += [{"impl": impl, "members": members,
                  "images_per_s": measure.spread(work.images / seconds[impl]), **facts[impl]}
                 for impl in args.impl]
    measure.finish(args, rows)


def arguments() -> argparse.ArgumentParser:
    """The flags."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--impl", nargs="+", choices=IMPLEMENTATIONS, default=[*IMPLEMENTATIONS],
                        help="what to measure")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the arithmetic")
    return parser


def ours(work: Workload) -> workload.Steps:
    """The population engine as in the product."""
    return _engine(work, workload.layout_for(work.members))


def ours_together(work: Workload) -> workload.Steps:
    """The same with all members in one call of the program, on any backend."""
    return _engine(work, workload.layout_for(work.members, per_device=work.members))


def ours_streamed(work: Workload) -> workload.Steps:
    """The same with the images on the host, read ahead of the program."""
    data = Streamed(np.asarray(work.resident.images), np.zeros((0, 1, 1, 3), np.uint8),
                    work.resident.labels)
    return _engine(work, workload.layout_for(work.members), data)


def _engine(work: Workload, layout: Layout, data: Streamed | None = None) -> workload.Steps:
    run = workload.engine_run(work, layout, data)

    def epoch() -> None:
        run.train_epoch()
        jax.block_until_ready([group.carry for group in run.groups])

    return run.programs.step.compiled, epoch


IMPLEMENTATIONS = {"ours": ours, "ours-streamed": ours_streamed, "ours-together": ours_together,
                   "vmap": workload.plain_vmap, "loop": workload.plain_loop}

if __name__ == "__main__":
    main()
