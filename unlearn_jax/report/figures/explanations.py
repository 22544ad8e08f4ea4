"""The pictures of explanations: images with their maps, mean maps, changes of channels."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from unlearn_jax.errors import ReportError
from unlearn_jax.report.figures.style import (
    INK,
    Made,
    canvas,
    drawn,
    grid_shape,
    label,
    legend,
    look,
    plain,
)
from unlearn_jax.report.tables import files
from unlearn_jax.report.tables.files import numbers, read_csv
from unlearn_jax.report.tables.inputs import ModelKey, Run

_CHANNELS = ("method", "forget_set", "epochs", "seed", "set", "layer", "channel", "from_retrain",
             "floor")
TITLES = {"ig": "integrated gradients", "gradcam": "Grad-CAM"}
_SETS = {"forget": "$D_f$", "retain": "$D_r$"}
_ROWS = 3  # images of each set
_COLORS = "RdBu_r"
FEW = 16  # places of a map, below which each is shown as a block
_LIMIT = 99.0  # percentile of a row's values at which the colours end


def read_arrays(run: Run, forget_set: str) -> dict[str, Any]:
    """The arrays of explanations/FORGETSET.npz (stages/explain.py says which).

    Raises:
      ReportError: it is missing or cannot be read.
    """
    name = f"explanations/{forget_set}.npz"
    try:
        return files.read_arrays(files.checked(run.workdir, name), name)
    except FileNotFoundError:
        raise ReportError(f"{name} is missing, but explain.csv has its forget set") from None


def _shown(run: Run, forget_set: str, arrays: dict[str, Any]) -> list[tuple[int, ModelKey]]:
    """The models of a picture in the order of legends, with their place in the arrays."""
    stored = [ModelKey(m, int(e)) for m, e in zip(arrays["methods"].tolist(), arrays["epochs"])]
    return [(stored.index(m), m) for m in drawn(run, forget_set) if m in stored]


def samples(run: Run, forget_set: str, arrays: dict[str, Any], name: str) -> Made:
    """Some images of each set, one to a row, with a map of each model."""
    models = _shown(run, forget_set, arrays)
    rows = [i for s in arrays["set_names"].tolist()
            for i in np.flatnonzero(arrays["sets"] == s)[:_ROWS]]
    figure, axes = _grid(len(rows), len(models) + 1)
    for ax_row, i in zip(axes, rows):
        image, maps = arrays["images"][i], arrays[name][:, i]
        ax_row[0].imshow(image)
        ax_row[0].set_ylabel(f"{_SETS[str(arrays['sets'][i])]}, {_true(run, arrays['labels'][i])}",
                             fontsize=8)
        limit = _limit(maps[[k for k, _ in models]])
        for ax, (k, _) in zip(ax_row[1:], models):
            _overlay(ax, image, maps[k], limit)
            value = arrays["values"][k, i]
            ax.set_xlabel(f"{value:.1f}" if run.classification else f"says {value:.0f}",
                          fontsize=7.5, labelpad=1)
    _titles(axes[0], ["image", *(label(m) for _, m in models)])
    what = "the logit of the image's class" if run.classification else f"the predicted {run.label}"
    return figure, f"{TITLES[name]} of single images, forget set {forget_set}", (
        f"{TITLES[name][0].upper()}{TITLES[name][1:]} of some images, mean over seeds. Red "
        f"raises {what}, blue lowers it; colours are the same within a row. Below each map: the "
        "output of the model, mean over seeds." + _coarse(arrays[name]))


def means(run: Run, forget_set: str, arrays: dict[str, Any], name: str) -> Made:
    """The mean map of each model over D_f and over D_r, and their difference."""
    models = _shown(run, forget_set, arrays)
    names = arrays["set_names"].tolist()
    stack = [arrays[f"mean_{name}"][:, s] for s in range(len(names))]
    titles = [_SETS[s] for s in names]
    if set(names) == set(_SETS):
        stack.append(stack[names.index("forget")] - stack[names.index("retain")])
        titles.append("$D_f - D_r$")
    figure, axes = _grid(len(stack), len(models))
    for ax_row, maps, title in zip(axes, stack, titles):
        limit = _limit(maps[[k for k, _ in models]])
        for ax, (k, _) in zip(ax_row, models):
            ax.imshow(maps[k], cmap=_COLORS, vmin=-limit, vmax=limit)
        ax_row[0].set_ylabel(title)
    _titles(axes[0], [label(m) for _, m in models])
    return figure, f"Mean {TITLES[name]} of each set, forget set {forget_set}", (
        f"Mean {TITLES[name]} over the images of a set and over seeds; the last row is the "
        "difference of the two. These maps are meaningful for aligned images only. Colours are the "
        "same within a row." + _coarse(arrays[f"mean_{name}"]))


def channels(run: Run, forget_set: str) -> Made | None:
    """Changes of channels from M_R, sorted; None without M_R or with one seed."""
    if run.only(forget_set, "retrain") is None:
        return None
    table = read_csv(run.workdir, "channels.csv", _CHANNELS)
    table = table[(table.forget_set == forget_set) & (table.method != "retrain")]
    table = table.assign(**{c: numbers(table, "channels.csv", c)
                            for c in ("epochs", "from_retrain", "floor")})
    table = table[table.floor > 0]
    if table.empty:
        return None
    layers = table.layer.unique().tolist()
    rows, columns = grid_shape(len(layers))
    figure, axes = canvas(8.4, 0.7 + 2.4 * rows, rows, columns, sharey=True)
    for ax in axes.flat[len(layers):]:
        ax.set_axis_off()
    for ax, layer in zip(axes.flat, layers):
        for model in drawn(run, forget_set):
            mine = table[(table.layer == layer) & (table.method == model.method)
                         & (table.epochs == model.epochs)]
            for name, line in (("forget", "-"), ("retain", ":")):
                change = _sorted_changes(mine[mine.set == name])
                if change is not None:
                    style = look(run, model)
                    ax.plot(100 * (np.arange(len(change)) + 0.5) / len(change), change, line,
                            color=style.color, label=f"{label(model)}, {_SETS[name]}")
        ax.axhline(1, color=INK, lw=0.8)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.yaxis.set_major_formatter("{x:g}")  # no powers
        ax.set_title(plain(layer))
        ax.set_xlabel("channels (%)")
    axes[0, 0].set_ylim(bottom=0)
    for ax in axes[:, 0]:
        ax.set_ylabel("change / floor")
    legend(axes[0, 0])
    return figure, f"Changes of channels, forget set {forget_set}", (
        "How far the mean activation of each channel of a stage is from that of M_R of the same "
        "seed, largest first, mean over seeds; 95 % of the matched channels of independent M_Rs "
        "lie below 1 (the line). The scale is linear below 0.1.")


def _coarse(maps: np.ndarray) -> str:
    """A sentence where maps have few places, which say little about what a model looks at."""
    height, width = maps.shape[-2:]
    if height * width >= FEW:
        return ""
    return (f" The stage has {height} × {width} places, each shown as one block: they do not show "
            "which part of an image matters. An earlier stage has more (eval.explain_stage).")


def _sorted_changes(rows: pd.DataFrame) -> np.ndarray | None:
    """Changes over their floor, falling, mean over the seeds that did not fail, `[C]`."""
    found = [np.sort(np.abs(own.from_retrain / own.floor).to_numpy())[::-1]
             for _, own in rows.groupby("seed") if own.from_retrain.notna().all()]
    return np.mean(found, axis=0) if found else None


def _grid(rows: int, columns: int) -> tuple[Canvas, np.ndarray]:
    """Square panels without ticks, together at most as wide as the other pictures."""
    side = min(1.35, 8.2 / columns)
    figure, axes = canvas(0.45 + side * columns, 0.3 + (side + 0.12) * rows, rows, columns)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return figure, axes


def _titles(axes: np.ndarray, titles: list[str]) -> None:
    for ax, title in zip(axes, titles):
        ax.set_title(title, fontsize=8, loc="center")


def _limit(maps: np.ndarray) -> float:
    """The value at which colours end; 1 for maps of zeros."""
    finite = np.abs(maps[np.isfinite(maps)])
    return float(np.percentile(finite, _LIMIT)) or 1.0 if finite.size else 1.0


def _overlay(ax: Axes, image: np.ndarray, found: np.ndarray, limit: float) -> None:
    """A map in colours over the faint grey image; smooth where it is coarser than that."""
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    ax.imshow(0.5 * image.mean(-1) + 127, cmap="gray", vmin=0, vmax=255, extent=extent)
    strength = np.minimum(np.abs(np.nan_to_num(found)) / limit, 1)
    # between a few places there is nothing to see
    smooth = "bilinear" if FEW <= found.size < height * width else "nearest"
    colors = matplotlib.colormaps[_COLORS](0.5 + 0.5 * np.clip(np.nan_to_num(found) / limit, -1, 1))
    colors[..., 3] = strength
    ax.imshow(colors, extent=extent, interpolation=smooth)


def _true(run: Run, value: Any) -> str:
    if not run.classification:
        return f"{value:g}"
    names = run.data["class_names"]
    return plain(names[int(value)] if names else str(int(value)))
