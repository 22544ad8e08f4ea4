"""Log lines: the time, a letter for warnings, the text; the first one comes before any import."""

import io
import re
import subprocess
import sys

import pytest
from absl import logging
from warm import ROOT

from unlearn_jax.system import log_lines


@pytest.fixture
def lines():
    """Lets absl write into a text; puts its own form and stream back."""
    handler = logging.get_absl_handler()
    python = handler.python_handler
    formatter, stream = python.formatter, python.stream
    python.stream = io.StringIO()
    log_lines.install()
    yield lambda: python.stream.getvalue().splitlines()
    handler.setFormatter(formatter)
    python.stream = stream


def record(level, text, *values, info=None):
    handler = logging.get_absl_handler().python_handler
    handler.stream.write(handler.format(logging.get_absl_logger().makeRecord(
        "absl", level, "file.py", 3, text, values, info)) + "\n")


def test_time_letter_and_text(lines):
    record(20, "ft: %d images", 12)
    record(30, "one thing")
    record(40, "another")
    record(50, "the end")
    found = lines()
    assert [line[8:] for line in found] == [
        " ft: 12 images", " W one thing", " E another", " F the end"]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d .*", line) for line in found)


def test_an_exception_keeps_its_traceback(lines):
    try:
        raise ValueError("no")
    except ValueError:
        record(40, "failed", info=sys.exc_info())
    assert lines()[-1] == "ValueError: no" and "Traceback" in lines()[1]


STOP = """
import runpy
import sys


class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in ("jax", "numpy", "flax", "matplotlib", "absl", "pandas"):
            sys.exit(f"imported {name}")


sys.meta_path.insert(0, Stop())
sys.argv = ["main", "--config=configs/ft.py"]
runpy.run_module("unlearn_jax.main", run_name="__main__", alter_sys=True)
"""


def test_the_first_line_comes_before_the_imports_that_take_seconds():
    done = subprocess.run([sys.executable, "-c", STOP], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    first, second = done.stderr.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d unlearn_jax starts; .*", first)
    assert second.startswith("imported ")
