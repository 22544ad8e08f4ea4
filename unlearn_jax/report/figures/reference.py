"""How near a model comes to M_R, sample by sample, and what that costs in utility."""

import numpy as np
from matplotlib.axes import Axes

from unlearn_jax.report.figures.samples import chosen, predictions
from unlearn_jax.report.figures.style import (
    INK,
    QUIET,
    Made,
    axis_label,
    canvas,
    drawn,
    foremost,
    grid_shape,
    label,
    legend,
    look,
    plain,
    title,
)
from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.forgetting import ceiling
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import describe
from unlearn_jax.report.tables.predictions import Prediction
from unlearn_jax.report.tables.stats import Estimate, estimate, estimate_metric

_DOTS = 150  # in a panel


def agreement(run: Run, forget_set: str) -> Made | None:
    """The predictions of each model on D_f against those of the M_R of the same seed."""
    models = drawn(run, forget_set)
    found = predictions(run, forget_set, "forget", models)
    reference = next((m for m in found if m.method == "retrain"), None)
    if reference is None:
        return None
    theirs = found.pop(reference)
    panels = [(model, _pairs(theirs, p)) for model, p in found.items()]
    panels = [(model, pairs) for model, pairs in panels if len(pairs)]
    if len(theirs.seeds) > 1:
        panels.append((reference, [(i, (i + 1) % len(theirs.seeds), theirs)
                                   for i in range(len(theirs.seeds))]))
    if not panels:
        return None
    rows, columns = grid_shape(len(panels))
    figure, axes = canvas(2.65 * columns + 0.5, 2.75 * rows + 0.3, rows, columns, sharex=True,
                          sharey=True)
    for ax in axes.flat[len(panels):]:
        ax.set_axis_off()
    for ax, (model, pairs) in zip(axes.flat, panels):
        _scatter(run, ax, theirs, model, pairs)
    ends = [ax.dataLim for ax in axes.flat if ax.has_data()]
    low, high = min(min(e.x0, e.y0) for e in ends), max(max(e.x1, e.y1) for e in ends)
    for ax in axes.flat[:len(panels)]:
        ax.plot([low, high], [low, high], color=INK, lw=0.8, zorder=1)
        ax.set_aspect("equal")
    figure.supxlabel(rf"{run.label} predicted by $M_\mathrm{{R}}$ " + plain(f"({run.unit})"),
                     fontsize=9)
    figure.supylabel(axis_label(run, "predicted "), fontsize=9)
    floor = ("; the last panel compares an M_R with the M_R of another seed, which no method can "
             "be expected to beat" if len(theirs.seeds) > 1 else "")
    return figure, f"Predictions on the forget set against M_R's, forget set {forget_set}", (
        f"Each dot is a sample of D_f and a seed: the prediction of M_R, and that of the model "
        f"(at most {_DOTS} dots, of random samples that are the same in each panel; methods at "
        f"their largest budget). On the line both predictions are equal; Δ is the mean distance "
        f"over all of D_f{floor}.")


def _pairs(theirs: Prediction, mine: Prediction) -> list[tuple[int, int, Prediction]]:
    """Rows of the same seed in M_R's and in a model's outputs."""
    own = {int(seed): i for i, seed in enumerate(mine.seeds)}
    return [(i, own[int(seed)], mine) for i, seed in enumerate(theirs.seeds) if int(seed) in own]


