"""The look of all pictures: colours, lines, names and axes.

The colours are those of Okabe and Ito (Color Universal Design, 2008), which can be told apart with
the common kinds of colour blindness. Lines and markers differ too, for print in grey.
"""

import dataclasses
import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas

from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import model_symbol
from unlearn_jax.report.tables.stats import estimate

_NAMED = 20  # the most classes whose names a picture shows
_LONGEST, _ROOM = 16, 24  # most letters: of the name of a class, of all names side by side
MOST_METHODS = 6  # the most methods in a picture of single samples or of curves
MOST_LINES = 8  # the most curves in one picture
MOST_SETS = 5  # forget sets that get pictures of their own
INK, QUIET, SHADE = "#222222", "#737373", "#e69f00"
Made = tuple[Canvas, str, str]  # a drawing, its alternative text, its caption
# method: colour, line, marker
_LOOKS = {
    "original": ("#0072b2", "-", "o"),
    "retrain": ("#d55e00", "--", "s"),
    "ft": ("#009e73", "-", "^"),
    "rnd": ("#cc79a7", "-", "v"),
}
_FURTHER = (("#56b4e9", "-.", "D"), ("#8c6d00", "-.", "P"), ("#5d3a9b", "-.", "X"),
            ("#6b6b6b", "-.", "*"), ("#117733", "-.", "<"), ("#882255", "-.", ">"),
            ("#332288", "-.", "p"), ("#44aa99", "-.", "h"), ("#999933", "-.", "d"),
            ("#aa4499", "-.", "8"), ("#661100", "-.", "s"), ("#3d7ab8", "-.", "o"),
            ("#b8860b", "-.", "v"), ("#2f4f4f", "-.", "^"), ("#cc6677", "-.", "H"))

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#666666", "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e4e4e4", "grid.linewidth": 0.6, "legend.frameon": False,
    "legend.fontsize": 8.5, "xtick.color": "#444444", "ytick.color": "#444444",
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "axes.labelcolor": INK,
    "lines.linewidth": 1.5, "figure.facecolor": "white", "savefig.facecolor": "white",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How a model is drawn."""

    color: tuple[float, float, float]
    line: str
    marker: str


def look(run: Run, model: ModelKey) -> Look:
    """Colour, line and marker; smaller budgets of a method are paler."""
    others = [m for m in run.rank if m not in _LOOKS and m != "median"]
    color, line, marker = _LOOKS.get(model.method) or _FURTHER[
        others.index(model.method) % len(_FURTHER)]
    budgets = sorted({m.epochs for fs in run.forget_sets for m in run.unlearned(fs)
                      if m.method == model.method} | {model.epochs})
    strength = 1.0
    if len(budgets) > 1:
        strength = 0.45 + 0.55 * budgets.index(model.epochs) / (len(budgets) - 1)
    red, green, blue = (1 - strength * (1 - c) for c in to_rgb(color))
    return Look((red, green, blue), line, marker)


def label(model: ModelKey) -> str:
    """A legend entry with real subscripts."""
    name = model_symbol(model)
    head, comma, tail = name.partition(",")
    if not head.startswith("M_"):
        return plain(name)
    below = head.removeprefix("M_").replace("_", r"\_").replace("-", "{-}")
    return rf"$M_\mathrm{{{below}}}$" + comma + tail


def plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def foremost(run: Run, forget_set: str) -> list[ModelKey]:
    """The unlearned models; with many methods, those of the methods of highest Forgetting."""
    models = run.unlearned(forget_set)
    largest = {m.method: m for m in models}  # ascending budgets
    if len(largest) <= MOST_METHODS:
        return models
    reached = {name: estimate(run.values(m, forget_set, f"forgetting@{run.alpha:g}")).mean
               for name, m in largest.items()}
    # nan_to_num: a method that failed comes last
    best = sorted(reached, key=lambda name: -np.nan_to_num(reached[name], nan=-1))[:MOST_METHODS]
    return [m for m in models if m.method in best]


def drawn(run: Run, forget_set: str) -> list[ModelKey]:
    """M_O, M_R and each method at its largest budget: as many as fit into one picture."""
    largest = {m.method: m for m in foremost(run, forget_set)}  # ascending budgets
    return [m for m in run.models(forget_set)
            if m.method in ("original", "retrain") or largest.get(m.method) == m]


def curves(run: Run, forget_set: str) -> list[ModelKey]:
    """M_O, M_R and the unlearned models, or `drawn` where these are too many for one picture."""
    found = [m for m in run.models(forget_set) if m.method in ("original", "retrain")]
    found += foremost(run, forget_set)
    return found if len(found) <= MOST_LINES else drawn(run, forget_set)


def left_out(run: Run, forget_set: str) -> str:
    """A sentence for the caption of a picture of `curves` that does not show every budget."""
    every = run.unlearned(forget_set)
    if len({m.method for m in every}) == len(every) or set(every) <= set(curves(run, forget_set)):
        return ""
    return " Each method at its largest budget; the tables show all."


def within(ax: Axes, low: float = -np.inf, high: float = np.inf, along: str = "y") -> None:
    """Ends an axis where the values that are possible end, however far an interval reaches."""
    first, last = getattr(ax, f"get_{along}lim")()
    getattr(ax, f"set_{along}lim")(max(first, low), min(last, high))


def title(ax: Axes, model: ModelKey, color, name: str = "") -> None:
    """The name of a panel's model, without its budget and small enough for the panel."""
    name = name or label(model).partition(",")[0]
    letters = len(re.sub(r"\\mathrm|[${}\\]", "", name))
    ax.set_title(name, color=color, fontsize=min(9.5, 9.5 * 24 / max(letters, 1)))


