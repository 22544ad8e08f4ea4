"""Explains the models of a finished run:  python -m unlearn_jax.explain WORKDIR [--out=DIR]

The checkpoints come from the run's store. DIR gets explain.csv, channels.csv, explanations/*.npz,
figures/*.png, explain.md and explain.html, which show images of the data set. The work directory
is not changed.
"""

from unlearn_jax.system import first_line

if __name__ == "__main__":  # the imports below take seconds
    first_line.announce("unlearn_jax.explain")

import argparse
import functools
import os
import shlex
import sys
from pathlib import Path

from unlearn_jax import startup
from unlearn_jax.attribution.attribution import BASELINES
from unlearn_jax.config import check_config
from unlearn_jax.errors import InputError
from unlearn_jax.explain.finished import FinishedRun, read_finished
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.report.sections.explained import write_explained
from unlearn_jax.stages import workdir
from unlearn_jax.stages.explain import SETS, explain_stages
from unlearn_jax.stages.loading import prepare
from unlearn_jax.storage.store import Store
from unlearn_jax.system.arguments import Parser
from unlearn_jax.system.bars import work_bar


def main(argv: list[str]) -> int:
    """Explains a finished run. Exit status: 0 done, 2 refused, with the reason on stderr."""
    try:
        args = _parser().parse_args(argv)
        run = read_finished(args.workdir, args.store)
        _check(args, run)
        _configure(args, run)
        startup.set_up(run.config, Store(run.store))
        print(_explain(args, run, shlex.join(["python", "-m", "unlearn_jax.explain", *argv])))
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def _check(args: argparse.Namespace, run: FinishedRun) -> None:
    """Refuses requests for parts that the run does not have.

    Raises:
      InputError: names the flag, the value and what is allowed.
    """
    for flag, given, allowed in (("--sets", args.sets, SETS),
                                 ("--models", args.models or (), tuple(run.models))):
        for name in given:
            if name not in allowed:
                raise InputError(f"{flag} has {name!r}; allowed here: {', '.join(allowed)}")
        if len(set(given)) < len(given):
            raise InputError(f"{flag} is {','.join(given)}; allowed: each once")
    if args.samples < 1:
        raise InputError(f"--samples is {args.samples}; allowed: at least 1")
    if _out(args).resolve() == args.workdir.resolve():
        raise InputError(f"--out={args.out} is the work directory itself; give another")


def _configure(args: argparse.Namespace, run: FinishedRun) -> None:
    """Puts the command line's values into the run's config, and checks them."""
    with run.config.unlocked():
        run.config.eval.explain_samples = args.samples
        for name in ("steps", "baseline", "stage"):
            if getattr(args, name) is not None:
                run.config.eval[f"explain_{name}"] = getattr(args, name)
    run.config.lock()
    check_config(run.config)


def _explain(args: argparse.Namespace, run: FinishedRun, command: str) -> Path:
    """Explains the models and returns the page with the explanations."""
    config, out, store = run.config, _out(args), Store(run.store)
    with convolutions(config.parallel.convolution), \
            workdir.claim(out, config, run.config_name, command) as record:
        record.record_store(store.root)
        study = prepare(config, run.config_name, store, record, work_bar())
        stages = run.stages(study, args.models or tuple(run.models))
        explain_stages(study, stages, tuple(s for s in SETS if s in args.sets))
    return write_explained(args.workdir, out)


def _out(args: argparse.Namespace) -> Path:
    return args.out or args.workdir / "explain"


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.explain", "WORKDIR [--out=DIR] [--samples=N] "
               "[--sets=forget,retain] [--models=original,retrain,...]", __doc__)
    names = functools.partial(p.add_argument, type=_names, metavar="A,B")
    p.add_argument("workdir", type=Path, metavar="WORKDIR", help="work directory of a finished run")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: WORKDIR/explain")
    p.add_argument("--samples", type=int, default=32, metavar="N",
                   help="images of each set, or all it has if these are fewer (32)")
    names("--sets", default=SETS, help="forget: D_f; retain: training samples of D_r (both)")
    names("--models", help="methods or variants (thesis.arms) of the run; default: all that have "
          "models of their own")
    p.add_argument("--steps", type=int, metavar="N",
                   help="points on the path of integrated gradients")
    p.add_argument("--baseline", metavar="NAME", help="image at which this path begins: "
                   f"{', '.join(BASELINES)}")
    p.add_argument("--stage", type=int, metavar="N",
                   help="stage of the network that Grad-CAM reads; 0: the last")
    p.add_argument("--store", type=Path, metavar="DIR",
                   help="where the run's models are; default: where the run put them")
    return p


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(startup.run(functools.partial(main, sys.argv[1:])))
