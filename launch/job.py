"""One job of a sweep as a process: `python -m launch.job SWEEP NUMBER`; `launch.sweep` starts it.

A job with one run uses `python -m unlearn_jax.main`; this is for several runs with the same M_O and
M_Rs.
"""

import json
import shlex
import sys
from pathlib import Path

from absl import logging

from launch.plan import PLAN
from unlearn_jax import stages
from unlearn_jax.commandline import read_config
from unlearn_jax.config import check_config, completed
from unlearn_jax.errors import InputError
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.startup import run, set_up
from unlearn_jax.storage.store import Store
from unlearn_jax.system.bars import work_bar


def main(arguments: list[str]) -> None:
    """Runs the unfinished runs of a job."""
    if len(arguments) < 3:
        raise InputError("usage: python -m launch.job SWEEP JOB RUN...; launch.sweep starts it")
    directory, name, wanted = Path(arguments[0]), arguments[1], arguments[2:]
    plan = json.loads((directory / PLAN).read_text())
    (job,) = (j for j in plan["jobs"] if j["name"] == name)
    requests = [_request(r["command"]) for r in job["runs"] if r["name"] in wanted]
    store, config = Store(plan["store"]), requests[0].config
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    set_up(config, store)
    with convolutions(config.parallel.convolution):
        stages.run_studies(requests, store, work_bar())


def _request(command: str) -> stages.Request:
    """The request that `python -m unlearn_jax.main FLAGS` would run."""
    flags = shlex.split(command)[3:]
    given = [f for f in flags if f.startswith("--config")]
    (workdir,) = (f.removeprefix("--workdir=") for f in flags if f.startswith("--workdir="))
    config = completed(read_config(given))
    check_config(config)
    file, colon, scale = given[0].removeprefix("--config=").partition(":")
    return stages.Request(config, f"{Path(file).stem}{colon}{scale}", Path(workdir), command)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
