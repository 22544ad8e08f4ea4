"""The pictures drawn from saved predictions: errors sample by sample, and by label."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from unlearn_jax.errors import ReportError
from unlearn_jax.report.figures.style import (
    INK,
    SHADE,
    Made,
    axis_label,
    band,
    bars,
    canvas,
    curves,
    drawn,
    foremost,
    grid_shape,
    label,
    left_out,
    legend,
    look,
    name_classes,
    name_height,
    plain,
    shade,
    title,
)
from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.predictions import Prediction

SAMPLES = 100  # drawn one by one
_FEW = 40  # of them where all models share a panel
_SPLIT_TITLES = {"forget": "forget set $D_f$", "test": "test set"}


def predictions(run: Run, forget_set: str, split: str,
                models: list[ModelKey]) -> dict[ModelKey, Prediction]:
    """The predictions of finite members on one split; a model without any is left out.

    Raises:
      ReportError: a file is missing or malformed, or two models saw other samples.
    """
    found = {m: run.prediction(m, forget_set, split) for m in models}
    first, *others = found
    for model in others:
        if not np.array_equal(found[first].ids, found[model].ids):
            raise ReportError(
                f"predictions of {first.method} and {model.method} on {forget_set}, split "
                f"{split}: the array 'ids' differs; both must list the same samples in order")
    return {m: p.finite for m, p in found.items() if len(p.finite.seeds)}


def chosen(ids: np.ndarray) -> np.ndarray:
    """Rows of the samples that are drawn one by one: random, the same for the same ids."""
    if len(ids) <= SAMPLES:
        return np.argsort(ids, kind="stable")
    order = np.argsort(ids, kind="stable")  # not by row: another order draws the same samples
    return order[np.random.default_rng(0).choice(len(ids), SAMPLES, replace=False)]


def balance(run: Run, forget_set: str) -> Made | None:
    """The training set before and after balancing, and the forget set within it."""
    before, after = (run.data["histograms"].get(s) for s in ("train", "balanced"))
    if not before:
        return None
    if after == before:
        after = None  # no balancing was asked for
    figure, axes = canvas(7.0, 2.9 + name_height(run))
    ax = axes[0, 0]
    if after:
        at, heights, width = bars(run, after)
        ax.bar(at, heights, width, color="#d4d4d4", lw=0, label="after balancing")
    at, heights, width = bars(run, before)
    ax.bar(at, heights, width, color="#7d7d7d", lw=0,
           label="before balancing" if after else "training set")
    of = run.only(forget_set, "original") or drawn(run, forget_set)[0]
    labels = run.prediction(of, forget_set, "forget").labels
    counts = {f"{v:g}": int(n) for v, n in zip(*np.unique(labels, return_counts=True))}
    if run.classification or len(counts) <= 150:
        at = np.array([float(k) for k in counts])
        # an outline: bars in front would hide those of the training set
        outlined = ax.bar(at, list(counts.values()), width, fill=False, ec=SHADE, lw=1.4,
                          label="$D_f$ (training and validation)")
        hover.note(outlined, "$D_f$")
    shade(run, ax, forget_set, text=False)
    name_classes(run, ax.xaxis)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel(axis_label(run))
    ax.set_ylabel("images")
    legend(ax, "above")
    return figure, f"Training set and forget set {forget_set}", (
        f"Images by {run.label} in the training set"
        + (", before balancing and with the augmented copies after it" if after else "")
        + f"; outlines: the samples of forget set {forget_set}, training and validation "
        "together, without copies.")


def _error_label(run: Run) -> str:
    return "1 − p(true class)" if run.classification else plain(f"absolute error ({run.unit})")


def _budget_groups(run: Run, forget_set: str) -> list[list[ModelKey]]:
    """The unlearned models of the smallest and of the largest budget of each method."""
    by_method: dict[str, list[ModelKey]] = {}
    for model in foremost(run, forget_set):
        by_method.setdefault(model.method, []).append(model)
    ends = [[ms[0] for ms in by_method.values()], [ms[-1] for ms in by_method.values()]]
    return ends if ends[0] != ends[1] else ends[:1]


def sample_errors(run: Run, forget_set: str) -> Made:
    """Errors on single samples of D_f and of the test set."""
    groups = _budget_groups(run, forget_set)
    figure, axes = canvas(8.4, 2.35 * 2 * len(groups), 2 * len(groups), 1)
    references = [m for m in run.models(forget_set) if m.method in ("original", "retrain")]
    used = {}
    for i, split in enumerate(("forget", "test")):
        for j, group in enumerate(groups):
            ax = axes[2 * j + i, 0]
            found = predictions(run, forget_set, split, references + group)
            for model, p in found.items():
                rows = chosen(p.ids)[:_FEW]
                used[split] = len(rows)
                reference = found.get(ModelKey("retrain", references[-1].epochs), p)
                rows = rows[np.argsort(reference.errors.mean(axis=0)[rows], kind="stable")]
                _samples(run, ax, model, p.errors.mean(axis=0)[rows])
            ax.set_title(_SPLIT_TITLES[split], pad=4)
            ax.set_ylabel(_error_label(run))
            ax.set_ylim(bottom=0)
            ax.margins(x=0.01)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(axis="x", visible=False)
            legend(ax, "above right")
    axes[-1, 0].set_xlabel(r"sample, in the order of $M_\mathrm{R}$'s error")
    budgets = ("" if len(groups) == 1 else
               " Upper pair: smallest budget of each method; lower pair: largest.")
    return figure, f"Errors on single samples, forget set {forget_set}", (
        f"{'1 − p(true class)' if run.classification else 'Absolute error'} of each model, mean "
        f"over seeds, on {used.get('forget', 0)} samples of D_f and {used.get('test', 0)} of the "
        f"test set, chosen at random once and the same for every model.{budgets} On D_f an "
        "unlearned model should move from M_O to M_R.")


def _samples(run: Run, ax: Axes, model: ModelKey, errors: np.ndarray) -> None:
    # one budget to a panel: no need to be pale
    style = look(run, ModelKey(model.method, max(m.epochs for fs in run.forget_sets
                                              for m in run.models(fs)
                                              if m.method == model.method)))
    ax.plot(np.arange(len(errors)), errors, style.line, color=style.color, marker=style.marker,
            ms=3, lw=0.9, label=label(model))


def sorted_errors(run: Run, forget_set: str) -> Made:
    """The same errors on all samples, each model's in ascending order."""
    figure, axes = canvas(8.4, 3.9, 1, 2, sharey=True)
    for ax, split in zip(axes[0], ("forget", "test")):
        for model, p in predictions(run, forget_set, split, curves(run, forget_set)).items():
            style = look(run, model)
            # as many points as the picture can show
            share = np.linspace(0, 100, 101)
            ordered = np.percentile(p.errors, share, axis=1).T
            band(ax, share, ordered.mean(axis=0), ordered.min(axis=0), ordered.max(axis=0), style,
                 label=label(model))
            ax.set_title(f"{_SPLIT_TITLES[split]} ({len(p.ids):,} samples)")
        ax.set_xlabel("share of samples with at most this error (%)")
        ax.set_xlim(0, 100)
        ax.set_ylim(bottom=0)
    axes[0, 0].set_ylabel(_error_label(run))
    legend(axes[0, 0])
    return figure, f"Sorted errors, forget set {forget_set}", (
        "Each model's errors in ascending order, so that the curve's height at 50 % is the "
        "median error. Line: mean over seeds; band: smallest to largest seed. On D_f the "
        "distance between M_O and M_R is what there is to forget."
        + left_out(run, forget_set))


