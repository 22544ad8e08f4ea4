"""A study on a real SLURM is told to leave, goes on, is killed, and ends as an undisturbed one."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import undrawn
import warm
from real_slurm import ROOT, ask, start_again, until
from test_stages import TINY, table

from launch import slurm, sweep

pytestmark = [pytest.mark.slow,
              pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")]

# Saved when the first epoch has ended, and of the many others when a signal asks.
STUDY = ["--config=configs/ft.py", *TINY, "--config.train.epochs=150", "--config.train.patience=0",
         "--config.train.checkpoint_seconds=0", "--config.unlearn.epochs=(1,)",
         "--config.parallel.backend=cpu"]


def arguments(base, *flags):
    return [*STUDY, "--sweep", "forget.sets=20-28", f"--workdir={base}/sweep",
            f"--store={base}/store", *flags]


def in_training(base, after=0):
    """The process of the study, once it has saved a later epoch; it is stopped there."""
    process = until(lambda: the_study(base))
    until(lambda: saved_epoch(base) > after or not Path(f"/proc/{process}").exists())
    os.kill(process, signal.SIGSTOP)
    return process


def the_study(base):
    """The number of its process; None: it has not started."""
    for directory in Path("/proc").glob("[0-9]*"):
        if is_study(directory, base):
            return int(directory.name)


def saved_epoch(base):
    """The last epoch of which a checkpoint is whole; 0: there is none."""
    return max((int(file.parent.name)
                for file in base.glob("store/population/*/*/0*/metadata.json")), default=0)


def is_study(directory, base):
    try:
        words = (directory / "cmdline").read_text().split("\0")
    except OSError:  # it has ended meanwhile
        return False
    return words[1:3] == ["-m", "unlearn_jax.main"] and f"--store={base}/store" in words


def told(process):
    """Whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    (signals,) = (line.split()[1] for line in status if line.startswith("ShdPnd:"))
    return int(signals, 16) >> (signal.SIGUSR1 - 1) & 1


def results(base):
    rows = table(base / "sweep" / "results.csv")
    found = {(*(row[c] for c in ("method", "epochs", "seed", "metric")),): row["value"]
             for row in rows if not row["metric"].startswith(("wall_", "seconds"))}
    assert len(found) > 100
    return found


def resumed(base):
    (record,) = base.glob("sweep/runs/*/run.json")
    stages = json.loads(record.read_text())["stages"]
    return {s["stage"] for s in stages if s["status"] == "resumed"}


@pytest.fixture
def quick(slurm_cluster, monkeypatch):
    """Processes do not draw, and have the devices of a user; SLURM is asked often."""
    monkeypatch.setenv("PYTHONPATH", undrawn.PATH)
    monkeypatch.setenv("XLA_FLAGS", warm.ENV["XLA_FLAGS"])
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.2)


def test_a_study_that_is_told_to_leave_and_then_killed_ends_as_an_undisturbed_one(
        quick, tmp_path, capsys):
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    mine = arguments(disturbed, "--on=slurm", "--cpus=1", "--time=10", "--signal-seconds=60")
    subprocess.run([sys.executable, "-m", "launch.sweep", *mine, "--no-wait"], cwd=ROOT, check=True)
    study = in_training(disturbed)
    (task,) = json.loads((disturbed / "sweep" / "slurm.json").read_text())["tasks"]
    ask("scancel", "--signal=USR2", task)  # as when its time is up
    until(lambda: told(study))
    os.kill(study, signal.SIGCONT)
    start_again(task)
    left = saved_epoch(disturbed)

    os.kill(in_training(disturbed, after=left), signal.SIGKILL)
    assert sweep.main(mine) == 1
    assert "failed (exit code 137)" in capsys.readouterr().out

    assert sweep.main(mine) == 0
    (log,) = disturbed.glob("sweep/logs/*.log")
    first, second = map(int, re.findall(r"train: resumed after epoch (\d+)", log.read_text()))
    assert first == left < second
    assert resumed(disturbed) == {"original", "retrain"}

    done = warm.run([sys.executable, "-m", "unlearn_jax.main", *STUDY,
                     "--config.forget.sets=('20-28',)", f"--workdir={undisturbed}/sweep",
                     f"--store={undisturbed}/store"], shared=True, figures="none")
    assert done.returncode == 0 and "resumed" not in done.stderr, done.stderr
    assert results(disturbed) == results(undisturbed)
