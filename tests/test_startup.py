"""How a program ends where a user's files, names or wishes are in the way: one line, not 0."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unlearn_jax.startup import run

ROOT = Path(__file__).parents[1]


def ending(program):
    with pytest.raises(SystemExit) as e:
        run(program)
    return str(e.value)


def test_what_does_not_fit_into_memory_is_said_in_a_line():
    said = ending(lambda: np.zeros(2**60, np.uint8))
    assert said.startswith("unlearn_jax: not enough memory (Unable to allocate")
    assert len(said.splitlines()) == 1


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in ((tmp_path / "file" / "x", "Not a directory"),
                         (tmp_path / ("n" * 300), "File name too long"), (tmp_path, "Is a direc")):
        said = ending(lambda path=path: path.write_text(""))
        assert said.startswith(f"unlearn_jax: {path} cannot be used: {reason}")
        assert len(said.splitlines()) == 1


def test_other_errors_keep_their_traceback():
    for error in (OSError(errno.EIO, "Input/output error", "x"), OSError(errno.EACCES, "no"),
                  KeyError("x")):
        def fail(error=error):
            raise error

        with pytest.raises(type(error)):
            run(fail)


def test_a_study_starts_without_what_its_report_or_few_studies_need():
    late = {"sklearn", "scipy.stats", "scipy.optimize", "pandas", "matplotlib"}
    code = ("import sys, unlearn_jax.main, unlearn_jax.audits; "
            f"print(sorted({late} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr
