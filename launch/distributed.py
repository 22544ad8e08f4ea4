"""One study in several processes:  python -m launch.distributed --processes=2 -- --config=...

Arguments after `--` are flags of `unlearn_jax.main`. On one host, all processes:

    python -m launch.distributed --processes=2 -- --config=configs/ft.py

On several hosts, one command on each, with --process-id=0, 1, ...; the coordinator is the host of
process 0 with one of its free ports:

    python -m launch.distributed --processes=2 --process-id=0 --coordinator=node1:9876 -- \\
        --config=configs/ft.py --store=/shared/store --workdir=/shared/ft

Under SLURM, `srun python -m unlearn_jax.main ...` needs none of this.
"""

import argparse
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from launch.children import begin
from launch.gpus import visible_gpus

_GRACE = 30.0  # seconds for the others to end by themselves after one has reported a failure
_SOON = 2.0  # the same after a signal has ended one: no report of the failure will come
_POLL = 0.2
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: Sequence[str]) -> int:
    """Runs this host's part; returns the exit code of the first process that fails, else 0."""
    options = _parse(argv)
    if options.process_id >= 0:
        command = _command(options, options.coordinator, options.process_id)
        os.execv(command[0], command)  # the run itself gets signals and sets the exit code
    coordinator = f"localhost:{free_port()}"
    return _run_all([_command(options, coordinator, i) for i in range(options.processes)],
                    _shares(options))


def divide_gpus(visible: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """The GPUs of each of `count` processes on a host, in equal parts.

    Raises:
      ValueError: there are too few, or some would be left over.
    """
    each, rest = divmod(len(visible), count)
    if not each or rest:
        raise ValueError(f"{count} processes cannot share {len(visible)} GPUs in equal parts; give "
                         "as many processes as divide them (one process uses all GPUs by itself), "
                         "set CUDA_VISIBLE_DEVICES, or add --config.parallel.backend=cpu")
    return [tuple(visible[i * each:(i + 1) * each]) for i in range(count)]


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.distributed", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True, help="on all hosts together")
    parser.add_argument("--coordinator", default="", help="HOST:PORT of process 0")
    parser.add_argument("--process-id", type=int, default=-1,
                        help="which this one is, from zero; default: start all of them here")
    parser.add_argument("flags", nargs="*", help="after --: flags of unlearn_jax.main")
    options = parser.parse_args(argv)
    if options.processes < 1:
        parser.error(f"--processes is {options.processes}; allowed: at least 1")
    if bool(options.coordinator) != (options.process_id >= 0):
        parser.error("--coordinator and --process-id go together: give both, one command on each "
                     "host, or none to start all processes on this host")
    if options.process_id >= options.processes:
        parser.error(f"--process-id is {options.process_id}; allowed: from 0 to "
                     f"{options.processes - 1}")
    return options


def _command(options: argparse.Namespace, coordinator: str, index: int) -> list[str]:
    return [sys.executable, "-u", "-m", "unlearn_jax.main", *options.flags,
            f"--coordinator={coordinator}", f"--processes={options.processes}",
            f"--process_id={index}"]


def free_port() -> int:
    """A port of this host that is not in use now."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def _shares(options: argparse.Namespace) -> list[tuple[set[int], dict[str, str]]]:
    """Cores and environment of each process, without shared cores or GPUs if there are enough."""
    everything = sorted(os.sched_getaffinity(0))
    each = len(everything) // options.processes
    own = [set(everything[i * each:(i + 1) * each] or everything)
           for i in range(options.processes)]
    gpus = visible_gpus()
    try:
        if not gpus or _backend(options.flags) == "cpu":
            return [(c, {}) for c in own]
        parts = divide_gpus(gpus, options.processes)
    except ValueError as e:
        sys.exit(f"launch.distributed: {e}")
    return [(c, {"CUDA_VISIBLE_DEVICES": ",".join(g)}) for c, g in zip(own, parts)]


def _backend(flags: Sequence[str]) -> str:
    """`config.parallel.backend` from the flags after `--`.

    Raises:
      InputError: the config cannot be read.
    """
    from unlearn_jax.commandline import read_config  # takes a while to import

    given = []
    for word, following in itertools.zip_longest(flags, flags[1:], fillvalue="--"):
        name, equals, _ = word.lstrip("-").partition("=")
        if word.startswith("-") and name.partition(".")[0] == "config":
            given += [word] if equals or following.startswith("--") else [word, following]
    return read_config(given).parallel.backend


def _run_all(commands: list[list[str]], shares: list[tuple[set[int], dict[str, str]]]) -> int:
    """Runs all processes and waits for them; the first failure ends the others."""
    children: list[subprocess.Popen] = []

    def pass_on(number: int, frame) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    echoes = []
    for index, (command, (cores, env)) in enumerate(zip(commands, shares)):
        # A process dies with its launcher, because its output has no reader any more. A terminal's
        # Ctrl-C reaches it once, through this process.
        child = begin(
            command, signal.SIGKILL, env={**os.environ, **env}, text=True,
            stdout=subprocess.PIPE if index else None,  # the first one prints the report
            stderr=subprocess.PIPE, preexec_fn=lambda c=cores: os.sched_setaffinity(0, c))
        children.append(child)
        echoes += [threading.Thread(target=_echo, args=(index, lines), daemon=True)
                   for lines in (child.stderr, child.stdout) if lines]
    for echo in echoes:
        echo.start()
    code = _wait(children)
    for echo in echoes:
        echo.join(timeout=_SOON)
    return code


def _echo(index: int, lines) -> None:
    for line in lines:
        if line.strip():
            sys.stderr.write(f"[{index}] {line}")
            sys.stderr.flush()


def _wait(children: list[subprocess.Popen]) -> int:
    first = failed_at = grace = 0
    while any(child.poll() is None for child in children):
        failed = [i for i, child in enumerate(children) if child.poll()]
        if failed and not first:
            first, failed_at = _exit_code(children[failed[0]]), time.monotonic()
            grace = _SOON if children[failed[0]].returncode < 0 else _GRACE
            print(f"launch.distributed: process {failed[0]} ended with exit code {first}, so that "
                  "the others end, too", file=sys.stderr, flush=True)
        elif failed and time.monotonic() - failed_at > grace:
            # SIGTERM would request a checkpoint, which no process can write alone.
            for child in children:
                child.kill()
        time.sleep(_POLL)
    return first or max(map(_exit_code, children))


def _exit_code(child: subprocess.Popen) -> int:
    """The exit code as in a shell: 128 plus the signal's number if a signal ended the process."""
    return 128 - child.returncode if child.returncode < 0 else child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
