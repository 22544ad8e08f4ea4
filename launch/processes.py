"""A job's process: its command, environment, log and exit code, and how it is stopped."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.children import begin
from unlearn_jax.system import disk

if TYPE_CHECKING:  # a SLURM task imports this module, and needs no JAX
    from launch.plan import Job, Plan

ROOT = Path(__file__).parent.parent
_LAST_LINES = 15


def command(plan: "Plan", job: "Job") -> list[str]:
    """The command for the job's runs: the program itself for one, `launch.job` for several."""
    if len(job.runs) == 1:
        return [sys.executable, "-m", *plan.command(job.runs[0])]
    return [sys.executable, "-m", "launch.job", str(plan.directory), job.name,
            *(r.name for r in job.runs)]


def start(line: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a job's process in a session of its own: only this process passes Ctrl-C on to it.

    Args:
      line: the command.
      log: its output is appended to this file.
      environment: replaces variables of this process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with open(log, "a") as f:
        f.write(f"$ {shlex.join(line)}\n")
        f.flush()
        # A warning signal during Python's start must not end the process. If its parent is killed,
        # it is signalled to write a checkpoint, so that no run goes on without a parent.
        return begin(line, signal.SIGTERM, (signal.SIGUSR1, signal.SIGUSR2),
                     stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                     env={**_inherited(), "PYTHONPATH": path, **environment})


def _inherited() -> dict[str, str]:
    """This environment without variables that would join tasks of a SLURM step into one study."""
    return {k: v for k, v in os.environ.items() if k != "SLURM_STEP_NUM_TASKS"}


def exit_code(process: subprocess.Popen) -> int | None:
    """The exit code as in a shell: 128 + n after signal n; None: the process is running."""
    code = process.poll()
    return 128 - code if code is not None and code < 0 else code


def write_exit(path: Path, code: int) -> None:
    """Writes a job's exit code; the file appears whole."""
    disk.write_file(path, f"{code}\n")


def wait_for_checkpoint(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    """Signals processes to write a checkpoint and waits for their end; some may still run after it.

    Args:
      processes: processes, running or not.
      seconds: longest wait.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(p.poll() is None for p in processes):
        # The signal is repeated: a process that is still starting ignores it.
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)


def last_lines(log: Path) -> str:
    """The end of a log, without progress bars."""
    try:
        lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    except OSError as e:
        return f"(no log: {e.strerror})"
    kept = [line for line in lines if line.strip() and "img/s]" not in line]
    return "\n".join(f"    {line}" for line in kept[-_LAST_LINES:])
