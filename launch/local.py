"""Runs a sweep on this machine: one process at a time on each device."""

import collections
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from launch import processes
from launch.gpus import visible_gpus
from unlearn_jax.errors import InputError

if TYPE_CHECKING:  # a SLURM task imports this module, and needs no JAX
    from launch.plan import Job, Plan

# The variable for JAX's share of a GPU's memory, and its former name.
_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def environments(backend: str, jobs: int, pack: int = 1) -> list[dict[str, str]]:
    """The environment of each place for a process.

    Args:
      backend: `config.parallel.backend`.
      jobs: number of jobs to run.
      pack: processes on a GPU, side by side.

    Returns:
      One place without GPUs, else `pack` places for each GPU; if there are fewer jobs than places,
      the GPUs are divided among the jobs.
    """
    gpus = [] if backend == "cpu" else visible_gpus()
    if not gpus:
        return [{}]
    pack = min(pack, jobs)  # a process that is alone on a GPU takes all of its memory
    places = min(len(gpus), -(-jobs // pack))
    share = memory_share(pack) if pack > 1 else {}
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i::places]), **share}
            for i in range(places) for _ in range(pack)]


def memory_share(pack: int) -> dict[str, str]:
    """Variables that give each process on a GPU its share: of 90 %, or of the share in our own.

    Raises:
      InputError: the share in the environment is not a number above 0 and at most 1.
    """
    given = [(name, os.environ[name]) for name in _MEMORY if os.environ.get(name)]
    name, text = given[0] if given else (_MEMORY[0], "0.9")
    try:
        whole = float(text)
    except ValueError:
        whole = math.nan
    if not 0 < whole <= 1:
        raise InputError(f"{name}={text} in the environment; allowed with --pack: a share of the "
                         "GPU's memory, above 0 and at most 1")
    # JAX refuses both names at once.
    return {_MEMORY[0]: f"{whole / pack:.3f}", _MEMORY[1]: ""}


def run_local(plan: "Plan", jobs: "Sequence[Job]", pack: int = 1,
              say: Callable[[str], None] = print) -> dict[str, int]:
    """Runs jobs, one at a time on each device; a job that fails does not stop the others.

    Args:
      plan: plan of the jobs.
      jobs: jobs to run.
      pack: processes on a GPU, side by side.
      say: takes progress lines.

    Returns:
      Exit codes, by job.

    Raises:
      KeyboardInterrupt: after Ctrl-C or SIGTERM, when all processes have ended. They are signalled
        to write a checkpoint first; a second Ctrl-C ends them at once.
    """
    waiting = collections.deque(jobs)
    free = environments(jobs[0].runs[0].config.parallel.backend, len(jobs), pack)
    running: dict[str, tuple[Job, subprocess.Popen, dict[str, str], float]] = {}
    codes: dict[str, int] = {}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and free:
                job, place = waiting.popleft(), free.pop(0)
                plan.exit_file(job).unlink(missing_ok=True)
                say(f"{job.name}: started ({len(codes) + len(running) + 1} of {len(jobs)}; "
                    f"{plan.log(job)})")
                running[job.name] = (job, processes.start(processes.command(plan, job),
                                                          plan.log(job), place),
                                     place, time.monotonic())
            for name, (job, process, place, began) in list(running.items()):
                code = processes.exit_code(process)
                if code is not None:
                    del running[name]
                    free.append(place)
                    codes[name] = code
                    processes.write_exit(plan.exit_file(job), code)
                    how = "finished" if code == 0 else f"failed (exit code {code})"
                    say(f"{name}: {how} after {time.monotonic() - began:.0f} s")
            time.sleep(0.1)
    except KeyboardInterrupt:
        _stop([process for _, process, _, _ in running.values()], say)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    return codes


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt


def _stop(running: list[subprocess.Popen], say: Callable[[str], None]) -> None:
    alive = [p for p in running if p.poll() is None]
    if not alive:
        return
    say("stopping: a checkpoint at the end of the epoch under way; Ctrl-C again to end at once")
    try:
        for process in alive:
            process.send_signal(signal.SIGTERM)
        for process in alive:
            process.wait()
    except KeyboardInterrupt:
        for process in alive:
            process.kill()
        for process in alive:
            process.wait()
