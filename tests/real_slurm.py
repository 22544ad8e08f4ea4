"""A SLURM cluster of two nodes on this machine, for the tests of a module."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def running(directory):
    """Within it SLURM's commands reach a cluster kept in a directory; else the test is skipped."""
    missing = [p for p in ("slurmctld", "slurmd", "munged") if not shutil.which(p)]
    if missing or os.geteuid():
        pytest.skip(f"no SLURM to try: {', '.join(missing)} not installed (apt-get install "
                    "slurm-wlm munge)" if missing else "only root can start a SLURM to try")
    script = str(ROOT / "launch" / "local_slurm.sh")
    started = subprocess.run([script, "start", directory], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"SLURM is installed but does not start here: {started.stderr.strip()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
        try:
            yield
        finally:
            subprocess.run([script, "stop", directory], check=True)


def ask(*line):
    """The words in the output of a SLURM command."""
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()


def until(condition, seconds=240):
    """Waits until a condition is true; returns its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def start_again(task):
    """Waits until a task is back in the queue, and makes SLURM start it soon."""
    until(lambda: ask("squeue", "-hr", "-j", task, "-t", "all", "-o", "%T") == ["PENDING"])
    # SLURM would wait two minutes. A node refuses the task within the second in which it ended.
    ask("scontrol", "update", f"JobId={task}", "StartTime=now+2")