def axis_label(run: Run, what: str = "") -> str:
    name = f"{what}{run.label}"
    return name if run.classification else plain(f"{name} ({run.unit})")


def canvas(width: float, height: float, rows: int = 1, columns: int = 1,
           **options) -> tuple[Canvas, np.ndarray]:
    """A figure in inches with a grid of axes `[rows, columns]`, without pyplot's globals."""
    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def band(ax: Axes, x, middle, low, high, style: Look, shade: float = 0.15, marker: str = "",
         **options) -> None:
    """A line with its band; the page shows the ends of the band when the line is pointed at.

    Args:
      x, middle, low, high: `[n]`.
      shade: opacity of the band.
      options: for the line.
    """
    [line] = ax.plot(x, middle, style.line, color=style.color, marker=marker, **options)
    ax.fill_between(x, low, high, color=style.color, alpha=shade, lw=0)
    hover.note(line, texts=hover.interval(low, high))


def legend(ax: Axes, place: str = "below", columns: int = 4) -> None:
    """A legend at a place where it hides nothing; none if nothing was drawn.

    Args:
      place: 'below' the whole figure, or 'above' the axes (left or 'above right').
      columns: at most so many names side by side.
    """
    handles, names = ax.get_legend_handles_labels()
    if not handles:
        return
    if place == "below":
        ax.figure.legend(handles, names, loc="outside lower center",
                         ncols=min(len(names), columns))
    else:
        right = place == "above right"
        ax.legend(ncols=columns, loc="lower right" if right else "lower left",
                  bbox_to_anchor=(float(right), 1), borderaxespad=0.15)


def shade(run: Run, ax: Axes, forget_set: str, text: bool = True, over: bool = False) -> None:
    """Shades the forget set's labels along x, where it is a range of labels or a class.

    Args:
      text: whether the shade gets an entry in the legend.
      over: whether the shade lies in front, as bars would hide it.
    """
    ends = run.forget_range(forget_set)
    if ends:
        ax.axvspan(ends[0] - 0.5, ends[1] + 0.5, color=SHADE, alpha=0.35 if over else 0.16, lw=0,
                   zorder=3 if over else 0,
                   label=f"forget set {plain(forget_set)}" if text else None)


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for some equal panels, at most three to a row."""
    columns = {0: 1, 4: 2}.get(count, min(count, 3))
    return max(-(-count // columns), 1), columns


def of_classes(run: Run, counts: dict[str, int]) -> bool:
    """Whether a histogram in data.json counts classes.

    Before labels are grouped (`data.groups`), a step counts numbers such as ages.
    """
    classes = len(run.data["class_names"])
    return run.classification and all(k.isdecimal() and int(k) < classes for k in counts)


def name_classes(run: Run, *axes: Axis, most: int = _NAMED) -> None:
    """Names the classes along axes whose positions are their numbers, if there is room."""
    names = _shown_names(run, most)
    for axis in axes if names else ():
        axis.set_ticks(np.arange(len(names)), names)
        if isinstance(axis, XAxis) and name_height(run, most):
            axis.set_tick_params(rotation=90)


def name_height(run: Run, most: int = _NAMED) -> float:
    """The height in inches that the names of classes need below an axis; 0 if not rotated."""
    names = _shown_names(run, most)
    longest = max(map(len, names), default=0)
    return 0.07 * longest if len(names) * longest > _ROOM else 0


def _shown_names(run: Run, most: int) -> list[str]:
    names = run.data["class_names"]
    if not run.classification or len(names) > most:
        return []
    return [plain(n if len(n) <= _LONGEST else f"{n[:_LONGEST - 1]}…") for n in names]


def bars(run: Run, counts: dict[str, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions, heights and width of the bars of a histogram in data.json."""
    if of_classes(run, counts):
        return np.array([int(k) for k in counts]), np.array(list(counts.values())), 0.8
    at = np.array([float(k) for k in counts])
    heights = np.array(list(counts.values()))
    if len(at) > 150:
        heights, edges = np.histogram(at, bins=60, weights=heights)
        return (edges[:-1] + edges[1:]) / 2, heights, edges[1] - edges[0]
    gaps = np.diff(np.unique(at))
    return at, heights, gaps.min() if len(gaps) else 1.0
