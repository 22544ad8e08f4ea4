"""A sweep on a SLURM cluster: its jobs are tasks of one array, submitted through submitit.

A task runs its jobs as processes, like a local sweep. SLURM sends the task a signal some time
before its time limit. The task then signals its processes to write a checkpoint
(`unlearn_jax/system/interrupt.py`), goes back into the queue and continues later. A job's exit code
is in its exit file; SLURM's accounting is not needed.
"""

import dataclasses
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit

from launch import processes
from launch.local import environments
from unlearn_jax.errors import InputError
from unlearn_jax.system import disk
from unlearn_jax.system.interrupt import EXIT_CODE, SIGNALS

if TYPE_CHECKING:  # a task imports this module, and needs no JAX
    from launch.plan import Job, Plan

SUBMITTED = "slurm.json"
_POLL_SECONDS = 10.0
# A controller that restarts or is overloaded does not answer for a while.
_SILENCE_SECONDS = 600.0
# A file written on another machine may take this long to be visible here.
_SETTLE_SECONDS = 15.0
# The part of the time between signal and end that requeueing itself may take.
_REQUEUE_SECONDS = 5.0
# A task that ends has no time to wait; it repeats a request to a busy SLURM this often.
_ASKS, _ASK_SECONDS = 5, 1.0
# Exit codes of a process after a signal for a checkpoint; all but the first mean that it had no
# handler yet. The process continues when SLURM starts the task again.
_ASKED_TO_LEAVE = (EXIT_CODE, *(128 + number for number in SIGNALS))
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclasses.dataclass(frozen=True)
class Options:
    """SLURM options of each task.

    Attributes:
      minutes: the time limit.
      signal_seconds: seconds between the signal and the time limit.
      requeues: number of requeues after which a signalled task gives up.
      pack: jobs of a task.
      parameters: parameters of sbatch, as submitit names them: partition, account, gres, mem, ...

    Raises:
      InputError: a task would get the signal before it starts.
    """

    minutes: int = 240
    signal_seconds: int = 300
    requeues: int = 100
    pack: int = 1
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.signal_seconds >= 60 * self.minutes:
            raise InputError(f"--signal-seconds={self.signal_seconds}: allowed: less than the time "
                             f"limit, {60 * self.minutes} s")


class NoAnswer(InputError):
    """SLURM does not answer now; it may answer later."""


def parse_minutes(text: str) -> int:
    """SLURM's forms of a time limit, `MINUTES`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`, in minutes.

    Raises:
      InputError: the text has none of these forms, or is less than a minute.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise InputError(f"--time={text}: allowed: MINUTES, H:M:S or D-H:M:S")
    days, *parts = (int(p) if p else None for p in match.groups())
    parts = [p for p in parts if p is not None]
    if days is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    total = ((days or 0) * 24 + hours) * 60 + minutes + -(-seconds // 60)
    if total < 1:
        raise InputError(f"--time={text}: allowed: at least a minute")
    return total


@dataclasses.dataclass
class Part:
    """The parts of a job that its task needs; unpickling it does not import the project.

    Attributes:
      name: name of the job.
      command: command that starts its process.
      log, exit_file: see `Plan`.
      backend: `config.parallel.backend`.
    """

    name: str
    command: list[str]
    log: str
    exit_file: str
    backend: str


class Task:
    """The work of an array task; submitit calls it, and calls `checkpoint` at the signal.

    Args:
      parts: its jobs: side by side on a GPU, one after the other without a GPU.
      patience: seconds that its processes have for their checkpoint.
    """

    def __init__(self, parts: list[Part], patience: float):
        self.parts, self.patience = parts, patience
        self._running: list[subprocess.Popen] = []

    def __call__(self) -> dict[str, int]:
        """Runs the jobs that have not ended; returns their exit codes."""
        codes: dict[str, int] = {}
        waiting = [p for p in self.parts if not Path(p.exit_file).exists()]
        places = environments(self.parts[0].backend, len(waiting), pack=len(waiting))
        while waiting:
            together, waiting = waiting[:len(places)], waiting[len(places):]
            started = [(part, processes.start(part.command, Path(part.log), place))
                       for part, place in zip(together, places)]
            self._running = [process for _, process in started]
            for part, process in started:
                while (code := processes.exit_code(process)) is None:
                    time.sleep(0.2)
                codes[part.name] = code
                if code not in _ASKED_TO_LEAVE:
                    processes.write_exit(Path(part.exit_file), code)
            if any(code in _ASKED_TO_LEAVE for code in codes.values()):
                _go_back_to_the_queue()
                break
        return codes

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Signals the processes to write a checkpoint; returns the task to be started again."""
        processes.wait_for_checkpoint(self._running, self.patience)
        return submitit.helpers.DelayedSubmission(Task(self.parts, self.patience))


def _go_back_to_the_queue() -> None:
    """Requeues a task when SLURM itself has signalled its processes to make room for other jobs.

    During the grace time, SLURM treats a task that ends as finished. If SLURM ends the task itself,
    it also requeues it, or is configured to cancel it: then the task no longer runs.
    """
    number = submitit.JobEnvironment().job_id
    if _answer("squeue", "-h", "-j", number, "-o", "%T") == "RUNNING":
        _answer("scontrol", "requeue", number)


def _answer(*line: str) -> str:
    """The output of a SLURM command, which may fail while SLURM is busy.

    Raises:
      NoAnswer: the command has failed each time.
    """
    for left in reversed(range(_ASKS)):
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
        if left:
            time.sleep(_ASK_SECONDS)
    raise NoAnswer(f"{' '.join(line)}: {done.stderr.strip()}")


