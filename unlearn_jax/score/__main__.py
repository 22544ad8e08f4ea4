"""Scores predictions of any framework:  python -m unlearn_jax.score DIR --out=DIR2

DIR holds files named METHOD.FORGETSET.BUDGET.SPLIT.npz with the arrays outputs [M, N] (or logits
[M, N, C]), labels [N], ids [N], seeds [M]; .npy and .csv are read too (docs/score.md). M_O is
called 'original', M_R 'retrain'. DIR may be a work directory, which is then scored with its own
settings. DIR2 becomes a work directory: results.csv, summary.csv, report.md, report.html, figures.
Nothing is trained, and no image is read.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from unlearn_jax.errors import InputError
from unlearn_jax.labels import find_number
from unlearn_jax.system import first_line
from unlearn_jax.system.arguments import Parser
from unlearn_jax.system.bars import work_bar

_TASKS = ("regression", "classification")


def main(argv: list[str] | None = None) -> int:
    """Scores predictions. Exit status: 0 done, 2 something cannot be scored."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        args = _parser().parse_args(arguments)
        _check_out(args.out)
        # These import JAX; a mistake in the arguments is reported before that.
        from unlearn_jax.report import write_report
        from unlearn_jax.report.sections import summary
        from unlearn_jax.report.tables.judgement import judge_all
        from unlearn_jax.score.folder import read_folder
        from unlearn_jax.score.records import write_scores

        own_run = (args.directory / "run.json").is_file()
        folder = args.directory / "predictions" if own_run else args.directory
        sets = read_folder(folder, args.task)
        settings = _run_settings(args) if own_run else _settings(args, sets)
        command = shlex.join(["python", "-m", "unlearn_jax.score", *map(str, arguments)])
        write_scores(sets, settings, args.directory, args.out, command)
        run = write_report(args.out, work_bar())
    except (InputError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    files = sum(len(found) for s in sets for found in s.models.values())
    print(f"scored {files} files of {sum(len(s.models) for s in sets)} models as "
          f"{settings.config.data.task}")
    print("\n".join(summary.lines(run, judge_all(run))))
    return 0


def _parser() -> argparse.ArgumentParser:
    p = Parser("unlearn_jax.score", "DIR --out=DIR2 [--task=...] [--help]", __doc__)
    p.add_argument("directory", type=Path, metavar="DIR", help="folder of predictions")
    p.add_argument("--out", type=Path, required=True, metavar="DIR2",
                   help="a new or empty folder, which becomes a work directory")
    p.add_argument("--task", choices=_TASKS, default="", help="default: classification where "
                   "outputs are [M, N, C], else regression")
    p.add_argument("--label-unit", default="", metavar="UNIT", help="unit of a regression's "
                   "labels; with years, α and tolerances are those for ages, else they follow "
                   "from the range of labels")
    p.add_argument("--classes", default="", metavar="A,B,...", help="names of the classes")
    p.add_argument("--alphas", type=_numbers, metavar="2,5,15",
                   help="values of α in Forgetting@α, label units")
    p.add_argument("--alpha", type=_number, metavar="15",
                   help="the value of --alphas that the first tables show")
    p.add_argument("--within", type=_numbers, metavar="5", help="regression: errors up "
                   "to this, in label units, count as right")
    p.add_argument("--audits", type=lambda text: tuple(text.split(",")), metavar="mia,lira",
                   help="default: mia,lira,challenge,distances")
    return p


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(","))


def _number(text: str) -> float:
    value = find_number(text.strip())
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; several look like 2,5,15")
    return value


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out={out} is not an empty folder\ngive a new or an empty folder")


def _evaluation(args: argparse.Namespace) -> dict[str, Any]:
    given = {key: getattr(args, key) for key in ("alphas", "alpha", "within", "audits")}
    return {key: value for key, value in given.items() if value is not None}


def _settings(args: argparse.Namespace, sets: list):
    """The settings for scoring a folder of a user's files."""
    from unlearn_jax.score.records import Settings, is_classification, make_config

    config = make_config(sets, args.label_unit, **_evaluation(args))
    names: tuple[str, ...] = ()
    if is_classification(sets):
        count = sets[0].any_model["test"].outputs.shape[2]
        names = tuple(args.classes.split(",")) if args.classes else tuple(map(str, range(count)))
        if len(names) != count or len(set(names)) != count:
            raise InputError(f"--classes has {len(names)} names, and there are {count} logits for "
                             f"each sample\nallowed: {count} different names")
    return Settings(config, args.directory.resolve().name, names)


def _run_settings(args: argparse.Namespace):
    """The settings for scoring the predictions of a work directory: those of its run."""
    from unlearn_jax.report.tables.inputs import read_run
    from unlearn_jax.score.records import Settings
    from unlearn_jax.stages.workdir import config_of

    if given := [f"--{k.replace('_', '-')}" for k in ("task", "label_unit", "classes")
                 if getattr(args, k)] + [f"--{k}" for k in _evaluation(args)]:
        raise InputError(f"{given[0]} is given, and {args.directory} is a work directory, whose "
                         f"run decides\nleave it out, or score {args.directory / 'predictions'}")
    run = read_run(args.directory)
    config = config_of(json.loads(json.dumps(run.run["config"])))
    return Settings(config, run.data["source"], tuple(run.data["class_names"]), run.data)


if __name__ == "__main__":
    # Arrays of this size need no GPU, and a job that runs there must not be disturbed.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    first_line.announce("unlearn_jax.score")
    sys.exit(main())
