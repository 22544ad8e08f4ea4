"""`python -m launch.distributed`: one study in two processes, a kill, one process afterwards."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import side_by_side
import undrawn
import warm
from test_stages import ROOT, TINY, run
from two_hosts import ADDRESSES, NAMES, name_hosts, on_host, two_hosts

from launch import distributed
from launch.distributed import divide_gpus, free_port

ENV = {**warm.ENV, "PYTHONPATH": undrawn.PATH}
FLAGS = ["--config=configs/retrain.py", *TINY]
EACH_EPOCH = "--config.train.checkpoint_seconds=0"


def launch(base, *more, processes=2):
    return [sys.executable, "-m", "launch.distributed", f"--processes={processes}", "--", *FLAGS,
            f"--workdir={base}/w", f"--store={base}/store", *more]


def outputs(workdir):
    return {p.name: np.load(p)["outputs"] for p in sorted((workdir / "predictions").iterdir())}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes, one of which is killed when there is something to go on from: (folder, exit
    code, what was said)."""
    base = tmp_path_factory.mktemp("two")
    run = subprocess.Popen(launch(base, EACH_EPOCH), cwd=ROOT, env=ENV,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 900
    while not list(base.glob("store/population/*/*/0*/metadata.json")):
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.kill(_child(run.pid, "--process_id=1"), signal.SIGKILL)
    _, said = run.communicate(timeout=900)
    return base, run.returncode, said


def _child(parent: int, argument: str) -> int:
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                if argument in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    return int(pid)
    raise AssertionError(f"{parent} has no child with {argument}")


@pytest.mark.slow
def test_the_death_of_one_ends_the_others(killed):
    _, code, said = killed
    assert code == 128 + signal.SIGKILL, said[-3000:]
    assert "process 1 ended with exit code 137" in said
    assert "\n[0] " in said and "train: 4 members" in said


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as spaces:
        yield spaces


@pytest.fixture(scope="module")
def hosts_if_any(request):
    """The two hosts; None where no two can be made."""
    try:
        return request.getfixturevalue("hosts")
    except pytest.skip.Exception:
        return None


def run_on(hosts, base, *more):
    """Exit codes, stdouts and stderrs of a study on two hosts, whose data must cross a network."""
    both = []
    for i in (0, 1):
        line = [sys.executable, "-m", "launch.distributed", "--processes=2", f"--process-id={i}",
                f"--coordinator={ADDRESSES[0]}:9876", "--", *FLAGS, f"--workdir={base}/w",
                f"--store={base}/store", "--config.parallel.backend=cpu", *more]
        both.append(subprocess.Popen(on_host(hosts, i, line), cwd=ROOT, env=ENV, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    printed, said = zip(*(one.communicate(timeout=300) for one in both))
    return [one.returncode for one in both], printed, said


@pytest.mark.slow
def test_two_hosts_go_on_and_one_process_restores_what_they_made(killed, hosts_if_any):
    base, _, _ = killed
    if hosts_if_any:
        codes, printed, said = run_on(hosts_if_any, base, EACH_EPOCH)
    else:  # two processes on one host
        done = subprocess.run(launch(base, EACH_EPOCH), cwd=ROOT, env=ENV, capture_output=True,
                              text=True, timeout=900)
        codes, printed, said = [done.returncode], [done.stdout], [done.stderr]
    assert not any(codes), said
    assert "Report: " in printed[0] and "Report: " not in "".join((*printed[1:], *said))
    record = json.loads((base / "w" / "run.json").read_text())
    assert record["processes"] == 2 and record["finished"]
    assert "process_id" not in record["command"]
    trained = {s["stage"]: s["status"] for s in record["stages"]}
    assert trained["original"] == trained["retrain"] == "resumed"
    assert not list(base.glob("store/population/*/*"))
    two = outputs(base / "w")
    shutil.rmtree(base / "store" / "predictions")
    alone = run("retrain.py", base / "one", base / "store", budgets="(0,)")
    assert alone.returncode == 0, alone.stderr[-3000:]
    record = json.loads((base / "one" / "run.json").read_text())
    assert {s["status"] for s in record["stages"] if s["stage"] in ("original", "retrain")} == {
        "reused"}
    one = outputs(base / "one")
    assert one.keys() == two.keys() and len(one) == 8
    for name, x in one.items():
        np.testing.assert_allclose(two[name], x, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("flags, words", [
    (["--processes=0"], "--processes is 0"),
    (["--processes=2", "--process-id=1"], "go together"),
    (["--processes=2", "--coordinator=a:1"], "go together"),
    (["--processes=2", "--coordinator=a:1", "--process-id=2"], "from 0 to 1"),
])
def test_mistakes_are_named(flags, words):
    done = subprocess.run([sys.executable, "-m", "launch.distributed", *flags], cwd=ROOT, env=ENV,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr


def test_processes_start_where_the_system_lacks_newer_tools(tmp_path):
    code = ("import os, sys\nfrom launch.distributed import _run_all\n"
            "command = [sys.executable, '-c', 'raise SystemExit(3)']\n"
            "sys.exit(_run_all([command], [(os.sched_getaffinity(0), {})]))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT,
                          env={**ENV, "PATH": str(tmp_path)}, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 3, done.stderr


def test_the_launcher_prints_what_the_first_prints_and_numbers_the_rest():
    code = ("import os, sys\nfrom launch.distributed import _run_all\n"
            "command = ['/bin/sh', '-c', 'echo printed; echo said >&2']\n"
            "sys.exit(_run_all([command] * 2, [(os.sched_getaffinity(0), {})] * 2))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "printed\n")
    assert sorted(done.stderr.splitlines()) == ["[0] said", "[1] printed", "[1] said"]


def test_gpus_are_divided():
    assert divide_gpus(["0", "1", "2", "3"], 2) == [("0", "1"), ("2", "3")]
    for gpus in ([], ["0"], ["0", "1", "2"]):
        with pytest.raises(ValueError, match=f"2 processes cannot share {len(gpus)} GPUs"):
            divide_gpus(gpus, 2)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("visible, flags, given", [
    ("0,1", [], [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
    ("-1", [], [{}, {}]), (" ", [], [{}, {}]),
    ("0", ["--config.parallel.backend=cpu"], [{}, {}]),
    ("0", ["--config.data.flip", "--config.parallel.backend", "cpu", "--workdir=w"], [{}, {}]),
    ("0", None, [{}, {}]),
])
def test_what_each_process_is_given_of_the_gpus(monkeypatch, tmp_path, visible, flags, given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    config = "configs/ft.py"
    if flags is None:  # the file says it
        config, flags = tmp_path / "own.py", []
        config.write_text("from configs.ft import get_config as own\n"
                          "def get_config(scale=''):\n    config = own(scale)\n"
                          "    config.parallel.backend = 'cpu'\n    return config\n")
    options = distributed._parse(["--processes=2", "--", f"--config={config}", *flags])
    assert [env for _, env in distributed._shares(options)] == given


@pytest.mark.slow
def test_runs_that_srun_has_brought_together_are_told_apart(tmp_path):
    port = str(free_port() - 61440 & 4095)  # SLURM's number of the job decides on the port
    steps = tuple({
        "SLURM_JOB_ID": port, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": i, "SLURM_LOCALID": i, "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"} for i in "01")
    codes, said = side_by_side.run(
        *(["-m", "unlearn_jax.main", *FLAGS, f"--workdir={tmp_path}/{i}",
           f"--store={tmp_path}/store"] for i in (0, 1)), environments=steps)
    for code, text in zip(codes, said):
        assert code == 1 and "workdir: " in text, text
        assert "--coordinator=none makes each a study of its own" in text
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_host_that_does_not_know_its_own_address_is_told(hosts, tmp_path):
    name_hosts(hosts, (ADDRESSES[0], "127.0.1.1"))
    try:
        codes, _, said = run_on(hosts, tmp_path)
    finally:
        name_hosts(hosts, ADDRESSES)
    assert codes == [1, 1] and not (tmp_path / "store").exists()
    for text in said:
        assert f"the host {NAMES[1]} has the address 127.0.1.1 for itself" in text
