"""Train, unlearn, measure, report:  python -m unlearn_jax.main --config=configs/ft.py

The work directory gets results.csv, predictions, report.md, report.html, figures and run.json;
the store keeps finished stages, which other runs share.
"""

import functools
import shlex
import sys
from pathlib import Path

import jax
import tqdm
from absl import app, flags
from ml_collections import config_flags

from unlearn_jax import commandline, stages
from unlearn_jax.config import check_config
from unlearn_jax.conv import convolutions
from unlearn_jax.cpu import divide_cores, keep_freed_memory
from unlearn_jax.errors import InputError
from unlearn_jax.store import Store, is_disk_full

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with a scale after a colon: configs/ft.py:utkface")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; default: runs/CONFIG")
_STORE = flags.DEFINE_string("store", "runs/store", "Where finished stages are kept")


def main(argv: list[str]) -> None:
    """Runs the study of the config."""
    del argv
    config = _CONFIG.value
    check_config(config)
    keep_freed_memory()
    divide_cores(config.parallel.cpu_devices)
    file, scale = commandline.config_name()
    name = Path(file).stem + (f":{scale}" if scale else "")
    directory = Path(_WORKDIR.value or f"runs/{name.replace(':', '-')}")
    store = Store(_STORE.value)
    store.create()
    if config.parallel.backend == "cpu":
        jax.config.update("jax_platforms", "cpu")  # all of jax: nothing goes over a GPU
    jax.config.update("jax_compilation_cache_dir", str((store.root / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    bar = functools.partial(tqdm.tqdm, mininterval=0.5 if sys.stderr.isatty() else 10, leave=False)
    command = shlex.join(["python", "-m", "unlearn_jax.main", *sys.argv[1:]])
    config_file = f"{file}:{scale}" if scale else file
    with convolutions(config.parallel.convolution):
        stages.run_study(config, name, directory, store, command, bar, config_file)
    print((directory / "report.md").read_text())


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=commandline.parse)
    except InputError as e:
        sys.exit(f"unlearn_jax: {e}")
    except OSError as e:
        if not is_disk_full(e):
            raise
        sys.exit(f"unlearn_jax: no room left on the disk ({e}).\nFree some space and run the same "
                 "command again; finished stages are kept.")
