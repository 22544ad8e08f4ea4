"""Tasks on a real SLURM, of two nodes on this machine; small stand-ins take the place of studies.

A real study that is told to leave, and killed, is in test_launch_slurm_study.py.
"""

import json
import os
import subprocess
import sys

import pytest
from real_slurm import ask, start_again, until

from launch import processes, slurm
from launch.plan import make_plan
from launch.points import make_points
from launch.slurm import Options, parse_minutes
from unlearn_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

OPTIONS = dict(minutes=10, signal_seconds=60,
               parameters=dict(cpus_per_task=1, array_parallelism=2))


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


@pytest.fixture(autouse=True)
def asked_often(monkeypatch):
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.1)


@pytest.fixture
def plan(slurm_cluster, tmp_path):
    """Three jobs."""
    return three_jobs(tmp_path)


def three_jobs(tmp_path, *flags):
    points = make_points([{"model.width": width} for width in (2, 4, 8)], "configs/ft.py", flags)
    made = make_plan(points, flags, tmp_path / "sweep", tmp_path / "store")
    made.write()
    return made


def stand_in(monkeypatch, *code):
    """The code of the process of each job, in place of a study."""
    monkeypatch.setattr(processes, "command", lambda plan, job: [
        sys.executable, "-S", "-c", code[plan.jobs.index(job)]])


def test_a_task_needs_no_jax():
    """A task imports this module to wait for its studies; JAX would take seconds and memory."""
    subprocess.run([sys.executable, "-c", "import sys, launch.slurm\n"
                    "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"],
                   cwd=processes.ROOT, check=True)


def test_jobs_of_an_array_end_with_their_exit_codes(monkeypatch, plan):
    stand_in(monkeypatch, "import os; print('cores', os.environ['SRUN_CPUS_PER_TASK'])",
             "raise SystemExit('no such file')", "print('too')")
    said = []
    slurm.submit(plan, plan.jobs, Options(pack=2, **OPTIONS), said.append)
    assert said[0].startswith("submitted 3 jobs as 2 tasks of SLURM's job ")
    codes = slurm.wait(plan, plan.jobs, said.append)
    assert [codes[job.name] for job in plan.jobs] == [0, 1, 0]
    assert f"{plan.jobs[1].name}: failed (exit code 1)" in said
    assert "no such file" in processes.last_lines(plan.log(plan.jobs[1]))
    assert "cores 1" in processes.last_lines(plan.log(plan.jobs[0])), "asked of srun, too"
    assert slurm.in_queue(plan) == {}


def test_jobs_of_a_task_share_its_gpu_side_by_side(monkeypatch, slurm_cluster, tmp_path):
    plan = three_jobs(tmp_path, "--config.parallel.backend=gpu")
    here = tmp_path / "here"
    here.mkdir()
    # All three are there at the same time, and have what JAX would ask of CUDA.
    stand_in(monkeypatch, *(
        "import json, os, pathlib, sys, time\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from jaxlib import xla_client\n"
        f"here = pathlib.Path({str(here)!r})\n"
        f"(here / '{name}').touch()\n"
        "while len(list(here.iterdir())) < 3:\n    time.sleep(.05)\n"
        "share = xla_client.generate_pjrt_gpu_plugin_options().get('memory_fraction')\n"
        "print(json.dumps([os.environ['SLURMD_NODENAME'], os.environ['CUDA_VISIBLE_DEVICES'],"
        " share]))\n" for name in "abc"))
    options = dict(OPTIONS, parameters=dict(cpus_per_task=1, gres="gpu:1",
                                            additional_parameters={"nodelist": "1"}))
    slurm.submit(plan, plan.jobs, Options(pack=2, **options), lambda text: None)
    assert slurm.wait(plan, plan.jobs, lambda text: None) == {j.name: 0 for j in plan.jobs}
    first, second, third = (json.loads(plan.log(job).read_text().splitlines()[-1])
                            for job in plan.jobs)
    assert first == second and first[2] == 0.45
    assert third[0] == first[0] and third[2] is None
    assert {first[1], third[1]} == {"0", "1"}, "a GPU of its own for each task"


