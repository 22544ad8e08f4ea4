"""Sweeps through a real SLURM, of two nodes on this machine, against the same sweep without it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.slurm import parse_minutes
from unlearn_jax.errors import InputError

ROOT = Path(__file__).parent.parent
TINY = ["--config.data.size=150", "--config.data.image_size=8", "--config.model.width=2",
        "--config.model.name=resnet4", "--config.model.stem=small", "--config.train.epochs=60",
        "--config.train.batch_size=16", "--config.unlearn.batch_size=16", "--config.seeds=(0,1)",
        "--config.eval.batch_size=50", "--config.parallel.cpu_devices=1",
        "--config.train.checkpoint_seconds=0.5", "--config.unlearn.epochs=(1,)",
        "--config.unlearn.schedule=constant"]
SWEEP = ["--sweep=forget.sets=20-28,random:0.2", "--sweep=unlearn.learning_rate=1e-3,2e-3"]
ON_SLURM = ["--on=slurm", "--cpus=1", "--time=10", "--signal-seconds=60"]


@pytest.mark.parametrize("text, minutes", [
    ("90", 90), ("4:00:00", 240), ("1-00:00:00", 1440), ("2-12", 3600), ("0:0:30", 1), ("5:30", 6),
    ("1-2:30", 1590),
])
def test_time_limits_as_slurm_writes_them(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "0", "1:2:3:4"])
def test_what_is_no_time_limit(text):
    with pytest.raises(InputError, match="--time="):
        parse_minutes(text)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which SLURM's commands reach the cluster."""
    missing = [p for p in ("slurmctld", "slurmd", "munged") if not shutil.which(p)]
    if missing or os.geteuid():
        pytest.skip(f"no SLURM to try: {', '.join(missing)} not installed (apt-get install "
                    "slurm-wlm munge)" if missing else "only root can start a SLURM to try")
    directory = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "launch" / "local_slurm.sh")
    started = subprocess.run([script, "start", directory], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    yield {**environment, "SLURM_CONF": str(directory / "slurm.conf")}
    subprocess.run([script, "stop", directory], check=True)


def sweep(environment, workdir, store, *flags, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", "--config=configs/ft.py", *SWEEP, *TINY,
         f"--workdir={workdir}", f"--store={store}", *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def rows(workdir):
    """Of the sweep's table, without what a clock decides."""
    with open(workdir / "results.csv", newline="") as f:
        return sorted(tuple(r.values()) for r in csv.DictReader(f)
                      if not r["metric"].startswith("wall"))


@pytest.fixture(scope="module")
def reference(cluster, tmp_path_factory):
    """The table of the sweep without SLURM."""
    base = tmp_path_factory.mktemp("local")
    said = sweep(cluster, base / "sweep", base / "store")
    assert "4 points: 8 unlearned models in 2 runs, 1 processes" in said
    return rows(base / "sweep")


def test_slurm_gives_the_table_that_one_process_gives(cluster, reference, tmp_path):
    said = sweep(cluster, tmp_path / "sweep", tmp_path / "store", "--jobs=2", "--pack=2", *ON_SLURM)
    assert "submitted 2 jobs as 1 tasks" in said
    assert rows(tmp_path / "sweep") == reference


def slurm(environment, *line):
    return subprocess.run(line, env=environment, capture_output=True, text=True,
                          check=True).stdout.split()


def until(condition, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_preempted_and_killed_tasks_go_on_to_the_same_numbers(cluster, reference, tmp_path):
    workdir, store = tmp_path / "sweep", tmp_path / "store"
    sweep(cluster, workdir, store, "--jobs=2", "--no-wait", *ON_SLURM)
    first, second = sorted(slurm(cluster, "squeue", "-hr", "-o", "%i"))

    def saved():
        """Populations of which a checkpoint is there."""
        return len(list(store.glob("population/*/*/*/_CHECKPOINT_METADATA"))
                   or list(store.glob("population/*/*/[0-9]*")))

    until(lambda: saved() >= 2)
    # The one is told that its time is up, and the other dies with all its processes.
    slurm(cluster, "scancel", "--signal=USR2", first)
    for pid in _processes_of(second):
        os.kill(pid, signal.SIGKILL)

    def state(task):
        return slurm(cluster, "squeue", "-hr", "-j", task.partition("_")[0], "-t", "all",
                     "-o", "%i=%T")

    until(lambda: f"{first}=PENDING" in state(first))
    until(lambda: f"{second}=FAILED" in state(second))
    slurm(cluster, "scontrol", "requeue", second)
    for task in (first, second):
        until(lambda t=task: f"{t}=PENDING" in state(t))
        slurm(cluster, "scontrol", "update", f"JobId={task}", "StartTime=now")  # not in two minutes
    said = sweep(cluster, workdir, store, "--jobs=2", *ON_SLURM)
    assert "2 processes are in SLURM's queue from before" in said
    assert rows(workdir) == reference
    logs = [path.read_text() for path in sorted((workdir / "logs").glob("*.log"))]
    assert all(log.count("resumed after epoch") == 1 for log in logs), logs


def _processes_of(task):
    """The processes of an array task."""
    array, index = task.split("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}", "SLURM_STEP_ID=0"}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(path.read_text(errors="replace").split("\0")):
                found.append(int(path.parent.name))
        except OSError:
            continue
    assert found, task
    return found
