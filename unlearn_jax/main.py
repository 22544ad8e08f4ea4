"""Train, unlearn, measure, report:  python -m unlearn_jax.main --config=configs/ft.py

The work directory gets results.csv, predictions, report.md, report.html, figures and run.json;
the store keeps finished stages, which other runs share.
"""

import functools
import shlex
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from unlearn_jax import commandline, stages
from unlearn_jax.config import check_config
from unlearn_jax.conv import convolutions
from unlearn_jax.startup import run, set_up, work_bar
from unlearn_jax.store import Store

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with a scale after a colon: configs/ft.py:utkface")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; default: runs/CONFIG")
_STORE = flags.DEFINE_string("store", "runs/store", "Where finished stages are kept")


def main(argv: list[str]) -> None:
    """Runs the study of the config."""
    del argv
    config = _CONFIG.value
    check_config(config)
    file, scale = commandline.config_name()
    name = Path(file).stem + (f":{scale}" if scale else "")
    directory = Path(_WORKDIR.value or f"runs/{name.replace(':', '-')}")
    store = Store(_STORE.value)
    set_up(config, store)
    command = shlex.join(["python", "-m", "unlearn_jax.main", *sys.argv[1:]])
    config_file = f"{file}:{scale}" if scale else file
    with convolutions(config.parallel.convolution):
        stages.run_study(config, name, directory, store, command, work_bar(),
                         config_file)
    print((directory / "report.md").read_text())


if __name__ == "__main__":
    run(functools.partial(app.run, main, flags_parser=commandline.parse))