def _scatter(run: Run, ax: Axes, theirs: Prediction, model: ModelKey,
             pairs: list[tuple[int, int, Prediction]]) -> None:
    rows = chosen(theirs.ids)[:max(_DOTS // len(pairs), 1)]
    x = np.concatenate([theirs.outputs[i, rows] for i, _, _ in pairs])
    y = np.concatenate([p.outputs[j, rows] for _, j, p in pairs])
    apart = np.mean([np.abs(theirs.outputs[i] - p.outputs[j]).mean() for i, j, p in pairs])
    name = label(model) if model.method != "retrain" else r"$M_\mathrm{R}$ of another seed"
    style = look(run, model)
    dots = ax.scatter(x, y, s=9, color=style.color, alpha=0.55, lw=0)
    hover.note(dots, name, [f"true {run.label} {theirs.labels[row]:g}, seed {theirs.seeds[i]}"
                            for i, _, _ in pairs for row in rows])
    title(ax, model, style.color, name if model.method == "retrain" else "")
    ax.text(0.03, 0.97, plain(f"Δ {apart:.2f} {run.unit}"), transform=ax.transAxes, va="top",
            fontsize=8.5)


def plane(run: Run, forget_set: str) -> Made | None:
    """Utility and Forgetting of each budget, joined by method, between M_O and M_R.

    Forgetting across seeds, which the ceiling bounds, where there is a ceiling.
    """
    alpha, original = f"{run.alpha:g}", run.only(forget_set, "original")
    top = ceiling(run, forget_set, alpha)
    across = top is not None and top.n > 0 and _at(
        run, original, forget_set, f"forgetting_across@{alpha}") is not None
    metric = f"forgetting_across@{alpha}" if across else f"forgetting@{alpha}"
    start = _at(run, original, forget_set, metric)
    paths: dict[str, list[tuple[ModelKey, tuple[Estimate, Estimate]]]] = {}
    for model in foremost(run, forget_set):
        at = _at(run, model, forget_set, metric)
        if at:
            paths.setdefault(model.method, []).append((model, at))
    if original is None or not start or not paths or run.trials is not None:
        return None  # a comparison has such a picture of its own
    figure, axes = canvas(7.0, 4.4)
    ax = axes[0, 0]
    _cross(ax, [start], look(run, original), label(original))
    for points in paths.values():
        style = look(run, points[-1][0])  # the largest budget: not pale
        ax.plot([at[0].mean for at in (start, *(p[1] for p in points))],
                [at[1].mean for at in (start, *(p[1] for p in points))], style.line,
                color=style.color, lw=1, zorder=2)
        _cross(ax, [at for _, at in points], style, label(points[-1][0]).split(",")[0],
               [f"{model.epochs} epoch{'s' * (model.epochs != 1)}" for model, _ in points])
        for model, (x, y) in points:
            ax.annotate(str(model.epochs), (x.mean, y.mean), xytext=(5, 4), fontsize=7.5,
                        textcoords="offset points", color=INK)
    if across and top is not None:
        _cross(ax, [(estimate([1.0]), top)], look(run, run.reference(forget_set, "retrain")),
               r"$M_\mathrm{R}$: ceiling")
    _levels(ax)
    ax.set_xlabel("utility (1: as good on the test set as $M_\\mathrm{R}$)")
    ax.set_ylabel(f"{describe(run, metric).header} (1: errs as $M_\\mathrm{{R}}$)")
    legend(ax)
    target = (
        "Forgetting is against the M_Rs of other seeds, as the ceiling is. Unlearning should reach "
        "M_R's mark: the ceiling, at utility 1." if across else
        "Forgetting is against the M_R of the same seed; no ceiling is known to compare it with. "
        "Unlearning should go up, to utility 1.")
    return figure, f"Utility and Forgetting by budget, forget set {forget_set}", (
        f"{describe(run, metric).header} against utility: means over seeds with 95 % intervals, "
        "joined from M_O through the budgets, whose epochs stand beside the marks. Along a "
        "grey curve the product utility × Forgetting is constant; its value stands at the end. To "
        f"the right the product rises without any forgetting. {target}")


def _at(run: Run, model: ModelKey | None, forget_set: str,
        metric: str) -> tuple[Estimate, Estimate] | None:
    x, y = (estimate_metric(name, run.values(model, forget_set, name))
            for name in ("utility", metric))
    return (x, y) if x.n and y.n else None


def _cross(ax: Axes, points, style, name: str, texts: list[str] | None = None) -> None:
    """Marks with intervals both ways."""
    x, y = (np.array([p[k].mean for p in points]) for k in (0, 1))
    right, up = (np.nan_to_num([p[k].half for p in points]) for k in (0, 1))
    bars = ax.errorbar(x, y, up, right, fmt=style.marker, color=style.color, ms=6, elinewidth=0.8,
                       ls="", zorder=3, label=name)
    hover.note(bars, name, texts or [""] * len(points))


def _levels(ax: Axes) -> None:
    """Curves of equal products of x and y behind the points, named at their ends."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    left = max(0.0, left)
    low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)
    x = np.linspace(max(left, 1e-3), right, 60)
    for product in np.arange(0.1, 1.6, 0.1):
        y = product / x
        shown = (y >= low) & (y <= high)
        if shown.sum() > 3:
            ax.plot(x[shown], y[shown], color=QUIET, lw=0.6, alpha=0.6, zorder=0)
            # a curve ends on the right, or below
            below = y[shown][-1] < low + 0.05 * (high - low)
            ax.text(x[shown][-1], y[shown][-1], f" {product:.1f}", fontsize=7.5, color=QUIET,
                    va="bottom" if below else "center", clip_on=True)
    ax.set_xlim(left, right + 0.07 * (right - left))
    ax.set_ylim(low, high)
    ax.grid(False)
