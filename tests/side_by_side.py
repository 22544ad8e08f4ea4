"""Python processes that run at the same time, forked from one that has imported everything.

    python -m side_by_side PROCESSES

PROCESSES is a JSON list of `{"line": [...], "environment": {...}, "said": FILE}`; `line` is what
follows `python`: a script and its arguments, or `-m`, a module and its arguments. `warm.run` starts
this program, so that no process of a test imports JAX again.
"""

import ctypes
import json
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

import warm

HERE = Path(__file__).parent


def run(*lines: list[str], environments: tuple[dict[str, str], ...] = (),
        timeout: float = 300) -> tuple[list[int], list[str]]:
    """Runs processes side by side, with one device each, as for users.

    Args:
      lines: what follows `python` in the command of each process.
      environments: variables of each process, beside those of `warm.ENV`.
      timeout: seconds until all of them must have ended.

    Returns:
      the exit codes, -N after signal N, and what each process wrote to stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as directory:
        said = [Path(directory) / str(i) for i in range(len(lines))]
        processes = [{"line": line, "environment": env, "said": str(path)} for line, env, path
                     in zip(lines, environments or ({},) * len(lines), said, strict=True)]
        done = warm.run([sys.executable, "-m", "side_by_side", json.dumps(processes)], timeout,
                        cwd=HERE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), [path.read_text() for path in said]


def _become(line: list[str], environment: dict[str, str], said: str) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent, which may be killed: late
    file = os.open(said, os.O_WRONLY | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ.update(environment)
    os.chdir(warm.ROOT)
    if line[0] == "-m":
        sys.argv = line[1:]
        sys.path[0] = str(warm.ROOT)
        runpy.run_module(line[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = line
        sys.path[0] = str(Path(line[0]).parent)
        runpy.run_path(line[0], run_name="__main__")


def _main() -> None:
    children = []
    for process in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            _become(**process)
            return
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))


if __name__ == "__main__":
    _main()
