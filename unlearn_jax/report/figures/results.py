"""The pictures of labels, of training and of Forgetting by α."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unlearn_jax.report.figures import style
from unlearn_jax.report.figures.style import (
    INK,
    QUIET,
    Made,
    axis_label,
    band,
    bars,
    canvas,
    curves,
    foremost,
    label,
    left_out,
    legend,
    look,
    name_classes,
    name_height,
    of_classes,
    plain,
    shade,
    within,
)
from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.forgetting import alphas_of, ceiling
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.stats import estimate


def histograms(run: Run) -> Made:
    """Labels by step, one panel each, over one label axis."""
    steps = run.data["histograms"]
    columns = 2 if len(steps) > 1 else 1
    rows = -(-len(steps) // columns)
    of_numbers = [run.classification and not of_classes(run, counts) for counts in steps.values()]
    shared = len(set(of_numbers)) == 1
    named = rows if not shared else min(rows, 1 + len(steps) % columns)  # rows with labels below
    figure, axes = canvas(8.4, 0.9 + (1.25 if shared else 1.6) * rows + named * name_height(run),
                          rows, columns, sharex=shared)
    for ax in axes.flat[len(steps):]:
        ax.set_axis_off()
    for ax in axes.T[-1, :-1][-1:] if len(steps) % columns else ():
        ax.tick_params(labelbottom=True)  # the panel below it is empty
    for ax, ungrouped, (step, counts) in zip(axes.flat, of_numbers, steps.items()):
        positions, heights, width = bars(run, counts)
        # an edge of the same colour closes the seams between bars that touch
        drawn = ax.bar(positions, heights, width, color="#777777", ec="#777777", lw=0.4)
        hover.note(drawn, plain(step))
        ax.set_title(f"{plain(step)}: {sum(counts.values()):,} images")
        ax.grid(axis="x", visible=False)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        if ungrouped:
            continue  # the forget sets are of classes
        name_classes(run, ax.xaxis)
        for name in run.forget_sets[:style.MOST_SETS]:
            shade(run, ax, name, text=False, over=True)
    for ax in axes[-1]:
        ax.set_xlabel(axis_label(run))
    figure.supylabel("images", fontsize=9)
    shaded = [n for n in run.forget_sets[:style.MOST_SETS] if run.forget_range(n)]
    caption = f"How many images have each {run.label}, step by step of the data preparation."
    if shaded:
        caption += f" Shaded: forget set{'s' * (len(shaded) > 1)} {', '.join(shaded)}."
    if any(of_numbers):
        caption += " Before labels were grouped, panels count the labels themselves."
    return figure, f"Histograms of the {run.label} by step", caption


def training(run: Run, forget_set: str) -> Made | None:
    """Losses by epoch: training from scratch on the left, unlearning on the right."""
    if run.history is None:
        return None
    rows = run.history[run.history.forget_set.isin(["", forget_set])]
    scratch = [s for s in ("original", "retrain") if (rows.stage == s).any()]
    later = [s for s in dict.fromkeys(m.method for m in foremost(run, forget_set))
             if (rows.stage == s).any()]
    groups = [g for g in (scratch, later) if g]
    if not groups:
        return None
    figure, axes = canvas(8.4, 4.6, 2, len(groups), sharex="col",
                          width_ratios=[3, 2][:len(groups)])
    for column, group in enumerate(groups):
        for row, loss in enumerate(("train_loss", "validation_loss")):
            for stage in group:
                _curve(run, axes[row, column], rows[rows.stage == stage], stage, loss,
                       mark=group is scratch and loss == "validation_loss")
            if not axes[row, column].has_data():
                axes[row, column].text(0.5, 0.5, "not measured", ha="center", va="center",
                                       color=QUIET, transform=axes[row, column].transAxes)
                axes[row, column].set_yticks([])
        axes[1, column].set_xlabel("epoch of training" if group is scratch
                                   else "epoch of unlearning")
        axes[1, column].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        last = rows.epoch[rows.stage.isin(group)].max()
        axes[1, column].set_xlim(0.5, last + 0.5)
        legend(axes[0, column], "above", columns=2)
        for ax in axes[:, column]:
            within(ax, low=0)
    unit = _loss_unit(run)
    axes[0, 0].set_ylabel(f"training loss{unit}")
    axes[1, 0].set_ylabel(f"validation loss{unit}")
    return figure, f"Training curves, forget set {forget_set}", (
        "Loss by epoch. Line: mean over the seeds that still train; band: smallest to largest "
        "seed; marks: the epoch of lowest validation loss of each seed, whose weights are kept. "
        "Losses that are not finite are left out. The scales of left and right differ.")


def _curve(run: Run, ax: Axes, rows: pd.DataFrame, stage: str, loss: str, mark: bool) -> None:
    """One line with its band; `mark` adds each seed's best epoch."""
    table = rows.pivot_table(index="epoch", columns="seed", values=loss)
    table = table.where(np.isfinite(table)).dropna(how="all")
    if table.empty:
        return
    budget = max([m.epochs for fs in run.forget_sets for m in run.models(fs)
                  if m.method == stage], default=0)
    shape = look(run, ModelKey(stage, budget))
    name = label(ModelKey(stage, 0)).split(",")[0]
    band(ax, table.index, table.mean(axis=1), table.min(axis=1), table.max(axis=1), shape, 0.18,
         shape.marker if len(table) < 3 else "", ms=4, label=name)
    if mark:
        best = rows[rows.best].sort_values("epoch").groupby("seed").last()
        [marks] = ax.plot(best.epoch, best[loss], shape.marker, color=shape.color, ms=5,
                          mec="white", mew=0.8, zorder=4)
        hover.note(marks, f"{name}, lowest", [f"seed {seed}" for seed in best.index])


