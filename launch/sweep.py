"""Many settings from one command:  python -m launch.sweep --config=FILE --sweep KEY=VALUES ...

Points that can share a population do; the rest becomes processes that share a store, on this
machine or on a SLURM cluster. launch/README.md has commands to copy; launch/points.py describes the
syntax of values.
"""

from unlearn_jax.system import first_line

if __name__ == "__main__":  # the imports below take seconds
    first_line.announce("launch.sweep")

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import processes
from launch.gather import gather
from launch.local import memory_share, run_local
from launch.plan import Plan, make_plan
from launch.points import grid, make_points, parse_axis, read_file
from unlearn_jax.commandline import read_config, run_name
from unlearn_jax.errors import InputError
from unlearn_jax.startup import run
from unlearn_jax.system.interrupt import CTRL_C


def main(arguments: Sequence[str]) -> int:
    """Runs a sweep. Exit code: 0 all points ran, 1 a point failed, 130 after Ctrl-C."""
    args, overrides = _parse(arguments)
    try:
        return _sweep(args, overrides)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on" + (
            " (what SLURM has, it keeps)" if args.on == "slurm" else ""))
        return CTRL_C


def _sweep(args: argparse.Namespace, overrides: list[str]) -> int:
    options = _slurm_options(args) if args.on == "slurm" else None  # refused before anything else
    if args.pack > 1:
        memory_share(args.pack)
    axes = [parse_axis(text) for text in args.sweep]
    wanted = [*(grid(axes) if axes else []),
              *(read_file(args.sweep_file) if args.sweep_file else [])]
    points = make_points(wanted, args.config, overrides)
    config = read_config([f"--config={args.config}", *overrides])
    directory = args.workdir or Path(f"runs/sweep-{run_name(args.config, config)}")
    plan = make_plan(points, overrides, directory, args.store, args.jobs)
    if plan.other_headlines:
        _say(f"points {', '.join(map(str, plan.other_headlines))}: the report's headline is of the "
             "first point's eval.alpha; results.csv has all of them")
    if args.dry_run:
        from launch.estimate import describe, use_devices_of  # imports JAX, which takes a while

        use_devices_of(plan)
        print(describe(plan, args.on, args.pack))
        return 0
    plan.write()
    queued = _in_queue(plan) if args.on == "slurm" else set()  # before files are read
    jobs = plan.unfinished()
    members = sum(r.members for r in plan.runs)
    _say(f"{len(points)} points: {members} unlearned models in {len(plan.runs)} "
         f"run{'s' * (len(plan.runs) != 1)}, "
         f"{len(plan.jobs)} process{'es' * (len(plan.jobs) != 1)}" + (
             f"; {len(plan.jobs) - len(jobs)} of them are finished"
             if len(jobs) < len(plan.jobs) else ""))
    codes: dict[str, int] = {}
    if jobs and args.on == "slurm":
        from launch import slurm

        lost = [job for job in jobs if job.name not in queued]
        if len(lost) < len(jobs):
            _say(f"{len(jobs) - len(lost)} processes are in SLURM's queue from before")
        if lost:
            slurm.submit(plan, lost, options, _say)
        if args.no_wait:
            _say("the same command without --no-wait waits for them and gathers the results")
            return 0
        codes = slurm.wait(plan, jobs, _say)
    elif jobs:
        codes = run_local(plan, jobs, args.pack, _say)
    return _finish(plan, codes)


def _in_queue(plan: Plan) -> set[str]:
    """Names of the jobs that an earlier command has submitted to SLURM and that have not ended."""
    from launch import slurm  # submitit takes a while to import

    return {name for names in slurm.in_queue(plan).values() for name in names}


