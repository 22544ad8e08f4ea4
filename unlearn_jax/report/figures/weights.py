"""How far each layer's weights moved, as a picture."""

import numpy as np
import pandas as pd

from unlearn_jax.report.figures.style import INK, Made, canvas, drawn, label, legend, look, plain
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import symbol

_LINEAR = 1.0  # per cent, below which the scale of the picture is linear


def by_layer(run: Run, forget_set: str, rows: pd.DataFrame) -> Made:
    """Distances to M_O above, to M_R below, layer by layer; only to M_O where there is no M_R.

    Args:
      rows: the rows of layers.csv for the forget set.
    """
    names = rows.layer.unique()
    references = ("original", "retrain") if "to_retrain" in rows else ("original",)
    norm = rows[rows.method == references[-1]].set_index(["layer", "seed"]).norm
    figure, axes = canvas(8.4, 2.8 * len(references), len(references), 1, sharex=True)
    for ax, reference in zip(axes[:, 0], references):
        column = f"to_{reference}"
        for model in drawn(run, forget_set):
            mine = rows[(rows.method == model.method) & (rows.epochs == model.epochs)]
            if model.method == reference or mine.empty:
                continue
            style = look(run, model)
            ax.plot(range(len(names)), _share(mine, column, norm, names), style.line,
                    color=style.color, marker=style.marker, ms=4, label=label(model))
        mine = rows[rows.method == "retrain"]
        if len(mine) and mine.floor.notna().any():
            ax.plot(range(len(names)), _share(mine, "floor", norm, names), ":", color=INK,
                    label="$M_\\mathrm{R}$ to $M_\\mathrm{R}$ of other seeds")
        ax.set_ylabel(f"distance to {label(ModelKey(reference, 0))} (%)")
        ax.set_yscale("symlog", linthresh=_LINEAR)  # independent models are far from all others
        ax.yaxis.set_major_formatter("{x:g}")  # no powers
        ax.set_ylim(bottom=0)
        legend(ax, "above right")
    axes[-1, 0].set_xticks(range(len(names)), [plain(x) for x in names], rotation=90, fontsize=7)
    return figure, f"Distances of weights by layer, forget set {forget_set}", (
        f"L2 distance of each layer's weights in % of the norm of {symbol(references[-1])}'s in "
        "that layer, from the images (left) to the output (right); mean over seeds. "
        + ("Dotted: M_R from the M_Rs of other seeds. " if len(references) > 1 else "")
        + "A method that changes some layers only has distance 0 from M_O in the others. The "
        f"scale is linear below {_LINEAR:g} %.")


def _share(rows: pd.DataFrame, column: str, norm: pd.Series, names: np.ndarray) -> np.ndarray:
    """In % of the norm of the same seed and layer, mean over seeds, `[layers]`.

    A layer whose weights are all zero has no share.
    """
    values = rows.set_index(["layer", "seed"])[column]
    share = 100 * values / norm.where(norm > 0)
    return share.groupby("layer").mean().reindex(names).to_numpy()
