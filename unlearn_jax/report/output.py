"""Where a report's pictures and files go. Sections draw a picture where they show it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd

from unlearn_jax.report.figures.style import RC, Made
from unlearn_jax.report.render import hover, picture, vector
from unlearn_jax.report.render.document import Figure, Plot
from unlearn_jax.report.tables.files import write_table
from unlearn_jax.system import disk


@dataclasses.dataclass(frozen=True)
class Output:
    """A folder to write to, or none.

    Attributes:
      workdir: gets the files, and the pictures in `figures/`. None: nothing is drawn or written,
        and the report holds texts and tables alone.
    """

    workdir: Path | None = None

    def draw(self, name: str, maker: Callable[..., Made | None], *args,
             values: bool = True) -> tuple[Figure, ...]:
        """Draws a picture and saves it as `figures/NAME.png`.

        Args:
          name: the file's name, without its ending.
          maker: gets `args` and returns the drawing, its alternative text and its caption, or
            None where there is nothing to draw.
          values: whether the page shows lines and text that a reader can point at, instead of the
            PNG file.

        Returns:
          The figure; empty where nothing was drawn.

        Raises:
          OSError: the file cannot be written.
          ReportError: from the maker, whose files are missing or malformed.
        """
        if self.workdir is None:
            return ()
        with matplotlib.rc_context(RC):
            made = maker(*args)
            if made is None:
                return ()
            canvas, alt, caption = made
            folder = self.workdir / "figures"
            folder.mkdir(exist_ok=True)
            picture.save(canvas, folder / f"{name}.png")
            plot = Plot(vector.render(canvas, name), hover.panels(canvas)) if values else None
        return (Figure(f"{name}.png", alt, caption, plot),)

    def write(self, name: str, content: str | pd.DataFrame) -> None:
        """Writes a text, or a table as CSV.

        Args:
          name: path within the folder.

        Raises:
          OSError: the file cannot be written.
        """
        if self.workdir is None:
            return
        path = self.workdir / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            disk.write_file(path, content)
        else:
            write_table(path, content)
