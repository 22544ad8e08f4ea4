"""Seconds until a population has taken its first step:  python -m benchmarks.startup

Each run is a process of its own: first with an empty compilation cache (`cold`), then with the
cache of the first run (`cached`). Time counts from the start of the process, imports included. All
`--members` go into one program, which is the hardest to compile; `--per-program 1` puts one member
into it, like the engine on a CPU. `count_flops_s` is the time to count a step's operations
afterwards; `cpu_s` is the time of all cores together, counting included.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import measure

# The program of a child process; its arguments are the cache directory and the workload's flags.
_CHILD = "from benchmarks.startup import first_step; first_step()"


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[8], network="resnet50", stem="imagenet", width=64,
                               image_size=64, batch=2, steps=1, n=1)
    parser.add_argument("--per-program", type=int, default=0, help="members; 0: all of them")
    args = parser.parse_args()
    rows = []
    for members in args.members:
        found: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
        for _ in range(args.n):
            with tempfile.TemporaryDirectory() as directory:
                for runs in found.values():
                    runs.append(_run(args, members, Path(directory)))
        rows += [{"impl": "ours", "members": members, "cache": cache,
                  **{name: measure.spread(np.array([run[name] for run in runs]))
                     for name in runs[0]}} for cache, runs in found.items()]
    measure.finish(args, rows)


def _run(args, members: int, cache: Path) -> dict[str, float]:
    workload = {"members": members, "network": args.network, "stem": args.stem,
                "width": args.width, "image-size": args.image_size, "batch": args.batch,
                "steps": args.steps, "per-program": args.per_program}
    flags = [text for name, value in workload.items() for text in (f"--{name}", str(value))]
    began, cpu = time.perf_counter(), _cpu_seconds_of_children()
    # There is one device, so all members are in its program. The last of equal flags counts.
    flags_of_xla = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1"
    one = {**os.environ, "XLA_FLAGS": flags_of_xla}
    done = subprocess.run([sys.executable, "-c", _CHILD, str(cache), *flags], check=True,
                          stdout=subprocess.PIPE, text=True, env=one)
    seconds, found = time.perf_counter() - began, json.loads(done.stdout)
    return {"first_step_s": seconds - found["count_flops_s"],
            "cpu_s": _cpu_seconds_of_children() - cpu, **found}


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_step() -> None:
    """Runs in the child: one step of all members; prints the times of compilers and counting."""
    cache = sys.argv.pop(1)
    parser = measure.arguments(__doc__)
    parser.add_argument("--per-program", type=int)
    args = parser.parse_args()
    import jax

    from benchmarks import workload
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    members = args.members[0]
    work = workload.make_workload(args, members)
    layout = workload.layout_for(members, per_device=args.per_program or members)
    run = workload.engine_run(work, layout)
    run.train_epoch()
    jax.block_until_ready([group.carry for group in run.groups])
    began = time.perf_counter()
    flops = run.programs.flops_of_a_step
    print(json.dumps({"compile_s": run.compile_seconds,
                      "step_compile_s": run.programs.step.compile_seconds,
                      "count_flops_s": time.perf_counter() - began, "step_flops": flops}))


if __name__ == "__main__":
    main()
