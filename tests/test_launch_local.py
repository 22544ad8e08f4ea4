"""Processes of a sweep on this machine; small stand-ins take the place of the studies."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from jaxlib import xla_client

from launch import local, processes
from launch.local import environments, run_local
from launch.plan import make_plan
from launch.points import make_points
from launch.sweep import main
from unlearn_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def plan(tmp_path):
    """Three processes."""
    points = make_points([{"model.width": width} for width in (2, 4, 8)], "configs/ft.py", ())
    made = make_plan(points, (), tmp_path / "sweep", tmp_path / "store")
    made.write()
    return made


def stand_in(monkeypatch, code):
    """The code of the process of each job, in place of a study."""
    monkeypatch.setattr(processes, "command",
                        lambda plan, job: [sys.executable, "-c", code.get(job.name[:3], "")])


def test_one_that_fails_does_not_stop_the_others(monkeypatch, plan):
    stand_in(monkeypatch, {"001": "print('fine')", "002": "raise SystemExit('no such file')",
                           "003": "import os; os.kill(os.getpid(), 9)"})
    said = []
    codes = run_local(plan, plan.jobs, say=said.append)
    assert [codes[job.name] for job in plan.jobs] == [0, 1, 137]
    assert [plan.exit_file(job).read_text() for job in plan.jobs] == ["0\n", "1\n", "137\n"]
    assert "no such file" in processes.last_lines(plan.log(plan.jobs[1]))
    assert [line.partition(":")[2] for line in said if "failed" in line and "002" in line] \
        == [" failed (exit code 1) after 0 s"]


def test_one_process_at_a_time_without_a_gpu(monkeypatch, plan, tmp_path):
    alone = (f"import os, time; f = os.open({str(tmp_path / 'lock')!r}, os.O_CREAT | os.O_EXCL); "
             f"time.sleep(.2); os.remove({str(tmp_path / 'lock')!r})")
    stand_in(monkeypatch, dict.fromkeys(("001", "002", "003"), alone))
    monkeypatch.setattr(local, "visible_gpus", lambda: [])
    assert set(run_local(plan, plan.jobs, say=lambda text: None).values()) == {0}


def test_gpus_are_divided_among_the_processes(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5,7")

    def gpus(jobs, pack=1):
        return [e["CUDA_VISIBLE_DEVICES"] for e in environments("", jobs, pack)]

    assert gpus(9) == ["0", "2", "5", "7"] and gpus(2) == ["0,5", "2,7"]
    assert gpus(1) == ["0,2,5,7"]
    assert gpus(9, pack=2) == ["0", "0", "2", "2", "5", "5", "7", "7"]
    assert environments("cpu", 9) == [{}]


@pytest.mark.parametrize("given, share", [
    ({}, 0.45), ({"XLA_CLIENT_MEM_FRACTION": "0.5"}, 0.25),
    ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".8"}, 0.4),
])
def test_processes_of_a_gpu_share_its_memory_as_jax_reads_it(monkeypatch, given, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    first, second = environments("gpu", 2, pack=2)
    assert first == second and first["CUDA_VISIBLE_DEVICES"] == "0"
    for name, value in first.items():
        monkeypatch.setenv(name, value)
    assert xla_client.generate_pjrt_gpu_plugin_options()["memory_fraction"] == share


def test_a_process_that_is_alone_takes_all_the_memory(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert environments("", 1, pack=4) == [{"CUDA_VISIBLE_DEVICES": "0"}]
    assert [e["XLA_CLIENT_MEM_FRACTION"] for e in environments("", 2, pack=4)] == ["0.450"] * 2
    assert len(environments("", 9, pack=4)) == 4


@pytest.mark.parametrize("text", ["half", "0", "2", "nan"])
def test_a_share_of_memory_that_is_none(monkeypatch, text):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", text)
    assert environments("gpu", 1) == [{"CUDA_VISIBLE_DEVICES": "0"}]
    with pytest.raises(InputError, match=f"XLA_PYTHON_CLIENT_MEM_FRACTION={text}"):
        environments("gpu", 2, pack=2)
    with pytest.raises(InputError, match="MEM_FRACTION"):  # before anything is read or written
        main(["--config=nowhere.py", "--sweep=seeds=1,2", "--pack=2"])


def test_ctrl_c_asks_for_a_checkpoint_and_waits(monkeypatch, plan):
    stand_in(monkeypatch, {"001": (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (print('saved'), sys.exit(75)))\n"
        "print('ready', flush=True)\ntime.sleep(60)")})

    def interrupt():
        log = plan.log(plan.jobs[0])
        while not (log.exists() and "ready" in log.read_text().splitlines()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    # A background job of a shell ignores SIGINT, and so would the tests in it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run_local(plan, plan.jobs, say=lambda text: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "saved" in plan.log(plan.jobs[0]).read_text()
    assert not plan.log(plan.jobs[1]).exists()


def test_warnings_while_a_process_starts_do_not_end_it(tmp_path):
    process = processes.start([sys.executable, "-c", "import time; time.sleep(.6)"],
                              tmp_path / "log", {})
    time.sleep(0.2)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    assert process.wait() == 0


def test_processes_ignore_warnings_from_the_first_moment_and_need_no_tools(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code = ("import signal\n"
            "print([signal.getsignal(n) == signal.SIG_IGN for n in (10, 12, 15)], "
            "signal.pthread_sigmask(signal.SIG_BLOCK, []))")
    process = processes.start([sys.executable, "-c", code], tmp_path / "log", {})
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    assert process.wait() == 0
    assert (tmp_path / "log").read_text().endswith("\n[True, True, False] set()\n")


def test_processes_whose_launcher_is_killed_are_asked_for_a_checkpoint(tmp_path):
    code = ("import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *a: (print('saved'), sys.exit(75)))\n"
            "print('ready', flush=True)\ntime.sleep(60)")
    log = tmp_path / "log"
    launcher = subprocess.Popen([sys.executable, "-c", (
        "import pathlib, sys, time; from launch import processes\n"
        f"processes.start([sys.executable, '-c', {code!r}], pathlib.Path({str(log)!r}), {{}})\n"
        "time.sleep(60)")])
    for text in ("ready", "saved"):
        end = time.monotonic() + 30
        while not (log.exists() and text in log.read_text().splitlines()):
            assert time.monotonic() < end
            time.sleep(0.02)
        launcher.kill()
    launcher.wait()


def test_processes_are_asked_until_they_leave(tmp_path):
    code = ("import signal, sys, time\ntime.sleep(.7)\n"
            "signal.signal(signal.SIGUSR1, lambda *a: sys.exit(75))\ntime.sleep(60)")
    process = processes.start([sys.executable, "-c", code], tmp_path / "log", {})
    time.sleep(0.3)
    processes.wait_for_checkpoint([process], 20)
    assert processes.exit_code(process) == 75
    stubborn = subprocess.Popen([sys.executable, "-c", "import signal, time\n"
                                 "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\ntime.sleep(60)"])
    processes.wait_for_checkpoint([stubborn], 0)
    assert processes.exit_code(stubborn) is None
    stubborn.kill()
    stubborn.wait()
