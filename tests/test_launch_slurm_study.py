"""Studies on a real SLURM: one is told to leave, one is killed; both end as undisturbed ones."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import undrawn
from real_slurm import ROOT, ask, start_again, until
from test_stages import TINY, table

pytestmark = pytest.mark.slow

# Saved when the first epoch has ended, and of the many others when somebody asks.
STUDY = ["--config=configs/ft.py", *TINY, "--config.train.epochs=150", "--config.train.patience=0",
         "--config.train.checkpoint_seconds=0", "--config.unlearn.epochs=(1,)",
         "--config.parallel.backend=cpu"]


def sweep(base, *flags):
    return [sys.executable, "-m", "launch.sweep", *STUDY, "--sweep", "forget.sets=20-28",
            f"--workdir={base}/sweep", f"--store={base}/store", *flags]


def on_slurm(base):
    return subprocess.Popen(
        sweep(base, "--on=slurm", "--cpus=1", "--time=10", "--signal-seconds=60"), cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def in_training(base):
    """The process of the study, once it has something to go on from; it is stopped there."""
    until(lambda: list(base.glob("store/population/*/*/0*/metadata.json")))
    (process,) = (int(d.name) for d in Path("/proc").glob("[0-9]*") if is_study(d, base))
    os.kill(process, signal.SIGSTOP)
    return process


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


@pytest.fixture(scope="module", autouse=True)
def undrawn_processes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", undrawn.PATH)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    base = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(sweep(base), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not resumed(base), done.stdout + done.stderr
    return results(base)


def test_a_study_that_is_told_to_leave_ends_as_an_undisturbed_one(
        slurm_cluster, undisturbed, tmp_path):
    run = on_slurm(tmp_path)
    study = in_training(tmp_path)
    (task,) = json.loads((tmp_path / "sweep" / "slurm.json").read_text())["tasks"]
    ask("scancel", "--signal=USR2", task)  # as when its time is up
    until(lambda: told(study))
    os.kill(study, signal.SIGCONT)
    start_again(task)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0, said
    assert resumed(tmp_path) == {"original", "retrain"}
    assert results(tmp_path) == undisturbed


def test_a_study_that_is_killed_ends_as_an_undisturbed_one(slurm_cluster, undisturbed, tmp_path):
    run = on_slurm(tmp_path)
    os.kill(in_training(tmp_path), signal.SIGKILL)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 1 and "failed (exit code 137)" in said, said
    again = on_slurm(tmp_path)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert resumed(tmp_path) == {"original", "retrain"}
    assert results(tmp_path) == undisturbed
