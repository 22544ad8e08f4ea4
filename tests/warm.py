"""Commands of unlearn_jax as processes that have imported it already.

An import takes about three seconds per process, as long as the training of a tiny network. So a
process that has imported everything waits here, and forks:

- for a command of its own process, which has the state of a new one: no flags, no devices, no
  compiled programs;
- for the commands that share a process (`shared=True`), which run in it one after another. They
  find the programs that JAX has traced and compiled for those before; flags, streams and the
  working directory are as in a new process.
"""

import atexit
import dataclasses
import functools
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TextIO
from unittest import mock

import quick_compiler

ROOT = Path(__file__).parent.parent
# One device, as for users; the compiler as in tests/conftest.py.
ENV = {**os.environ, "XLA_FLAGS": quick_compiler.FLAGS}


def run(arguments: list[str], timeout: float = 300, cwd: Path = ROOT,
        figures: str = "made", shared: bool = False) -> subprocess.CompletedProcess:
    """Runs `python -m unlearn_jax...` with `ENV`.

    Args:
      arguments: the command line, from the interpreter on.
      timeout: seconds until the process is killed.
      cwd: its working directory; default: the root of the checkout.
      figures: those of the report are `made` only, `drawn` as well, or `none` (tests/undrawn.py).
      shared: True for a command that needs no process of its own: it asks for no other number of
        devices and receives no signal.

    Returns:
      its exit code, -N after signal N, and the text that it wrote.

    Raises:
      subprocess.TimeoutExpired: it ran longer than `timeout`.
    """
    python, flag, module, *rest = arguments
    if (python, flag) != (sys.executable, "-m"):
        raise ValueError(f"not the command of a module: {arguments}")
    with tempfile.TemporaryDirectory() as directory:
        paths = [str(Path(directory) / name) for name in ("stdout", "stderr")]
        template = _template()
        template.stdin.write(json.dumps({
            "shared": shared, "timeout": timeout, "module": module, "arguments": rest,
            "paths": paths, "cwd": str(cwd), "figures": figures}) + "\n")
        template.stdin.flush()
        code = json.loads(template.stdout.readline())
        said = [Path(path).read_text() for path in paths]
    if code is None:
        raise subprocess.TimeoutExpired(arguments, timeout, *said)
    return subprocess.CompletedProcess(arguments, code, *said)


@functools.cache
def _template() -> subprocess.Popen:
    """The process to fork from; it ends with this process, even if that is killed, by its stdin."""
    template = subprocess.Popen([sys.executable, __file__], cwd=ROOT,
                                env={**ENV, "PYTHONPATH": str(ROOT)}, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(template.communicate)
    return template


def _serve() -> None:
    gc.disable()
    import matplotlib.pyplot  # noqa: F401
    import undrawn  # noqa: F401

    import unlearn_jax.report.receipt
    import unlearn_jax.report.sections.page
    import unlearn_jax.stages
    import unlearn_jax.startup  # noqa: F401

    quick_compiler.share_context()
    gc.freeze()  # tracing makes much garbage: collections are rarer, without imported objects
    gc.set_threshold(200_000, 20, 20)
    gc.enable()
    replies = os.dup(1)
    host: _Host | None = None
    for line in sys.stdin:
        request = json.loads(line)
        timeout = request.pop("timeout")
        if request.pop("shared"):
            host = host or _Host.start()
            code, alive = host.code(request, timeout)
            host = host if alive else None
        else:
            child = os.fork()
            if not child:
                os.close(replies)
                _become(**request)
            code = _code(child, timeout)
        os.write(replies, (json.dumps(code) + "\n").encode())


def _code(child: int, timeout: float) -> int | None:
    """The exit code of a child process; None if it was killed after `timeout` seconds."""
    late = []

    def kill(*_):
        late.append(True)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return None if late else os.waitstatus_to_exitcode(status)


def _become(module: str, arguments: list[str], paths: list[str], cwd: str, figures: str) -> None:
    """Runs a module like `python -m`, and ends the process, also after an exception."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _run(module, arguments, paths, cwd, figures)
    sys.exit()


def _run(module: str, arguments: list[str], paths: list[str], cwd: str, figures: str) -> None:
    import undrawn

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(paths, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.argv = [module, *arguments]
    os.chdir(cwd)
    sys.path[0] = cwd
    with undrawn.FIGURES[figures]():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@dataclasses.dataclass(frozen=True)
class _Host:
    """The process of the commands that share one."""

    pid: int
    requests: TextIO
    replies: int

    @classmethod
    def start(cls) -> "_Host":
        """Forks it."""
        (read, requests), (replies, write) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            os.close(requests)
            os.close(replies)
            _take_turns(read, write)
            os._exit(0)
        os.close(read)
        os.close(write)
        return cls(pid, os.fdopen(requests, "w"), replies)

    def code(self, request: dict, timeout: float) -> tuple[int | None, bool]:
        """The exit code of a command, None for one that ran too long; whether the host lives."""
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        ready, _, _ = select.select([self.replies], [], [], timeout)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return None, False
        reply = os.read(self.replies, 100)
        if reply:
            return json.loads(reply), True
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), False


def _take_turns(read: int, write: int) -> None:
    from absl import flags

    from unlearn_jax import startup

    divided: list[int] = []
    divide = startup.divide_cores

    def divide_once(devices: int) -> None:
        if not divided:
            divide(devices)
        elif divided != [devices]:
            raise ValueError(f"this process has cpu_devices={divided}, not {devices}: give the "
                             "command a process of its own (shared=False)")
        divided[:] = [devices]

    with mock.patch.object(startup, "divide_cores", divide_once), os.fdopen(read) as requests:
        for line in requests:
            request = json.loads(line)
            code = _exit_code(request)
            _forget_flags(flags.FLAGS, request["module"])
            os.write(write, (json.dumps(code) + "\n").encode())


def _forget_flags(values, module: str) -> None:
    """Flags as before a command: without those that it defined, the others without its values."""
    from absl import logging

    own = {flag.name for flag in values.flags_by_module_dict().get(module, ())}
    for name in list(values):
        if name in own or name.startswith("config."):
            delattr(values, name)
        elif name != "verbosity":  # absl lowers its default when a program starts, once
            values[name].unparse()
    values.unparse_flags()
    logging.set_verbosity(logging.INFO)


def _exit_code(request: dict) -> int:
    """Runs a command as Python does: prints a text as exit code, and the trace of an exception."""
    code: object = 0
    try:
        _run(**request)
    except SystemExit as e:
        code = e.code
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


if __name__ == "__main__":
    _serve()