def submit(plan: "Plan", jobs: "Sequence[Job]", options: Options,
           say: Callable[[str], None] = print) -> None:
    """Submits jobs to SLURM as one array; adds its number in slurm.json to those still queued.

    Args:
      plan: plan of the jobs.
      jobs: jobs to run.
      options: options of each task.
      say: takes progress lines.

    Raises:
      InputError: there is no SLURM here, or it refuses the jobs.
    """
    if not shutil.which("sbatch"):
        raise InputError("--on=slurm: this machine has no sbatch; run it where jobs are submitted")
    tasks = [jobs[i:i + options.pack] for i in range(0, len(jobs), options.pack)]
    queued = in_queue(plan)
    for job in jobs:
        plan.exit_file(job).unlink(missing_ok=True)
    patience = max(1.0, options.signal_seconds - _REQUEUE_SECONDS)
    executor = submitit.SlurmExecutor(plan.directory.absolute() / "slurm",
                                      max_num_timeout=options.requeues)
    try:
        # The checkout is not installed: a task must find the package.
        executor.update_parameters(
            job_name="unlearn-sweep", time=options.minutes, signal_delay_s=options.signal_seconds,
            setup=[f"export PYTHONPATH={shlex.quote(str(processes.ROOT))}"
                   "${PYTHONPATH:+:$PYTHONPATH}", f"cd {shlex.quote(str(Path.cwd()))}",
                   # srun of SLURM 22.05 to 23.02 does not inherit it from sbatch.
                   "${SLURM_CPUS_PER_TASK:+export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK}"],
            **options.parameters)
        with executor.batch():  # one array
            made = [executor.submit(_task(plan, own, patience)) for own in tasks]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError,
            subprocess.CalledProcessError, ValueError) as e:
        raise InputError(f"SLURM refuses the sweep: {' '.join(str(e).split())[-500:]}") from e
    numbers = [job.job_id for job in made]
    own = {number: [job.name for job in part] for number, part in zip(numbers, tasks)}
    record = {"tasks": {**queued, **own}}
    disk.write_file(plan.directory / SUBMITTED, json.dumps(record, indent=1) + "\n")
    say(f"submitted {len(jobs)} jobs as {len(tasks)} tasks of SLURM's job "
        f"{numbers[0].partition('_')[0]}")


def _task(plan: "Plan", jobs: "Sequence[Job]", patience: float) -> Task:
    return Task([Part(job.name, processes.command(plan, job), str(plan.log(job).absolute()),
                      str(plan.exit_file(job).absolute()),
                      job.runs[0].config.parallel.backend) for job in jobs], patience)


def in_queue(plan: "Plan") -> dict[str, list[str]]:
    """The tasks of the sweep that SLURM still has, with the names of their jobs.

    Raises:
      NoAnswer: SLURM does not answer now.
      InputError: SLURM cannot be reached from here.
    """
    path = plan.directory / SUBMITTED
    if not path.exists():
        return {}
    try:
        tasks = {str(number): [str(name) for name in names]
                 for number, names in json.loads(path.read_bytes())["tasks"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path} is damaged; cancel what SLURM still has of the sweep (scancel), "
                         "remove that file, and run the same command again") from e
    alive = _alive({number.partition("_")[0] for number in tasks})
    return {number: names for number, names in tasks.items() if number in alive}


def _alive(numbers: set[str]) -> set[str]:
    """Waiting or running tasks of the jobs with these numbers; `-r` lists an array's tasks singly.
    """
    if not numbers:
        return set()
    if not shutil.which("squeue"):
        raise InputError("the sweep has been given to SLURM, and this machine has no squeue to ask "
                         "for it; run it where jobs are submitted")
    done = subprocess.run(["squeue", "-h", "-r", "-j", ",".join(sorted(numbers)), "-o", "%i"],
                          capture_output=True, text=True)
    if done.returncode == 0:
        return set(done.stdout.split())
    if "Invalid job id" in done.stderr:  # squeue's answer for a single old job
        return set()
    raise NoAnswer(f"squeue cannot be asked: {done.stderr.strip()}")


def wait(plan: "Plan", jobs: "Sequence[Job]",
         say: Callable[[str], None] = print) -> dict[str, int]:
    """Waits until SLURM has no more tasks of these jobs.

    Args:
      plan: plan of the jobs.
      jobs: submitted jobs.
      say: takes progress lines.

    Returns:
      Exit codes, by job; 128 + SIGKILL for a job without one.

    Raises:
      NoAnswer: SLURM has not answered for some minutes.
    """
    told: set[str] = set()
    silent_since = None
    while True:
        queued = None
        try:
            queued, silent_since = in_queue(plan), None
        except NoAnswer as e:
            now = time.monotonic()
            if silent_since is None:
                silent_since = now
                say(f"{e}; asking again for {_SILENCE_SECONDS / 60:.0f} minutes")
            elif now - silent_since > _SILENCE_SECONDS:
                raise
        for job in jobs:
            if job.name not in told and plan.exit_file(job).exists():
                told.add(job.name)
                code = _exit_code(plan.exit_file(job))
                say(f"{job.name}: " + ("finished" if code == 0 else f"failed (exit code {code})"))
        if queued == {}:
            break
        time.sleep(_POLL_SECONDS)
    end = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < end and not all(
            plan.exit_file(job).exists() or job.name in told for job in jobs):
        time.sleep(0.2)
    return {job.name: _exit_code(plan.exit_file(job)) for job in jobs}


def _exit_code(path: Path) -> int:
    """The exit code in a job's exit file; 128 + SIGKILL if it is missing or not a valid code."""
    try:
        return int(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return 128 + signal.SIGKILL
