"""The pictures of a classification that are drawn from saved predictions, class by class."""

import numpy as np

from unlearn_jax.report.figures.samples import predictions
from unlearn_jax.report.figures.style import (
    INK,
    Made,
    canvas,
    drawn,
    grid_shape,
    label,
    legend,
    look,
    name_classes,
    name_height,
    shade,
    title,
)
from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.predictions import Prediction


def accuracy_by_class(run: Run, forget_set: str) -> Made:
    """Accuracy on the test set, class by class."""
    figure, axes = canvas(7.0, 3.4 + name_height(run))
    ax = axes[0, 0]
    shade(run, ax, forget_set)
    models = drawn(run, forget_set)
    found = predictions(run, forget_set, "test", models)
    for i, (model, p) in enumerate(found.items()):
        matrices = confusions(p)
        share = 100 * np.diagonal(matrices, axis1=1, axis2=2)
        mean = share.mean(axis=0)
        style = look(run, model)
        at = np.arange(len(mean)) + 0.16 * (i - (len(found) - 1) / 2)
        ax.errorbar(at, mean, reach(share), fmt="none", ecolor=style.color, elinewidth=1)
        [marks] = ax.plot(at, mean, style.marker, color=style.color, ms=5, label=label(model),
                          clip_on=False)  # 0 and 100 lie on the frame
        hover.note(marks, texts=hover.interval(share.min(axis=0), share.max(axis=0)))
    name_classes(run, ax.xaxis)
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 100)
    ax.set_xlabel("class")
    ax.set_ylabel("accuracy on the test set (%)")
    legend(ax, "above")
    return figure, f"Accuracy by class, forget set {forget_set}", (
        "Share of each class's test samples that is classified correctly; methods at their largest "
        "budget. Mark: mean over seeds; bar: smallest to largest seed; shaded: the forget set, "
        "where it is a class.")


def confusions(p: Prediction) -> np.ndarray:
    """`[M, C, C]`: share of true class (row) that is given each class; NaN for an absent class."""
    classes = p.outputs.shape[2]
    given = p.outputs.argmax(axis=2)
    counts = np.stack([np.bincount(p.labels * classes + g, minlength=classes ** 2)
                       .reshape(classes, classes) for g in given]).astype(float)
    total = counts.sum(axis=2, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def confusion(run: Run, forget_set: str) -> Made:
    """Confusion matrices on the test set, one panel per model."""
    found = predictions(run, forget_set, "test", drawn(run, forget_set))
    rows, columns = grid_shape(len(found))
    more = name_height(run, 12)  # on both sides
    figure, axes = canvas(2.7 * columns + 0.8 + more, 2.75 * rows + 0.2 + more, rows, columns,
                          sharex=True, sharey=True)
    for ax in axes.flat[len(found):]:
        ax.set_axis_off()
    image = None
    for ax, (model, p) in zip(axes.flat, found.items()):
        mean = 100 * confusions(p).mean(axis=0)
        ax.grid(False)
        image = ax.pcolormesh(np.arange(len(mean) + 1) - 0.5, np.arange(len(mean) + 1) - 0.5, mean,
                              cmap="Greys", vmin=0, vmax=100, rasterized=len(mean) > 20)
        ax.set_aspect("equal")
        ax.set_ylim(len(mean) - 0.5, -0.5)  # the first class on top
        hover.note(image, label(model))
        title(ax, model, look(run, model).color)
        if len(mean) <= 12:
            for (i, j), value in np.ndenumerate(mean):
                if value >= 0.5:
                    ax.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=6,
                            color="white" if value > 50 else INK)
        name_classes(run, ax.xaxis, ax.yaxis, most=12)
    if image is not None:
        figure.colorbar(image, ax=axes, label="share of the true class (%)", fraction=0.03)
    figure.supxlabel("given class", fontsize=9)
    figure.supylabel("true class", fontsize=9)
    return figure, f"Confusion matrices, forget set {forget_set}", (
        "Test set, mean over seeds; methods at their largest budget. A row is a true class and "
        "adds up to 100 %.")


def reach(values: np.ndarray) -> np.ndarray:
    """How far the smallest and the largest of `[M, n]` lie from the mean of the M: `[2, n]`.

    Never below 0, although the rounded mean of equal values may lie beside them.
    """
    mean = values.mean(axis=0)
    return np.maximum([mean - values.min(axis=0), values.max(axis=0) - mean], 0)
