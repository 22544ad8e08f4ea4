"""A report whose figures are not drawn names the same figures, and its page has their places."""

import re
import subprocess
import sys

import pytest
import undrawn
import warm
from browser import unpacked
from fake_workdir import write_workdir


def test_a_forked_command_does_not_draw_unless_it_is_told_to(tmp_path):
    """`test_stages.py` and others run commands that are told to."""
    workdir = write_workdir(tmp_path / "w", samples=5, seeds=(0,))
    done = warm.run([sys.executable, "-m", "unlearn_jax.report", str(workdir)])
    assert done.returncode == 0, done.stderr
    pictures = {p.name: p.stat().st_size for p in (workdir / "figures").iterdir()}
    assert len(pictures) >= 5 and max(pictures.values()) < 200
    text = (workdir / "report.md").read_text()
    assert all(f"figures/{name}" in text for name in pictures)
    page = unpacked((workdir / "report.html").read_text())
    drawings = re.findall('class="plot" viewBox=.*?</svg>', page, re.DOTALL)
    assert drawings and not any("<path" in svg for svg in drawings)


@pytest.mark.slow
def test_a_process_of_its_own_does_not_draw_if_its_path_says_so(tmp_path):
    workdir = write_workdir(tmp_path / "w", samples=5, seeds=(0,))
    done = subprocess.run([sys.executable, "-m", "unlearn_jax.report", str(workdir)],
                          cwd=warm.ROOT, env={**warm.ENV, "PYTHONPATH": undrawn.PATH},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [p.stat().st_size for p in (workdir / "figures").iterdir()]
    assert len(sizes) >= 5 and max(sizes) < 200