@pytest.mark.parametrize("why", ["its time is up", "others need the nodes"])
def test_a_task_that_is_told_to_leave_goes_on_later(monkeypatch, plan, tmp_path, why):
    saved, running = tmp_path / "saved", tmp_path / "running"
    stand_in(monkeypatch, (
        "import os, pathlib, signal, sys, time\n"
        f"saved, running = pathlib.Path({str(saved)!r}), pathlib.Path({str(running)!r})\n"
        "def leave(*_):\n    saved.touch()\n    sys.exit(75)\n"
        "if saved.exists():\n    print('went on')\n    sys.exit()\n"
        "for asks in (signal.SIGUSR1, signal.SIGTERM):\n    signal.signal(asks, leave)\n"
        "running.touch()\ntime.sleep(600)\n"))
    slurm.submit(plan, plan.jobs[:1], Options(**OPTIONS), lambda text: None)
    (task,) = slurm.in_queue(plan)
    until(running.exists)
    if why == "its time is up":
        ask("scancel", "--signal=USR2", task)
    else:
        ask("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
            "--wrap=true")
    until(saved.exists)
    start_again(task)
    assert not plan.exit_file(plan.jobs[0]).exists() and slurm.in_queue(plan)
    assert slurm.wait(plan, plan.jobs[:1], lambda text: None) == {plan.jobs[0].name: 0}
    assert "went on" in plan.log(plan.jobs[0]).read_text()


def test_a_task_that_is_cancelled_does_not_come_back(monkeypatch, plan, tmp_path):
    running = tmp_path / "running"
    stand_in(monkeypatch, (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(running)!r}).touch()\ntime.sleep(600)\n"))
    monkeypatch.setattr(slurm, "_SETTLE_SECONDS", 0.2)
    slurm.submit(plan, plan.jobs[:1], Options(**OPTIONS), lambda text: None)
    (task,) = slurm.in_queue(plan)
    until(running.exists)
    ask("scancel", task)
    assert slurm.wait(plan, plan.jobs[:1], lambda text: None) == {plan.jobs[0].name: 137}
    until(lambda: ask("squeue", "-hr", "-j", task, "-t", "all", "-o", "%T") == ["CANCELLED"])


def test_a_task_that_dies_has_failed_and_can_be_submitted_again(monkeypatch, plan, tmp_path):
    first = tmp_path / "first"
    stand_in(monkeypatch, (
        "import os, pathlib, sys\n"
        f"first = pathlib.Path({str(first)!r})\n"
        "if first.exists():\n    sys.exit()\n"
        "first.touch()\n"
        # As kill -9 of the whole task, or a lost node.
        "os.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)\n"))
    monkeypatch.setattr(slurm, "_SETTLE_SECONDS", 0.2)
    for code in (137, 0):
        slurm.submit(plan, plan.jobs[:1], Options(**OPTIONS), lambda text: None)
        assert slurm.wait(plan, plan.jobs[:1], lambda text: None) == {plan.jobs[0].name: code}


def test_what_is_lost_is_submitted_beside_what_is_queued(monkeypatch, plan, tmp_path):
    gate = tmp_path / "gate"
    waits = (f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): "
             "time.sleep(.1)\n")
    stand_in(monkeypatch, waits, "", "")
    slurm.submit(plan, plan.jobs[:1], Options(**OPTIONS), lambda text: None)
    slurm.submit(plan, plan.jobs[1:], Options(**OPTIONS), lambda text: None)
    until(plan.exit_file(plan.jobs[2]).exists)
    until(lambda: [*slurm.in_queue(plan).values()] == [[plan.jobs[0].name]])
    gate.touch()
    assert slurm.wait(plan, plan.jobs, lambda text: None) == {j.name: 0 for j in plan.jobs}


def test_paths_may_hold_spaces(monkeypatch, slurm_cluster, tmp_path):
    (tmp_path / "a place").mkdir()
    plan = three_jobs(tmp_path / "a place")
    stand_in(monkeypatch, "import os; print(os.getcwd()); print(os.environ['PYTHONPATH'])")
    root = tmp_path / "the checkout"
    root.symlink_to(processes.ROOT)
    monkeypatch.setattr(processes, "ROOT", root)
    monkeypatch.chdir(tmp_path / "a place")
    slurm.submit(plan, plan.jobs[:1], Options(**OPTIONS), lambda text: None)
    assert slurm.wait(plan, plan.jobs[:1], lambda text: None) == {plan.jobs[0].name: 0}
    said = plan.log(plan.jobs[0]).read_text().splitlines()
    assert os.getcwd() in said and any(str(root) in line.split(":") for line in said)