def _loss_unit(run: Run) -> str:
    train = run.run["config"].get("train")
    name = train.get("loss") if isinstance(train, dict) else None
    if name == "mae":
        return plain(f" (MAE, {run.unit})")
    return f" ({plain(str(name))})" if name else ""


def forgetting(run: Run, forget_set: str) -> Made | None:
    """Forgetting against alpha, with the band of the ceiling."""
    alphas = alphas_of(run, forget_set)
    if not alphas:
        return None
    figure, axes = canvas(8.4, 4.4)
    ax = axes[0, 0]
    x = np.array([float(a) for a in alphas])
    for model in curves(run, forget_set):
        values = [estimate(run.values(model, forget_set, f"forgetting@{a}")) for a in alphas]
        if not any(v.n for v in values):
            continue
        shape = look(run, model)
        band(ax, x, [v.mean for v in values], [v.low for v in values], [v.high for v in values],
             shape, 0.13, shape.marker, ms=4.5, label=label(model))
    ceilings = [c for a in alphas if (c := ceiling(run, forget_set, a)) is not None and c.n]
    if len(ceilings) == len(alphas):
        low, high = ([getattr(c, end) if c.has_interval else c.mean for c in ceilings]
                     for end in ("low", "high"))
        ax.fill_between(x, low, high, color=QUIET, alpha=0.3, lw=0)
        [line] = ax.plot(x, [c.mean for c in ceilings], ":", color=INK,
                         label="ceiling: $M_\\mathrm{R}$ against $M_\\mathrm{R}$")
        hover.note(line, texts=hover.interval(low, high))
    if f"{run.alpha:g}" in alphas:
        ax.axvline(run.alpha, color=QUIET, lw=0.8, zorder=1)
    within(ax, 0, 1)
    ax.set_xlabel("α" if run.classification else plain(f"α ({run.unit})"))
    ax.set_ylabel("Forgetting (1: errs as $M_\\mathrm{R}$)")
    legend(ax)
    return figure, f"Forgetting against alpha, forget set {forget_set}", (
        "Forgetting = mean over D_f of exp(−|r − e| / α). Line: mean over seeds; band: 95 % "
        "interval, none with one seed; dotted with grey band: the ceiling, M_R against the M_R "
        "of other seeds. Unlearning has an effect where a model lies above M_O. A model may lie "
        "above the ceiling, because it is compared with the M_R that started from the same "
        f"weights. The vertical line marks the α of the headline table, {run.alpha:g}."
        + left_out(run, forget_set))