def predicted(run: Run, forget_set: str) -> Made:
    """Draws predicted labels over true labels of the test set, with one panel for each model.

    Grey hexagons count samples; a line joins the mean predictions of bins of the true label.
    """
    found = predictions(run, forget_set, "test", drawn(run, forget_set))
    rows, columns = grid_shape(len(found))
    figure, axes = canvas(2.65 * columns + 0.9, 2.75 * rows + 0.2, rows, columns,
                          sharex=True, sharey=True)
    for ax in axes.flat[len(found):]:
        ax.set_axis_off()
    ends = [np.concatenate([p.labels, p.outputs.ravel()]) for p in found.values()]
    low, high = (min(map(np.min, ends), default=0.0), max(map(np.max, ends), default=1.0))
    hexbins = []
    for ax, (model, p) in zip(axes.flat, found.items()):
        true = np.broadcast_to(p.labels, p.outputs.shape).ravel()
        hexbins.append(ax.hexbin(true, p.outputs.ravel(), gridsize=36, mincnt=1, cmap="Greys",
                                 extent=(low, high, low, high), linewidths=0.1,
                                 rasterized=True))  # hundreds of shapes to a panel
        ax.plot([low, high], [low, high], color=INK, lw=0.8)
        edges = bin_edges(p.labels)
        mean = binned(p.outputs.mean(axis=0), p.labels, edges)
        style = look(run, model)
        [line] = ax.plot((edges[:-1] + edges[1:]) / 2, mean, style.line, color=style.color, lw=2)
        hover.note(line, f"{label(model)}, mean")
        shade(run, ax, forget_set, text=False)
        title(ax, model, style.color)
        ax.set_aspect("equal")
    most = max([h.get_array().max() for h in hexbins], default=1)
    for h in hexbins:
        # shades begin at a light grey: a single sample must be seen
        h.set_norm(LogNorm(0.4, max(most, 2)))
    if hexbins:
        figure.colorbar(hexbins[0], ax=axes, label="samples × seeds per cell", pad=0.02,
                        fraction=0.03, format="%g")
    figure.supxlabel(axis_label(run, "true "), fontsize=9)
    figure.supylabel(axis_label(run, "predicted "), fontsize=9)
    return figure, f"Predicted against true {run.label}, forget set {forget_set}", (
        f"Test set, all seeds; methods at their largest budget. Thin line: predicted = true; "
        f"thick line: mean prediction by true {run.label}; shaded: the forget set's range. A "
        "model trained without the forget set predicts labels there that are nearer to those it "
        "was trained on.")


