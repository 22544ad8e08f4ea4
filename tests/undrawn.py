"""Figures that are made and not drawn: drawing takes about half of the time of a tiny run.

`tests/test_report_figures.py` and its neighbours draw each kind of figure, and one run of each
kind draws the figures of real models. Other tests and the commands that they run make the same
figures, but their files hold one pixel.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from matplotlib.figure import Figure as Canvas
from PIL import Image

from unlearn_jax.report.output import Output
from unlearn_jax.report.render import picture, vector
from unlearn_jax.system import disk

_SAVE, _RENDER = picture.save, vector.render
_HERE = Path(__file__).parent
# PYTHONPATH of the processes that a test starts and of their children; their reports are not drawn
# either; see at_start/sitecustomize.py.
PATH = os.pathsep.join((str(_HERE / "at_start"), str(_HERE)))


@contextlib.contextmanager
def figures() -> Iterator[None]:
    """Within it the report's pictures are files of one pixel, and its vector drawings are empty."""
    with mock.patch.object(picture, "save", _save), mock.patch.object(vector, "render", _render):
        yield


def none() -> contextlib.AbstractContextManager:
    """Within it a report has no figures at all."""
    return mock.patch.object(Output, "draw", lambda *args, **kwargs: ())


@contextlib.contextmanager
def drawn_again(files: bool = True) -> Iterator[None]:
    """Within it the report draws its figures, also within `figures`.

    Args:
      files: False for the drawings of the page alone, without the pictures in files.
    """
    with mock.patch.object(picture, "save", _SAVE if files else _save), \
            mock.patch.object(vector, "render", _RENDER):
        yield


# How the figures of a command's report may be; see `warm.run`.
FIGURES = {"made": figures, "drawn": contextlib.nullcontext, "none": none}


def _save(figure: Canvas, path: Path) -> None:
    del figure
    disk.write_file(path, lambda f: Image.new("P", (1, 1)).save(f, "PNG"))


def _render(figure: Canvas, name: str) -> str:
    del name
    width, height = figure.get_size_inches() * 72
    return f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" style="--w:{width:g}"></svg>'
