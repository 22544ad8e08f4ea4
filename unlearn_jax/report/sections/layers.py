"""How far each layer's weights moved, from layers.csv: a table and a picture."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from unlearn_jax.report.figures.style import INK, canvas, drawn, label, legend, look, plain
from unlearn_jax.report.render.document import Cell, Figure, Section, Table
from unlearn_jax.report.sections import headline
from unlearn_jax.report.tables.files import refuse_repeats, rows_of
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, model_title, pretrained, start_of_others
from unlearn_jax.report.tables.origins import made_by
from unlearn_jax.report.tables.stats import estimate, estimate_pairs

FILE = "layers.csv"
KIND = "layers"
_NUMBERS = ("to_original", "to_retrain", "norm", "floor")
_COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", *_NUMBERS)
_SHARE = Metric(decimals=1, percent=True)
_LINEAR = 1.0  # per cent, below which the scale of the picture is linear


def read(run: Run, forget_set: str) -> pd.DataFrame | None:
    """The rows of a forget set; None where there are none.

    Raises:
      ReportError: layers.csv is malformed, or has two rows for a layer of one model.
    """
    rows = rows_of(run.workdir, FILE, _COLUMNS, forget_set, ("epochs", "seed"), _NUMBERS)
    if rows is not None:
        refuse_repeats(rows, FILE, list(_COLUMNS[:5]))
    return rows


def section(run: Run, forget_set: str, figures: tuple[Figure, ...]) -> Section | None:
    """Distances of whole models and the picture by layer; None without layers.csv."""
    rows = read(run, forget_set)
    if rows is None:
        return None
    squares = rows.assign(**{c: rows[c]**2 for c in ("to_original", "to_retrain", "norm")})
    # NaN of a failed member stays NaN: min_count asks for every layer.
    count = rows.layer.nunique()
    whole = np.sqrt(squares.groupby(["method", "epochs", "seed"], sort=False)[
        ["to_original", "to_retrain", "norm"]].sum(min_count=count)).reset_index()
    floor = np.sqrt(rows[rows.method == "retrain"].assign(square=lambda t: t.floor**2)
                     .groupby("seed").square.sum(min_count=count))
    size = whole[whole.method == "retrain"].set_index("seed").norm
    cells = []
    for model in run.models(forget_set):
        mine = whole[(whole.method == model.method) & (whole.epochs == model.epochs)]
        if mine.empty:
            continue
        mine = mine.set_index("seed")
        columns = [None if model.method == "original" else estimate(mine.to_original / size),
                   None if model.method == "retrain" else estimate(mine.to_retrain / size),
                   estimate_pairs(floor / size)]
        cells.append((
            made_by(run, Cell(model_title(run, model)), model, forget_set),
            headline.epochs_cell(model.epochs), *(
            headline.number(_SHARE, e) for e in columns)))
    table = Table(
        f"Forget set {forget_set}: L2 distances of all weights, running statistics left out, in % "
        f"of the norm of M_R's weights; {headline.ROUGH}. Every layer and seed stands in {FILE}.",
        (headline.MODEL_COLUMN, headline.EPOCHS_COLUMN,
         ("to M_O (%)", "from M_O of the same seed"),
         ("to M_R (%)", "from M_R of the same seed, which started from the weights that M_O did"),
         ("M_R to M_R (%)", f"from M_R to the M_Rs of the other seeds, which "
          f"{start_of_others(run)}: how far apart models are that have the task in common and "
          + ("nearly all of the weights that they began with" if pretrained(run) else
             "nothing else"))),
        tuple(cells))
    return Section("Distances of weights", (table, *figures))


def layers(run: Run, forget_set: str) -> tuple[Canvas, str, str] | None:
    """The picture of distances by layer, as those of `figures`; None without layers.csv."""
    rows = read(run, forget_set)
    if rows is None:
        return None
    return _picture(run, forget_set, rows), (
        f"Distances of weights by layer, forget set {forget_set}"), (
        "L2 distance of each layer's weights in % of the norm of M_R's in that layer, from the "
        "images (left) to the output (right); mean over seeds. Dotted: M_R from the M_Rs of other "
        "seeds. A method that moves some layers only lies at zero from M_O in the others. The "
        f"scale is linear below {_LINEAR:g} %.")


def _picture(run: Run, forget_set: str, rows: pd.DataFrame) -> Canvas:
    names = rows.layer.unique()
    norm = rows[rows.method == "retrain"].set_index(["layer", "seed"]).norm
    figure, axes = canvas(8.4, 5.6, 2, 1, sharex=True)
    for ax, column, reference in zip(axes[:, 0], ("to_original", "to_retrain"),
                                     ("original", "retrain")):
        for model in drawn(run, forget_set):
            mine = rows[(rows.method == model.method) & (rows.epochs == model.epochs)]
            if model.method == reference or mine.empty:
                continue
            style = look(run, model)
            ax.plot(range(len(names)), _share(mine, column, norm, names), style.line,
                    color=style.color, marker=style.marker, ms=4, label=label(model))
        mine = rows[rows.method == "retrain"]
        if mine.floor.notna().any():
            ax.plot(range(len(names)), _share(mine, "floor", norm, names), ":", color=INK,
                    label="$M_\\mathrm{R}$ to $M_\\mathrm{R}$ of other seeds")
        ax.set_ylabel(f"distance to {label(ModelKey(reference, 0))} (%)")
        ax.set_yscale("symlog", linthresh=_LINEAR)  # independent models are far from all others
        ax.yaxis.set_major_formatter("{x:g}")  # no powers
        ax.set_ylim(bottom=0)
        legend(ax, "above right")
    axes[1, 0].set_xticks(range(len(names)), [plain(x) for x in names], rotation=90, fontsize=7)
    return figure


def _share(rows: pd.DataFrame, column: str, norm: pd.Series, names: np.ndarray) -> np.ndarray:
    """In % of M_R's norm of the same seed and layer, mean over seeds, `[layers]`.

    A layer whose weights are all zero has no share.
    """
    values = rows.set_index(["layer", "seed"])[column]
    share = 100 * values / norm.where(norm > 0)
    return share.groupby("layer").mean().reindex(names).to_numpy()