def test_slurm_may_have_forgotten_some_or_all(slurm_cluster):
    (number,) = ask("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true")
    assert slurm._alive({number, "990001", "990002"}) == {number}
    ask("scancel", number)
    assert slurm._alive({"990001"}) == slurm._alive({"990001", "990002"}) == set()


@pytest.fixture
def silent(monkeypatch, tmp_path):
    """A sweep in the queue of a SLURM whose squeue is asked in vain; the answers in their order."""
    plan = three_jobs(tmp_path)
    for job in plan.jobs:
        processes.write_exit(plan.exit_file(job), 0)
    (plan.directory / slurm.SUBMITTED).write_text(json.dumps(
        {"tasks": {f"{n}_0": [job.name] for n, job in enumerate(plan.jobs, 7)}}))
    answers, asked = [], []

    def squeue(line, **_):
        asked.append(line)
        code, out, err = answers.pop(0) if len(answers) > 1 else answers[0]
        return subprocess.CompletedProcess(line, code, out, err)

    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm.subprocess, "run", squeue)
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.01)
    return plan, answers, asked


@pytest.mark.parametrize("text", ["", "[]", '{"tasks": 3}', '{"tasks": {"7_0": 1}}', "\xff"])
def test_a_damaged_record_of_what_was_submitted_is_named(tmp_path, text):
    plan = three_jobs(tmp_path)
    (plan.directory / slurm.SUBMITTED).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="slurm.json is damaged"):
        slurm.in_queue(plan)


@pytest.mark.parametrize("text, code", [("0\n", 0), ("75\n", 75), ("", 137), ("\xff", 137)])
def test_exit_codes_that_no_process_wrote_are_none(tmp_path, text, code):
    (tmp_path / "1.exit").write_text(text, encoding="latin-1")
    assert slurm._exit_code(tmp_path / "1.exit") == code
    assert slurm._exit_code(tmp_path / "2.exit") == 137


TIMEOUT = (1, "", "slurm_load_jobs error: Socket timed out on send/recv operation\n")


def test_a_wait_outlasts_a_slurm_that_does_not_answer_for_a_while(silent):
    plan, answers, asked = silent
    answers += [(0, "7_0\n", ""), TIMEOUT, TIMEOUT, (0, "8_0\n", ""), TIMEOUT, (0, "", "")]
    said = []
    assert set(slurm.wait(plan, plan.jobs, said.append).values()) == {0}
    assert len([line for line in said if "Socket timed out" in line]) == 2, "once each time"
    assert len(asked) == 6 and all("7,8,9" in line for line in asked)


def test_a_wait_ends_where_slurm_stays_silent(monkeypatch, silent):
    plan, answers, _ = silent
    answers += [TIMEOUT]
    monkeypatch.setattr(slurm, "_SILENCE_SECONDS", 0.1)
    with pytest.raises(InputError, match="Socket timed out"):
        slurm.wait(plan, plan.jobs, lambda text: None)


@pytest.mark.parametrize("answers", [
    [TIMEOUT, (0, "RUNNING\n", ""), TIMEOUT, (0, "", "")], [TIMEOUT, (0, "COMPLETING\n", "")]])
def test_a_task_that_leaves_asks_a_busy_slurm_again(monkeypatch, answers):
    asked, left = [], [*answers]

    def run(line, check=False, **_):
        asked.append(line[0])
        done = subprocess.CompletedProcess(line, *left.pop(0))
        if check:
            done.check_returncode()
        return done

    monkeypatch.setattr(slurm.subprocess, "run", run)
    monkeypatch.setattr(slurm, "_ASK_SECONDS", 0.0, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    slurm._go_back_to_the_queue()
    assert asked == ["squeue", "squeue", "scontrol", "scontrol"][:len(answers)] and not left


def test_a_task_that_leaves_does_not_ask_for_ever(monkeypatch):
    monkeypatch.setattr(slurm.subprocess, "run",
                        lambda line, **_: subprocess.CompletedProcess(line, *TIMEOUT))
    monkeypatch.setattr(slurm, "_ASK_SECONDS", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with pytest.raises(InputError, match="squeue -h .*Socket timed out"):
        slurm._go_back_to_the_queue()


def test_a_machine_without_slurm_cannot_ask(monkeypatch, silent):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="no squeue"):
        slurm.in_queue(silent[0])
