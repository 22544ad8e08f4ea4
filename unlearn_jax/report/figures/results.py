"""The pictures of the report; those drawn from saved predictions stand in `samples.py`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from unlearn_jax.report.figures import reference, samples
from unlearn_jax.report.figures.style import (
    INK,
    QUIET,
    RC,
    axis_label,
    band,
    bars,
    canvas,
    foremost,
    label,
    legend,
    look,
    name_classes,
    name_height,
    of_classes,
    plain,
    shade,
)
from unlearn_jax.report.render import hover, picture, vector
from unlearn_jax.report.render.document import Figure, Plot
from unlearn_jax.report.sections import comparison, explained, headline, layers
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.stats import estimate
from unlearn_jax.report.thesis import figures

STUDY = ":study"  # in place of a forget set: no forget set has such a name
MOST_SETS = 5  # forget sets that get figures of their own


def draw_all(run: Run) -> Iterator[tuple[str | None, Figure]]:
    """Draws every figure into `figures/` and yields (forget set, figure).

    In place of a forget set None stands for the data, '' for the leaderboard of a comparison, and
    `STUDY` for the figures of the reference study.
    """
    folder = run.workdir / "figures"
    folder.mkdir(exist_ok=True)
    makers = (training, forgetting, reference.plane, layers.layers,
              *samples.makers(run),
              *(() if run.classification else (reference.agreement,)))
    with matplotlib.rc_context(RC):
        jobs = [(None, "labels-by-step", *histograms(run))] if run.data["histograms"] else []
        yield from _save(folder, jobs)
        if run.trials is not None:
            yield from _save(folder, (("", *made) for made in comparison.draw(run, MOST_SETS)))
        if run.arms:
            yield from _save(folder, ((STUDY, *made) for made in figures.draw(run)))
        for name in run.forget_sets[:MOST_SETS]:
            jobs = ((name, f"{kind}-{name}", figure, alt, caption)
                    for kind, figure, alt, caption in _make(run, name, makers))
            yield from _save(folder, jobs)
            yield from ((name, f) for f in explained.draw(run, name))


def _make(run: Run, forget_set: str, makers: Iterable) -> Iterator[tuple]:
    for maker in makers:
        made = maker(run, forget_set)
        if made is not None:
            yield maker.__name__.replace("_", "-"), *made


def _save(folder: Path, jobs: Iterable) -> Iterator[tuple[str | None, Figure]]:
    for forget_set, name, figure, alt, caption in jobs:
        picture.save(figure, folder / f"{name}.png")
        plot = Plot(vector.render(figure, name), hover.panels(figure))
        yield forget_set, Figure(f"{name}.png", alt, caption, plot)


def histograms(run: Run) -> tuple[Canvas, str, str]:
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
        for name in run.forget_sets[:MOST_SETS]:
            shade(run, ax, name, text=False, over=True)
    for ax in axes[-1]:
        ax.set_xlabel(axis_label(run))
    figure.supylabel("images", fontsize=9)
    shaded = [n for n in run.forget_sets[:MOST_SETS] if run.forget_range(n)]
    caption = f"How many images have each {run.label}, step by step of the data preparation."
    if shaded:
        caption += f" Shaded: forget set{'s' * (len(shaded) > 1)} {', '.join(shaded)}."
    if any(of_numbers):
        caption += " Before labels were grouped, panels count the labels themselves."
    return figure, f"Histograms of the {run.label} by step", caption


def training(run: Run, forget_set: str) -> tuple[Canvas, str, str] | None:
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
        axes[1, column].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend(axes[0, column], "inside")
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
    style = look(run, ModelKey(stage, budget))
    name = label(ModelKey(stage, 0)).split(",")[0]
    band(ax, table.index, table.mean(axis=1), table.min(axis=1), table.max(axis=1), style, 0.18,
         style.marker if len(table) < 3 else "", ms=4, label=name)
    if mark:
        best = rows[rows.best].sort_values("epoch").groupby("seed").last()
        [marks] = ax.plot(best.epoch, best[loss], style.marker, color=style.color, ms=5,
                          mec="white", mew=0.8, zorder=4)
        hover.note(marks, f"{name}, lowest", [f"seed {seed}" for seed in best.index])


def _loss_unit(run: Run) -> str:
    train = run.run["config"].get("train")
    name = train.get("loss") if isinstance(train, dict) else None
    if name == "mae":
        return plain(f" (MAE, {run.unit})")
    return f" ({plain(str(name))})" if name else ""


def forgetting(run: Run, forget_set: str) -> tuple[Canvas, str, str] | None:
    """Forgetting against alpha, with the band of the ceiling."""
    alphas = headline.alphas_of(run, forget_set)
    if not alphas:
        return None
    figure, axes = canvas(8.4, 4.4)
    ax = axes[0, 0]
    x = np.array([float(a) for a in alphas])
    for model in run.models(forget_set):
        values = [estimate(run.values(model, forget_set, f"forgetting@{a}")) for a in alphas]
        if not any(v.n for v in values):
            continue
        style = look(run, model)
        band(ax, x, *([getattr(v, part) for v in values] for part in ("mean", "low", "high")),
             style, 0.13, style.marker, ms=4.5, label=label(model))
    ceilings = [headline.ceiling(run, forget_set, a) for a in alphas]
    if all(c is not None and c.n for c in ceilings):
        low, high = ([getattr(c, end) if c.has_interval else c.mean for c in ceilings]
                     for end in ("low", "high"))
        ax.fill_between(x, low, high, color=QUIET, alpha=0.3, lw=0)
        [line] = ax.plot(x, [c.mean for c in ceilings], ":", color=INK,
                         label="ceiling: $M_\\mathrm{R}$ against $M_\\mathrm{R}$")
        hover.note(line, texts=hover.interval(low, high))
    if f"{run.alpha:g}" in alphas:
        ax.axvline(run.alpha, color=QUIET, lw=0.8, zorder=1)
    ax.set_ylim(top=1.02)
    ax.set_xlabel("α" if run.classification else plain(f"α ({run.unit})"))
    ax.set_ylabel("Forgetting (1: errs as $M_\\mathrm{R}$)")
    legend(ax)
    return figure, f"Forgetting against alpha, forget set {forget_set}", (
        "Forgetting = mean over D_f of exp(−|r − e| / α). Line: mean over seeds; band: 95 % "
        "interval, none with one seed; dotted with grey band: the ceiling, M_R against the M_R "
        "of other seeds. A model is worth something here where it lies above M_O; it may lie above "
        "the ceiling, as it is held against the M_R that started from the same weights. The "
        f"vertical line marks the α of the headline table, {run.alpha:g}.")
