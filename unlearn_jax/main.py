"""Trains, unlearns, measures and reports:  python -m unlearn_jax.main --config=configs/ft.py

The work directory receives results.csv, predictions, report.md, report.html, figures and run.json.
The store keeps finished stages, which other runs share. `--config.KEY=VALUE` changes a key of the
config. `unlearn-jax list configs` and `unlearn-jax list keys` print the config files and the keys.
"""

from unlearn_jax.system import first_line

if __name__ == "__main__":  # the imports below take seconds
    first_line.announce("unlearn_jax")

import functools
import shlex
import sys
from pathlib import Path

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from unlearn_jax import commandline, stages
from unlearn_jax.config import check_config, completed
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.startup import run, use_devices, use_store
from unlearn_jax.storage.store import Store
from unlearn_jax.system import processes, slurm
from unlearn_jax.system.bars import work_bar

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A config file, or its name in configs/, with a scale after a colon: "
    "configs/ft.py:utkface, ft:utkface")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; default: runs/CONFIG, "
                               "or runs/CONFIG-METHOD where --config.unlearn.method is given")
_PRINT_REPORT = flags.DEFINE_bool(
    "print_report", False, "Also print the whole report, report.md")
_STORE = flags.DEFINE_string("store", "runs/store", "Where finished stages are kept")


def main(argv: list[str]) -> None:
    """Runs the config's study, in this process or together with others."""
    del argv
    config = completed(_CONFIG.value)
    check_config(config)
    place = slurm.place_of_flags()
    use_devices(config)
    with processes.joined(place, slurm.PATIENCE.value):
        _run(config)


def _run(config: ml_collections.ConfigDict) -> None:
    file, scale = commandline.config_name()
    config_file = f"{file}:{scale}" if scale else file
    name = Path(file).stem + (f":{scale}" if scale else "")
    directory = Path(_WORKDIR.value or f"runs/{commandline.run_name(config_file, _CONFIG.value)}")
    store = Store(_STORE.value)
    processes.require_same("what they were started with", {
        "config": config.to_dict(), "workdir": str(directory)}, slurm.hint())
    use_store(store)
    if not processes.is_first_process():
        logging.set_verbosity(logging.WARNING)  # the first process logs the rest
    command = shlex.join(["python", "-m", "unlearn_jax.main", *commandline.of_the_study(sys.argv)])
    with convolutions(config.parallel.convolution):
        found = stages.run_study(config, name, directory, store, command,
                                 work_bar() if processes.is_first_process() else None, config_file)
    if found:
        # Late, as in `write_report`.
        from unlearn_jax.report.sections import summary
        from unlearn_jax.report.tables.judgement import judge_all

        if _PRINT_REPORT.value:
            print((directory / "report.md").read_text())
        print("\n".join(summary.lines(found, judge_all(found), Path(_STORE.value))))


if __name__ == "__main__":
    run(functools.partial(app.run, main, flags_parser=commandline.parse))