def error_by_label(run: Run, forget_set: str) -> Made:
    """Mean absolute error on the test set in bins of the true label."""
    figure, axes = canvas(7.0, 3.8)
    ax = axes[0, 0]
    shade(run, ax, forget_set)
    for model, p in predictions(run, forget_set, "test", drawn(run, forget_set)).items():
        edges = bin_edges(p.labels)
        centre = (edges[:-1] + edges[1:]) / 2
        values = np.stack([binned(e, p.labels, edges) for e in p.errors])
        style = look(run, model)
        band(ax, centre, values.mean(axis=0), values.min(axis=0), values.max(axis=0), style,
             marker=style.marker, ms=4, label=label(model))
    ax.set_ylim(bottom=0)
    ax.set_xlabel(axis_label(run, "true "))
    ax.set_ylabel(plain(f"mean absolute error ({run.unit})"))
    legend(ax)
    return figure, f"Error by {run.label}, forget set {forget_set}", (
        f"Mean absolute error on the test set by true {run.label}; methods at their largest "
        "budget. Line: mean over seeds; band: smallest to largest seed. Good unlearning follows "
        "M_R inside the forget set and M_O outside.")


def bin_edges(labels: np.ndarray) -> np.ndarray:
    """Edges of at most about 25 bins of a round width that cover the labels."""
    low, high = float(labels.min()), float(labels.max())
    span = max(high - low, 1e-9)
    steps = [m * 10.0 ** e for e in range(-6, 9) for m in (1, 2, 5)]
    width = next(s for s in steps if span / s <= 25)
    # half a step early, so that whole labels lie inside a bin
    start = np.floor(low / width) * width - (0.5 if width >= 1 else 0)
    return np.arange(start, high + width * 1.001, width)


def binned(values: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the values `[N]` in each bin of the labels; NaN for an empty bin."""
    index = np.digitize(labels, edges) - 1
    count = np.bincount(index, minlength=len(edges) - 1)[:len(edges) - 1]
    total = np.bincount(index, values, minlength=len(edges) - 1)[:len(edges) - 1]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
