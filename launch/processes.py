"""A job's process: its command, its environment, its log, its exit code, and how it is stopped."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from launch.children import begin
from launch.plan import Job, Plan
from unlearn_jax.system import disk

ROOT = Path(__file__).parent.parent
_LAST_LINES = 15


def command(plan: Plan, job: Job) -> list[str]:
    """What runs the job's runs: the program itself for one, `launch.job` for several."""
    if len(job.runs) == 1:
        return [sys.executable, "-m", *plan.command(job.runs[0])]
    return [sys.executable, "-m", "launch.job", str(plan.directory), job.name,
            *(r.name for r in job.runs)]


def start(line: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a job's process, in a session of its own: a Ctrl-C reaches it through us alone.

    Args:
      line: the command.
      log: its output is put behind what is there.
      environment: replaces variables of ours.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with open(log, "a") as f:
        f.write(f"$ {shlex.join(line)}\n")
        f.flush()
        # A warning that comes while Python starts must not end the process; whose parent is killed
        # is asked for a checkpoint, so that no run is left without anybody to wait for it.
        return begin(line, signal.SIGTERM, (signal.SIGUSR1, signal.SIGUSR2),
                     stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                     env={**_inherited(), "PYTHONPATH": path, **environment})


def _inherited() -> dict[str, str]:
    """Our environment, but for what would make studies out of several tasks of a SLURM step one."""
    return {k: v for k, v in os.environ.items() if k != "SLURM_STEP_NUM_TASKS"}


def exit_code(process: subprocess.Popen) -> int | None:
    """As a shell has it: 128 + n after signal n; None: it runs."""
    code = process.poll()
    return 128 - code if code is not None and code < 0 else code


def write_exit(path: Path, code: int) -> None:
    """Notes how a job ended; the file appears whole."""
    disk.write_file(path, f"{code}\n")


def wait_for_checkpoint(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    """Asks processes for a checkpoint and waits until they have left; those that do not, stay.

    Args:
      processes: running or not.
      seconds: at most.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(p.poll() is None for p in processes):
        # Again and again: one that is still starting ignores it.
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
