"""A drawn figure as a file."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image

from unlearn_jax.system import disk

DPI = 120


def save(figure: Canvas, path: Path) -> None:
    """Writes a PNG of 256 colours: a third of the size, and the report carries every picture."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = picture.quantize(256, dither=Image.Dither.NONE)
    disk.write_file(path, lambda f: picture.save(f, "PNG", optimize=True, dpi=(DPI, DPI)))
