"""The values of a drawn figure and their positions, for pointing at them in the page."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator

from unlearn_jax.report.render.document import Panel, Point, Series

MOST_POINTS = 250  # of one line; a reader cannot tell more apart


def note(artist, name: str = "", texts: Sequence[str] = ()) -> None:
    """Gives an artist a name and texts that it does not have by itself.

    Args:
      artist: a line, bars, error bars, a scatter, a mesh or hexagons.
      name: by default the label in the legend. An artist without a name and a label cannot be
        pointed at.
      texts: one for each point, shown below the values, such as an interval.
    """
    artist.unlearn_jax_note = name, tuple(texts)


def _note(artist) -> tuple[str, tuple[str, ...]]:
    return getattr(artist, "unlearn_jax_note", ("", ()))


def panels(figure: Canvas) -> tuple[Panel, ...]:
    """The values that can be pointed at, for each axes of a figure.

    Args:
      figure: drawn; positions are in points of 1/72 inch from its upper left corner.
    """
    found = []
    for ax in figure.axes:
        if ax.get_label() == "<colorbar>":
            continue
        series = tuple(s for s in _all_series(figure, ax) if s.points)
        if series:
            found.append(Panel(ax.get_title() or ax.get_title("left"), _label(figure, ax, "x"),
                               _label(figure, ax, "y"), series))
    return tuple(found)


def interval(low: Sequence[float], high: Sequence[float], form: str = ".3g") -> list[str]:
    """Texts for `note`: `0.61 to 0.64`, empty where there is no interval."""
    return [f"{a:{form}} to {b:{form}}" if np.isfinite([a, b]).all() else ""
            for a, b in zip(low, high)]


def _all_series(figure: Canvas, ax: Axes) -> Iterator[Series]:
    inner = {artist for c in ax.containers if isinstance(c, ErrorbarContainer) for artist in c[:1]}
    for line in ax.lines:
        if line not in inner and _name(line):
            yield _series(figure, ax, line, line.get_xydata(), line.get_color())
    for container in ax.containers:
        if isinstance(container, ErrorbarContainer) and container[0] and _name(container):
            yield _series(figure, ax, container, container[0].get_xydata(),
                          container[0].get_color())
        elif isinstance(container, BarContainer):
            yield _bars(figure, ax, container)
    for collection in ax.collections:
        if not _name(collection):
            continue
        if isinstance(collection, QuadMesh):
            yield _cells(figure, ax, collection)
        elif isinstance(collection, PathCollection):
            yield _series(figure, ax, collection, collection.get_offsets(),
                          collection.get_facecolor()[0])


def _series(figure: Canvas, ax: Axes, artist, xy, color) -> Series:
    """Points at data coordinates `[n, 2]`."""
    xy = np.asarray(np.ma.filled(np.ma.asarray(xy, float), np.nan))
    texts = _note(artist)[1]
    # beyond that every k-th, as a line of thousands of points has as many pixels at most
    step = max(1, -(-len(xy) // MOST_POINTS))
    points = []
    for i in range(0, len(xy), step):
        if np.isfinite(xy[i]).all():
            x, y = xy[i]
            points.append(Point(*_place(figure, ax, x, y), _value(ax.xaxis, x),
                                _value(ax.yaxis, y), texts[i] if i < len(texts) else ""))
    return Series(_name(artist), to_hex(color), tuple(points))


def _bars(figure: Canvas, ax: Axes, container: BarContainer) -> Series:
    _, texts = _note(container)
    across = container.orientation == "horizontal"
    points = []
    values = np.asarray(container.datavalues, float)
    for i, (patch, value) in enumerate(zip(container.patches, values)):
        x, y, w, h = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
        at = (x + w, y + h / 2) if across else (x + w / 2, y + h)
        names = (f"{value:,.6g}", _value(ax.yaxis, at[1])) if across else (
            _value(ax.xaxis, at[0]), f"{value:,.6g}")
        points.append(Point(*_place(figure, ax, *at), *names, texts[i] if i < len(texts) else ""))
    color = container.patches[0].get_facecolor() if container.patches else "#777777"
    return Series(_name(container), to_hex(color), tuple(points))


def _cells(figure: Canvas, ax: Axes, mesh: QuadMesh) -> Series:
    corners = np.asarray(mesh.get_coordinates(), float)
    values: np.ndarray = np.ma.filled(np.ma.asarray(mesh.get_array(), float), np.nan)
    centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    points = []
    for at, value in zip(centres.reshape(-1, 2), values.ravel()):
        text = f"{value:.3g}" if np.isfinite(value) else "none"
        points.append(Point(*_place(figure, ax, *at), _value(ax.xaxis, at[0]),
                            _value(ax.yaxis, at[1]), text))
    return Series(_name(mesh), "#777777", tuple(points))


def _place(figure: Canvas, ax: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = ax.transData.transform((x, y)) * 72 / figure.dpi
    return round(float(across), 1), round(float(figure.get_figheight() * 72 - up), 1)


def _name(artist) -> str:
    own = _note(artist)[0]
    label = str(artist.get_label())
    return own or ("" if label.startswith("_") else label)


def _value(axis: Axis, value: float) -> str:
    """A coordinate as the axis names it, or as a number."""
    if isinstance(axis.get_major_locator(), FixedLocator):
        ticks = axis.get_majorticklocs()
        nearest = int(np.argmin(np.abs(ticks - value))) if len(ticks) else 0
        if len(ticks) and abs(ticks[nearest] - value) <= 0.5:
            return axis.get_major_formatter()(ticks[nearest], nearest)
    return f"{value:.4g}".replace("-", "−")


def _label(figure: Canvas, ax: Axes, which: str) -> str:
    """The axis' label: its own, that of the axes it shares it with, or the figure's."""
    own = getattr(ax, f"get_{which}label")()
    if own:
        return own
    shared = getattr(ax, f"get_shared_{which}_axes")().get_siblings(ax)
    found = [text for other in shared if (text := getattr(other, f"get_{which}label")())]
    return found[0] if found else getattr(figure, f"get_sup{which}label")()
