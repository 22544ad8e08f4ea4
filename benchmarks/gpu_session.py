"""All figures that need a GPU, in ten minutes:  python -m benchmarks.gpu_session --out figures

Runs `benchmarks.versus_torch` and `benchmarks.population` one after the other, each in a process of
its own: ResNet18 at 32 pixels and ResNet50 at 224, in bfloat16, with 1, 8 and 32 members, with a
CUDA graph for each call and with the graphs that XLA makes by itself. Each has a share of the time;
unused time goes to the next one, and a command that takes longer is ended. The most important ones
come first. Needs a GPU, jax for it (BUILD.md) and requirements-bench.txt. `--dry-run` only prints
the commands.

`--out` gets each command's table (NAME.txt), its figures (NAME.json), and `session.json` with the
outcome of each. Programs are compiled once (`--out`/compiled), including the choice of algorithms.
"""

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from unlearn_jax.errors import InputError

SECONDS = 590  # for all together: ten minutes, with time to end

_NETWORKS = {
    "resnet18": ("--network=resnet18", "--stem=small", "--width=64", "--image-size=32",
                 "--batch=64", "--steps=32", "--dtype=bfloat16", "--n=5"),
    "resnet50": ("--network=resnet50", "--stem=imagenet", "--width=64", "--image-size=224",
                 "--batch=32", "--steps=8", "--dtype=bfloat16", "--n=5"),
}
# The user's flags for XLA override the layout's own choice (`layout.py`): here XLA's default.
_XLAS_GRAPHS = "--xla_gpu_enable_command_buffer=+FUSION"


@dataclasses.dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
      name: name of its files.
      seconds: its share of the time.
      module: a module of `benchmarks`.
      flags: its flags.
      graphs: a CUDA graph for each call, else the graphs that XLA makes by itself.
    """

    name: str
    seconds: int
    module: str
    flags: tuple[str, ...]
    graphs: bool = True

    def command(self, out: Path) -> list[str]:
        """The command line, without the environment."""
        return [sys.executable, "-m", f"benchmarks.{self.module}", *self.flags,
                f"--json={out / self.name}.json"]

    def environment(self, out: Path) -> dict[str, str]:
        """The variables that the command sets in its environment."""
        told = {"JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        if not self.graphs:
            flags = f"{os.environ.get('XLA_FLAGS', '')} {_XLAS_GRAPHS}"
            told["XLA_FLAGS"] = flags.strip()
        return told


def plan() -> list[Run]:
    """The commands, in order."""
    def versus(network: str, seconds: int, *members: int, graphs: bool = True) -> Run:
        name = f"versus_torch-{network}-{'-'.join(map(str, members))}"
        return Run(name + ("" if graphs else "-xlas-graphs"), seconds, "versus_torch",
                   (*_NETWORKS[network], "--members", *map(str, members)), graphs)

    def population(network: str, seconds: int, *members: int) -> Run:
        return Run(f"population-{network}", seconds, "population",
                   (*_NETWORKS[network], "--impl", "ours", "ours-streamed", "vmap",
                    "--members", *map(str, members)))

    return [versus("resnet18", 110, 1, 8, 32), versus("resnet50", 130, 1, 8),
            versus("resnet18", 70, 1, 8, 32, graphs=False),
            versus("resnet50", 90, 1, 8, graphs=False),
            versus("resnet50", 80, 32), population("resnet18", 50, 1, 8, 32),
            population("resnet50", 60, 8)]


def main() -> None:
    """Runs the plan; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder, new or empty")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = parser.parse_args()
    out = args.out.absolute()
    if args.dry_run:
        for run in plan():
            told = " ".join(f"{k}={shlex.quote(v)}" for k, v in run.environment(out).items())
            print(f"# {run.name}: {run.seconds} s\n{told} {shlex.join(run.command(out))}")
        return
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out: {out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    _need_gpu()
    ended = run_all(plan(), out)
    (out / "session.json").write_text(json.dumps(ended, indent=1) + "\n")
    sys.exit(any(status != "ended" for status in ended.values()))


def run_all(runs: list[Run], out: Path, seconds: float = SECONDS) -> dict[str, str]:
    """Runs commands within their time.

    Args:
      runs: the commands, in this order.
      out: folder of their files.
      seconds: time of all together.

    Returns:
      By name: `ended`, `failed` or `out of time`.
    """
    began, due, ended = time.monotonic(), 0.0, {}
    for run in runs:
        due += run.seconds
        left = min(due, seconds) - (time.monotonic() - began)
        ended[run.name] = _run(run, out, left) if left > 0 else "out of time"
        print(f"{run.name}: {ended[run.name]} after {time.monotonic() - began:.0f} s", flush=True)
    return ended


def _run(run: Run, out: Path, seconds: float) -> str:
    with (out / f"{run.name}.txt").open("w") as log:
        try:
            code = subprocess.run(run.command(out), stdout=log, stderr=subprocess.STDOUT,
                                  env=os.environ | run.environment(out), timeout=seconds,
                                  check=False).returncode
        except subprocess.TimeoutExpired:
            return "out of time"
    print((out / f"{run.name}.txt").read_text(), flush=True)
    return "failed" if code else "ended"


def _need_gpu() -> None:
    """Looks for a GPU in a process of its own: jax in this one would keep the GPU's memory."""
    found = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"],
                           capture_output=True, text=True, check=False).stdout.strip()
    if found != "gpu":
        raise InputError(f"jax finds no GPU (its backend is {found or 'broken'}); BUILD.md says "
                         "how to install jax for one")


if __name__ == "__main__":
    main()
