"""The pictures of the leaderboard: what methods reach, against what they cost."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from unlearn_jax.report.figures.style import INK, QUIET, Made, canvas, look, plain, within
from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.leaderboard import CEILING, UNTOUCHED, Board
from unlearn_jax.report.tables.names import describe
from unlearn_jax.report.tables.stats import estimate, pareto

_COSTS = ("images_vs_retrain", "wall_vs_retrain", "flops_vs_retrain")


def cost(run: Run, board: Board) -> Made:
    """F against each kind of cost."""
    metric = describe(run, f"F@{run.alpha:g}")
    figure, axes = canvas(8.4, 4.6, 1, len(_COSTS), sharey=True)
    for ax, name in zip(axes[0], _COSTS):
        _points(run, ax, board, name, metric.name)
        _line(ax, _mean(board, CEILING, metric.name), "--", "ceiling: $M_\\mathrm{R}$")
        _line(ax, _mean(board, UNTOUCHED, metric.name), ":", "$M_\\mathrm{O}$, untouched")
        ax.set_xlabel(plain(describe(run, name).header.replace("M_R", "retraining")))
        ax.margins(x=0.15)
        ax.set_xlim(left=0)
        within(ax, low=0)
    axes[0, 0].set_ylabel(metric.header)
    _shared_legend(axes[0, 0])
    return figure, f"F against cost, {board.title.lower()}", (
        f"{metric.header} against what a method cost, in % of retraining: mean over seeds with "
        "95 % intervals, numbered by rank. The line joins the methods that no other method "
        "beats in cost and in F at once.")


def utility(run: Run, board: Board) -> Made:
    """Forgetting against utility."""
    metric = describe(run, f"forgetting@{run.alpha:g}")
    figure, axes = canvas(8.4, 5.4)
    ax = axes[0, 0]
    _points(run, ax, board, "utility", metric.name, cheap=False)
    for method in (CEILING, UNTOUCHED):
        row = next(r for r in board.rows if r.method == method)
        style = look(run, leaderboard.model(run, method, board.forget_sets[0]))
        x, y = row.values["utility"].mean, row.values[metric.name].mean
        if np.isfinite([x, y]).all():
            ax.plot(x, y, style.marker, color=style.color, ms=8, ls="", zorder=4, label=(
                "ceiling: $M_\\mathrm{R}$" if method == CEILING else "$M_\\mathrm{O}$, untouched"))
    within(ax, 0, 1)
    within(ax, low=0, along="x")
    ax.set_xlabel("utility (1: as good on the test set as $M_\\mathrm{R}$)")
    ax.set_ylabel(f"{metric.header} (1: errs as $M_\\mathrm{{R}}$)")
    _shared_legend(ax)
    return figure, f"Forgetting against utility, {board.title.lower()}", (
        f"{metric.header} against utility: mean over seeds with 95 % intervals, numbered by rank. "
        "The line joins the methods that no other method beats in both.")


def _points(run: Run, ax: Axes, board: Board, x_name: str, y_name: str, cheap: bool = True) -> None:
    """One point per method, and the front; `cheap`: less of x is better."""
    rows = [r for r in board.rows if r.rank is not None]
    scale = 100 if x_name in _COSTS else 1
    x = np.array([r.values[x_name].mean for r in rows]) * scale
    y = np.array([r.values[y_name].mean for r in rows])
    for row, at, height in zip(rows, x, y):
        if not np.isfinite([at, height]).all():
            continue
        style = look(run, leaderboard.model(run, row.method, board.forget_sets[0]))
        half_x, half_y = row.values[x_name].half * scale, row.values[y_name].half
        ax.errorbar(at, height, np.nan_to_num(half_y), np.nan_to_num(half_x), fmt=style.marker,
                    color=style.color, ms=5.5, elinewidth=0.8, alpha=0.9,
                    label=plain(f"{row.rank} {row.method}{'' if row.within else ' *'}"))
        ax.annotate(str(row.rank), (at, height), xytext=(4, 4), textcoords="offset points",
                    fontsize=7.5, color=INK)
    front = pareto(x if cheap else -x, y)
    order = np.argsort(x[front])
    ax.plot(x[front][order], y[front][order], "-", color=QUIET, lw=1, zorder=1)


def _line(ax: Axes, height: float, line: str, text: str) -> None:
    if np.isfinite(height):
        ax.axhline(height, color=INK, lw=1, ls=line, zorder=1, label=text)


def _mean(board: Board, method: str, metric: str) -> float:
    row = next(r for r in board.rows if r.method == method)
    return row.values.get(metric, estimate([])).mean


def _shared_legend(ax: Axes) -> None:
    """Below the figure, without the bars of the intervals."""
    handles, names = ax.get_legend_handles_labels()
    if handles:
        shown = [h[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
        ax.figure.legend(shown, names, loc="outside lower center", ncols=6)