def _finish(plan: Plan, codes: dict[str, int]) -> int:
    """Gathers the finished runs and prints the failures."""
    failed = plan.unfinished()
    if len(failed) < len(plan.jobs) or any(plan.finished(r) for r in plan.runs):
        for report in gather(plan):
            _say(f"report: {report}")
        _say(f"table: {plan.directory / 'results.csv'}")
    for job in failed:
        points = " ".join(str(n) for r in job.runs for n in r.points)
        _say(f"failed: {job.name} (points {points}), exit code {codes.get(job.name, '?')}; the "
             f"end of {plan.log(job)}:\n{processes.last_lines(plan.log(job))}")
    if failed:
        _say(f"{len(failed)} of {len(plan.jobs)} processes have not finished; the same command "
             "runs them again")
    return 1 if failed else 0


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of the sweep, and those of the config."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.sweep", allow_abbrev=False,
        description="Runs many settings of a study and brings their results together.",
        epilog="Every --config.KEY=VALUE of unlearn_jax.main is taken, for all points.")
    parser.add_argument("--config", required=True, metavar="FILE:SCALE",
                        help="config file, as for unlearn_jax.main")
    parser.add_argument("--sweep", action="append", default=[], metavar="KEY=VALUE,VALUE",
                        help="values of a key of the config; several --sweep make a grid")
    parser.add_argument("--sweep-file", type=Path, metavar="FILE.yaml",
                        help="settings as YAML, beside or in place of the grid")
    parser.add_argument("--workdir", type=Path, help="default: runs/sweep-CONFIG, or "
                        "runs/sweep-CONFIG-METHOD where --config.unlearn.method is given")
    parser.add_argument("--store", type=Path, default=Path("runs/store"),
                        help="where finished stages are kept (runs/store)")
    parser.add_argument("--on", choices=("local", "slurm"), default="local",
                        help="this machine (local), or jobs of a SLURM cluster")
    parser.add_argument("--dry-run", action="store_true",
                        help="print what would run and what it costs, and stop")
    parser.add_argument("--jobs", type=_at_least_one, default=1, metavar="N",
                        help="divide the sweep into at least N processes, where that is possible")
    parser.add_argument("--pack", type=_at_least_one, default=1, metavar="N",
                        help="run N processes side by side on a GPU, or N jobs in a SLURM task")
    slurm = parser.add_argument_group("SLURM, for each task of the array")
    for name, text in (("partition", None), ("account", None), ("qos", None),
                       ("gres", "such as gpu:1"), ("mem", "such as 32G"), ("constraint", None)):
        slurm.add_argument(f"--{name}", help=text)
    slurm.add_argument("--time", default="4:00:00",
                       help="limit: MINUTES, H:M:S or D-H:M:S (4:00:00)")
    slurm.add_argument("--cpus", type=_at_least_one, default=4, help="cores (4)")
    slurm.add_argument("--signal-seconds", type=_at_least_one, default=300, metavar="S",
                       help="write a checkpoint S seconds before the end (300); longer than an "
                       "epoch takes")
    slurm.add_argument("--parallel", type=_at_least_one, default=256, metavar="N",
                       help="at most N tasks run at the same time (256)")
    slurm.add_argument("--slurm-option", action="append", default=[], metavar="KEY[=VALUE]",
                       help="any other option of sbatch, such as exclusive or nice=10")
    slurm.add_argument("--no-wait", action="store_true",
                       help="submit the jobs and do not wait for them")
    args, rest = parser.parse_known_args(arguments)
    for flag in rest:
        if not flag.startswith("--config.") or "=" not in flag:
            raise InputError(f"{flag} is not understood; flags of the config look like "
                             "--config.train.epochs=3, and --help lists the others")
    return args, rest


# Options of sbatch that are set by flags of the sweep or by the way it runs.
_SET_BY_US = ("partition", "account", "qos", "gres", "mem", "constraint", "time", "cpus-per-task",
              "signal", "array", "output", "error", "open-mode", "job-name")


def _slurm_options(args: argparse.Namespace):
    from launch.slurm import Options, parse_minutes

    parameters = {name: getattr(args, name) for name in (
        "partition", "account", "qos", "gres", "mem", "constraint") if getattr(args, name)}
    more: dict[str, str | bool] = {}
    for option in args.slurm_option:
        key, equals, value = option.partition("=")
        if not re.fullmatch("[a-z][a-z-]*", key) or equals and not value:
            raise InputError(f"--slurm-option={option}: allowed: KEY or KEY=VALUE, where KEY is "
                             "sbatch's, without --")
        if key in _SET_BY_US or key in more:
            raise InputError(f"--slurm-option={option}: {key} is set already; --help lists the "
                             "flags for it")
        more[key] = value if equals else True
    parameters.update(cpus_per_task=args.cpus, array_parallelism=args.parallel,
                      **({"additional_parameters": more} if more else {}))
    return Options(parse_minutes(args.time), args.signal_seconds, pack=args.pack,
                   parameters=parameters)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
