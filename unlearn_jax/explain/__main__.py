"""Explain the models of a finished run:  python -m unlearn_jax.explain WORKDIR [--out=DIR]

The checkpoints come from the run's store. OUT gets explain.csv, channels.csv, explanations/*.npz,
figures/*.png, explain.md and explain.html, which show images of the data set; the work directory
is left as it is.
"""

import argparse
import functools
import os
import shlex
import sys
from pathlib import Path

import jax

from unlearn_jax import workdir
from unlearn_jax.config import check_config
from unlearn_jax.conv import convolutions
from unlearn_jax.cpu import divide_cores, keep_freed_memory
from unlearn_jax.errors import InputError
from unlearn_jax.explain.attribution import BASELINES
from unlearn_jax.explain.finished import FinishedRun, read_finished
from unlearn_jax.report.explained import write_explained
from unlearn_jax.stages import prepare
from unlearn_jax.stages.explain import SETS, explain_stages
from unlearn_jax.store import Store


def main(argv: list[str]) -> int:
    """The command; returns its exit status: 0, or 2 after a line on stderr."""
    try:
        args = _parser().parse_args(argv)
        print(explain(args, shlex.join(["python", "-m", "unlearn_jax.explain", *argv])))
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def explain(args: argparse.Namespace, command: str) -> Path:
    """Explains the models of a run and returns the report's path.

    Args:
      args: of the command line.
      command: as typed, for the record.

    Raises:
      InputError: the run is not finished, or something asked for is not there.
    """
    for name in args.sets:
        _allow(name, SETS, "--sets")
    if len(set(args.sets)) < len(args.sets):
        raise InputError(f"--sets is {','.join(args.sets)}; allowed: each set once")
    run = read_finished(args.workdir, args.store)
    models = args.models or tuple(run.methods)
    for name in models:
        _allow(name, tuple(run.methods), "--models")
    out = args.out or args.workdir / "explain"
    if out.resolve() == args.workdir.resolve():
        raise InputError(f"--out={out} is the work directory itself; give another")
    config = run.config
    with config.unlocked():
        config.eval.explain_samples = args.samples
        for name in ("steps", "baseline", "stage"):
            if getattr(args, name) is not None:
                config.eval[f"explain_{name}"] = getattr(args, name)
    config.lock()
    check_config(config)
    if not args.samples:
        raise InputError("--samples is 0; allowed: at least 1")
    _explain(run, out, models, args.sets, command)
    return write_explained(args.workdir, out)


def _explain(run: FinishedRun, out: Path, models: tuple[str, ...], sets: tuple[str, ...],
             command: str) -> None:
    config = run.config
    store = Store(run.store)
    keep_freed_memory()
    divide_cores(config.parallel.cpu_devices)
    if config.parallel.backend == "cpu":
        jax.config.update("jax_platforms", "cpu")  # as in main.py
    jax.config.update("jax_compilation_cache_dir", str((store.root / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with convolutions(config.parallel.convolution), \
            workdir.claim(out, config, run.config_name, command) as record:
        record.record_store(store.root)
        study = prepare(config, run.config_name, store, record, None)
        stages = run.stages(study, models)
        explain_stages(study, stages, tuple(s for s in SETS if s in sets))


def _allow(name: str, allowed: tuple[str, ...], flag: str) -> None:
    if name not in allowed:
        raise InputError(f"{flag} has {name!r}; allowed here: {', '.join(allowed)}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}\nusage: python -m unlearn_jax.explain WORKDIR [--out=DIR] "
                         "[--samples=N] [--sets=forget,retain] [--models=original,retrain,...]")


def _parser() -> argparse.ArgumentParser:
    p = _Parser(prog="python -m unlearn_jax.explain", description=__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter)
    names = functools.partial(p.add_argument, type=_names, metavar="A,B")
    p.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a finished run")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: WORKDIR/explain")
    p.add_argument("--samples", type=int, default=32, metavar="N",
                   help="images of each set, or all it has if these are fewer (32)")
    names("--sets", default=SETS, help="forget: D_f; retain: training samples of D_r (both)")
    names("--models", help="methods of the run; default: all that have models of their own")
    p.add_argument("--steps", type=int, metavar="N",
                   help="points on the path of integrated gradients")
    p.add_argument("--baseline", metavar="NAME", help=f"{', '.join(BASELINES)}: its beginning")
    p.add_argument("--stage", type=int, metavar="N",
                   help="of the network, which Grad-CAM reads; 0: the last")
    p.add_argument("--store", type=Path, metavar="DIR",
                   help="where the run's models are; default: where the run put them")
    return p


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main(sys.argv[1:]))
