"""Commands of unlearn_jax as processes of their own, forked from one that has imported it.

An import takes about three seconds per process, as long as the training of a tiny network. The
forked process has not run anything, so a command has the same state as in a new process: no flags,
no devices, no compiled programs.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import quick_compiler

ROOT = Path(__file__).parent.parent
# One device, as for users; the compiler as in tests/conftest.py.
ENV = {**os.environ, "XLA_FLAGS": quick_compiler.FLAGS}


def run(arguments: list[str], timeout: float = 300, cwd: Path = ROOT,
        drawn: bool = False) -> subprocess.CompletedProcess:
    """Runs `python -m unlearn_jax...` with `ENV`.

    Args:
      arguments: the command line, from the interpreter on.
      timeout: seconds until the process is killed.
      cwd: its working directory; default: the root of the checkout.
      drawn: True to draw the report's figures; otherwise they are only made (tests/undrawn.py).

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
        line = json.dumps({"module": module, "arguments": rest, "paths": paths,
                           "timeout": timeout, "cwd": str(cwd), "drawn": drawn})
        template.stdin.write(line + "\n")
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
    import matplotlib.pyplot  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import undrawn  # noqa: F401

    import unlearn_jax.stages
    import unlearn_jax.startup  # noqa: F401

    gc.collect()
    gc.freeze()  # tracing makes much garbage: collections are rarer, without imported objects
    gc.set_threshold(50_000, 20, 20)
    replies = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.close(replies)
            _become(**request)
        os.write(replies, (json.dumps(_code(child, request["timeout"])) + "\n").encode())


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


def _become(module: str, arguments: list[str], paths: list[str], timeout: float,
            cwd: str, drawn: bool) -> None:
    """Runs a module like `python -m`, and ends the process, also after an exception."""
    import undrawn

    del timeout  # used by the process that waits for this one
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    sys.argv = [module, *arguments]
    os.chdir(cwd)
    sys.path[0] = cwd
    with contextlib.nullcontext() if drawn else undrawn.figures():
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve()
