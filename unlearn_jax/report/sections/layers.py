"""How far each layer's weights moved, from layers.csv: a table and a picture."""

import numpy as np
import pandas as pd

from unlearn_jax.report.figures import weights
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Cell, Section, Table
from unlearn_jax.report.tables.cells import EPOCHS_COLUMN, MODEL_COLUMN, ROUGH, epochs_cell, number
from unlearn_jax.report.tables.files import refuse_repeats, rows_of
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.names import (
    Metric,
    model_title,
    pretrained,
    start_of_others,
    symbol,
)
from unlearn_jax.report.tables.origins import made_by
from unlearn_jax.report.tables.stats import estimate, estimate_pairs

FILE = "layers.csv"
_NUMBERS = ("to_original", "to_retrain", "norm", "floor")
_OF_RETRAINED = ("to_retrain", "floor")  # columns that a run without M_R does not have
_MODEL_LAYER = ("method", "forget_set", "epochs", "seed", "layer")
_SHARE = Metric(decimals=1, percent=True)


def read(run: Run, forget_set: str) -> pd.DataFrame | None:
    """The rows of a forget set; None where there are none.

    Raises:
      ReportError: layers.csv is malformed, or has two rows for a layer of one model.
    """
    alone = run.only(forget_set, "retrain") is None
    values = tuple(c for c in _NUMBERS if not (alone and c in _OF_RETRAINED))
    rows = rows_of(run.workdir, FILE, (*_MODEL_LAYER, *values), forget_set, ("epochs", "seed"),
                   values)
    if rows is not None:
        refuse_repeats(rows, FILE, list(_MODEL_LAYER))
    return rows


def section(run: Run, forget_set: str, output: Output) -> Section | None:
    """Distances of whole models and the picture by layer; None without layers.csv."""
    rows = read(run, forget_set)
    if rows is None:
        return None
    retrained = run.only(forget_set, "retrain") is not None
    distances = [c for c in ("to_original", "to_retrain", "norm") if c in rows]
    squares = rows.assign(**{c: rows[c]**2 for c in distances})
    # NaN of a failed member stays NaN: min_count requires a value of every layer.
    count = rows.layer.nunique()
    whole = np.sqrt(squares.groupby(["method", "epochs", "seed"], sort=False)[
        distances].sum(min_count=count)).reset_index()
    measure = "retrain" if retrained else "original"
    size = whole[whole.method == measure].set_index("seed").norm
    if retrained:
        floor = np.sqrt(rows[rows.method == "retrain"].assign(square=lambda t: t.floor**2)
                        .groupby("seed").square.sum(min_count=count))
    cells = []
    for model in run.models(forget_set):
        mine = whole[(whole.method == model.method) & (whole.epochs == model.epochs)]
        if mine.empty:
            continue
        mine = mine.set_index("seed")
        columns = [None if model.method == "original" else estimate(mine.to_original / size)]
        if retrained:
            columns += [None if model.method == "retrain" else estimate(mine.to_retrain / size),
                        estimate_pairs(floor / size)]
        cells.append((
            made_by(run, Cell(model_title(run, model)), model, forget_set),
            epochs_cell(model.epochs), *(
            number(_SHARE, e) for e in columns)))
    to_retrained = (
        ("to M_R (%)", "from M_R of the same seed, which started from the weights that M_O did"),
        ("M_R to M_R (%)", f"from M_R to the M_Rs of the other seeds, which "
         f"{start_of_others(run)}: the distance of models that have the task in common and "
         + ("nearly all of their first weights" if pretrained(run) else "nothing else")))
    table = Table(
        f"Forget set {forget_set}: L2 distances of all weights, running statistics left out, in % "
        f"of the norm of {symbol(measure)}'s weights; {ROUGH}. {FILE} has every layer and seed.",
        (MODEL_COLUMN, EPOCHS_COLUMN, ("to M_O (%)", "from M_O of the same seed"),
         *(to_retrained if retrained else ())),
        tuple(cells), name=f"weights-{forget_set}")
    return Section("Distances of weights", (
        table, *output.draw(f"layers-{forget_set}", weights.by_layer, run, forget_set, rows)))
