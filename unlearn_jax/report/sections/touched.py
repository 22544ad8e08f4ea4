"""Which channels or weights a method touched before its first step, from touched.csv."""

import pandas as pd

from unlearn_jax.report.render.document import Cell, Section, Table
from unlearn_jax.report.tables.cells import ROUGH, number
from unlearn_jax.report.tables.files import numbers, read_csv, refuse
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, model_title
from unlearn_jax.report.tables.origins import made_by
from unlearn_jax.report.tables.stats import estimate

FILE = "touched.csv"
_COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", "touched", "of")
_MOST = 5  # layers per method
_SHARE = Metric(decimals=1, percent=True)
_COUNT = Metric(decimals=1)


def section(run: Run, forget_set: str) -> Section | None:
    """The layers that each method touched most; None where no method touched any.

    Raises:
      ReportError: touched.csv is malformed.
    """
    if not (run.workdir / FILE).exists():
        return None
    rows = _read(run)
    rows = rows[rows.forget_set == forget_set]
    # Every budget of a method is prepared alike.
    cells = [row for method, found in rows.groupby("method", sort=False)
             for row in _method_rows(run, method, found[found.epochs == found.epochs.max()])]
    if not cells:
        return None
    return Section("What was touched", (Table(
        f"Forget set {forget_set}: for each method the layers, at most {_MOST}, with the largest "
        "share of channels or weights that the method perturbed before its first step, or that it "
        f"trained alone; {ROUGH}. {FILE} has every layer and seed, with the numbers of the "
        "channels or weights.",
        (("model", "the model that the method made"),
         ("layer", "a parameter, or the convolution whose channels were chosen"),
         ("touched (%)", "channels or weights touched, in % of those of the layer"),
         ("touched", "the same as a number"),
         ("of", "channels or weights of the layer")), tuple(cells), name=f"touched-{forget_set}"),))


def _method_rows(run: Run, method: str, rows: pd.DataFrame) -> list[tuple[Cell, ...]]:
    made = ModelKey(method, int(rows.epochs.iloc[0]))
    model = made_by(run, Cell(model_title(run, made)), made, rows.forget_set.iloc[0])
    if (rows.touched == rows.of).all():
        rows = rows.groupby("seed", as_index=False)[["touched", "of"]].sum().assign(layer="all")
    rows = rows.assign(share=rows.touched / rows.of)
    means = rows.groupby("layer", sort=False).share.mean().sort_values(ascending=False,
                                                                       kind="stable")
    found: list[tuple[Cell, ...]] = []
    for layer in means[means > 0].index[:_MOST]:
        mine = rows[rows.layer == layer]
        size = int(mine.of.iloc[0])
        found.append((model, Cell(layer), number(_SHARE, estimate(mine.share)),
                      number(_COUNT, estimate(mine.touched)),
                      Cell(f"{size:,}", sort=size)))
    return found


def _read(run: Run) -> pd.DataFrame:
    table = read_csv(run.workdir, FILE, _COLUMNS)
    found = {column: numbers(table, FILE, column, whole=True)
             for column in ("epochs", "seed", "touched", "of")}
    refuse(table, found["of"] < 1, FILE, "of", "at least 1")
    refuse(table, (found["touched"] < 0) | (found["touched"] > found["of"]), FILE, "touched",
           "from 0 to the column 'of'")
    return table.assign(**found)
