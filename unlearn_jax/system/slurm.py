"""The place of a process among several of a program, from flags or from SLURM."""

import os
import re
from collections.abc import Mapping

from absl import flags

from unlearn_jax.errors import ConfigError
from unlearn_jax.system.processes import TIMEOUT, Place

COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "Of several processes: HOST:PORT of the first one; slurm: what srun says; "
    "none: a single process; default: slurm if srun started several tasks, or else none")
PROCESSES = flags.DEFINE_integer("processes", 0, "How many processes run this program")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this one is, from zero")
PATIENCE = flags.DEFINE_float("process_timeout", TIMEOUT,
                              "Seconds that a process waits for the others", lower_bound=1)

# Each job and step has its own port from here on, as with SLURM and JAX' own detection.
_FIRST_PORT, _PORTS = 61440, 4096


def place_of_flags() -> Place | None:
    """The place of this process, from its flags and SLURM's variables; see `find_place`."""
    return find_place(COORDINATOR.value, PROCESSES.value, PROCESS_ID.value)


def hint() -> str:
    """The end of the message that processes which SLURM started together are not one study."""
    return "" if COORDINATOR.value else ("; srun has started them as one program, "
                                         "--coordinator=none makes each a study of its own")


def find_place(coordinator: str, count: int, index: int,
               env: Mapping[str, str] = os.environ) -> Place | None:
    """The place of this process among those of its program; None: it is the only one.

    Args:
      coordinator: HOST:PORT of process 0; `slurm`: from SLURM's variables; `none`: a single
        process in any case; `''`: from SLURM's variables, if `srun` started several tasks in this
        very step. A job with several tasks whose script calls Python itself runs one process.
      count: number of processes; 0: not given.
      index: number of this process; -1: not given.
      env: environment variables.

    Raises:
      ConfigError: the flags contradict each other, or SLURM's variables are missing.
    """
    given = count > 0 or index >= 0
    if coordinator in ("", "none", "slurm"):
        if given:
            raise ConfigError(f"--processes={count} and --process_id={index} need --coordinator="
                              f"HOST:PORT of process 0, not {coordinator!r}")
        tasks = env.get("SLURM_STEP_NUM_TASKS", "")
        if coordinator == "none" or (not coordinator and tasks in ("", "1")):
            return None
        return _slurm_place(env)
    if count < 1 or index < 0:
        raise ConfigError(f"--coordinator={coordinator} needs --processes (it is {count}) and "
                          f"--process_id (it is {index})")
    return Place(coordinator, count, index)


def _slurm_place(env: Mapping[str, str]) -> Place:
    count, index = _number(env, "SLURM_STEP_NUM_TASKS"), _number(env, "SLURM_PROCID")
    # This number differs between recent jobs, and between the first steps of a job.
    step = _number(env, "SLURM_JOB_ID") + 257 * _number(env, "SLURM_STEP_ID")
    coordinator = (f"{first_host(_text(env, 'SLURM_STEP_NODELIST'))}:"
                   f"{_FIRST_PORT + step % _PORTS}")
    return Place(coordinator, count, index, _own_gpus(env))


def first_host(nodes: str) -> str:
    """The first host of a list such as `a1,b2`, `node[003-007,9]` or `r[1-2]n[1-4]`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group()) if first else nodes


def tasks_of_node(tasks: str, node: int) -> int:
    """Number of tasks on a node of a step, from a list such as `2(x3),1`."""
    every = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks)
             for _ in range(int(times or 1))]
    return every[node]


def _own_gpus(env: Mapping[str, str]) -> tuple[int, ...] | None:
    """This task's part of the GPUs shared by the tasks of its node; None: they are not shared.

    If SLURM binds GPUs to tasks, each task sees its own alone. With --gpu-bind=none it sees all,
    even if SLURM_GPUS_PER_TASK (`2`, or `a100:2`) is set.
    """
    visible = [d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    tasks = tasks_of_node(_text(env, "SLURM_STEP_TASKS_PER_NODE"), _number(env, "SLURM_NODEID"))
    on_node = int(env.get("SLURM_GPUS_ON_NODE") or 2)
    of_task = int(env.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2] or 0)
    if tasks == 1 or len(visible) <= of_task or len(visible) < on_node:
        return None
    if len(visible) % tasks:
        raise ConfigError(f"{tasks} tasks on a node share {len(visible)} GPUs; start a number of "
                          "tasks that divides them, or give srun --gpus-per-task")
    each, local = len(visible) // tasks, _number(env, "SLURM_LOCALID")
    return tuple(range(local * each, (local + 1) * each))


def _text(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise ConfigError(f"SLURM has not set {name}: start the program by srun, or give "
                          "--coordinator=HOST:PORT, --processes and --process_id (or "
                          "--coordinator=none for a single process)")
    return env[name]


def _number(env: Mapping[str, str], name: str) -> int:
    text = _text(env, name)
    if not text.isdecimal():
        raise ConfigError(f"SLURM has set {name} to {text!r}, which is no number")
    return int(text)
