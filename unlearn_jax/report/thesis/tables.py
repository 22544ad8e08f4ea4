"""Tables 3 to 8 of the reference study: the values of a run beside the printed ones."""

import dataclasses
import functools

import numpy as np
import pandas as pd

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render.document import Cell, Table
from unlearn_jax.report.tables.cells import NONE, ROUGH, number
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, describe, start_of_others, symbol
from unlearn_jax.report.tables.origins import trace
from unlearn_jax.report.tables.stats import Estimate, estimate_metric
from unlearn_jax.report.thesis.arms import random_arms, study_model
from unlearn_jax.report.thesis.published import ALPHAS, CHOSEN, EPOCHS, FIRST, SETS, printed

NUMBERS = (3, 4, 5, 6, 7, 8)
_TITLES = {
    3: "Forgetting for each α",
    4: "Utility by epochs, test set",
    5: "MAE by epochs, test set",
    6: "Forgetting by epochs, α = 15",
    7: "F = Utility · Forgetting by epochs, α = 15",
    8: "Utility, Forgetting and F by forget set, α = 15",
}
_METRICS = {4: "utility", 5: "mae_test", 6: "forgetting@15", 7: "F@15"}


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A value of a table.

    Attributes:
      model: a population of the run.
      forget_set: its name.
      metric: as in results.csv.
      printed: the study's number; None where the study printed none.
      here: over seeds; n is 0 where the run has no values.
      mean_prediction: the metric of the seeds' mean prediction; NaN where the run has none.
    """

    model: ModelKey
    forget_set: str
    metric: str
    printed: float | None
    here: Estimate
    mean_prediction: float


@dataclasses.dataclass(frozen=True)
class StudyTable:
    """A table in the study's form: a row for each α, number of epochs or forget set.

    Attributes:
      number: 3 to 8.
      stub: titles of the columns that name a row.
      models: the method of every further column; the ceiling stands under `ceiling`.
      rows: the cells that name the row, and its entries by method.
    """

    number: int
    stub: tuple[str, ...]
    models: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], dict[str, Entry]], ...]

    @property
    def title(self) -> str:
        return _TITLES[self.number]


@functools.lru_cache(maxsize=1)
def study_tables(run: Run) -> tuple[StudyTable, ...]:
    """Tables 3 to 8, with a column for every arm of random labels.

    Args:
      run: a run that repeats the study (`arms.is_study`).
    """
    return tuple(_by_alpha(run) if n == 3 else _by_set(run) if n == 8 else _by_epochs(run, n)
                 for n in NUMBERS)


def entry(run: Run, table: int, method: str, epochs: int, forget_set: str, metric: str) -> Entry:
    """The value of a table at one place."""
    model = (run.only(forget_set, method) if method in ("original", "retrain")
             else ModelKey(method, epochs)) or ModelKey(method, 0)
    averaged = run.values(model, forget_set, catalogue.AVERAGED + metric)
    return Entry(model, forget_set, metric,
                 printed(table, study_model(run, method), epochs, forget_set, metric),
                 estimate_metric(metric, run.values(model, forget_set, metric)),
                 float(averaged.iloc[0]) if len(averaged) else np.nan)


def chosen_epochs(run: Run, method: str) -> int:
    """The epochs at which tables 3 and 8 show a method: 8 of fine-tuning, 2 of random labels."""
    if method in ("original", "retrain"):
        return 0
    return CHOSEN["rnd" if method in random_arms(run) else "ft"]


def _unlearned(run: Run) -> tuple[str, ...]:
    return tuple(run.arms)


def _ceiling(run: Run, table: int, forget_set: str, metric: str) -> dict[str, Entry]:
    kind, _, alpha = metric.partition("@")
    if kind != "forgetting":
        return {}
    return {"ceiling": entry(run, table, "retrain", 0, forget_set, f"ceiling@{alpha}")}


def _by_alpha(run: Run) -> StudyTable:
    models = ("original", *_unlearned(run))
    rows = []
    for alpha in ALPHAS:
        metric = f"forgetting@{alpha}"
        rows.append(((str(alpha),), {
            **{m: entry(run, 3, m, chosen_epochs(run, m), FIRST, metric) for m in models},
            **_ceiling(run, 3, FIRST, metric)}))
    return StudyTable(3, ("α",), (*models, "ceiling"), tuple(rows))


def _by_epochs(run: Run, number: int) -> StudyTable:
    metric, arms = _METRICS[number], _unlearned(run)
    trained = ("original", "retrain") if number == 5 else ("original",)
    ceiling = _ceiling(run, number, FIRST, metric)
    rows = [((str(e),), {**{m: entry(run, number, m, e, FIRST, metric) for m in arms}, **ceiling})
            for e in EPOCHS]
    rows.append((("–",), {**{m: entry(run, number, m, 0, FIRST, metric) for m in trained},
                          **ceiling}))
    return StudyTable(number, ("epochs",), (*trained, *arms, *ceiling), tuple(rows))


def _by_set(run: Run) -> StudyTable:
    models = ("original", *_unlearned(run))
    rows = []
    for metric in ("utility", "forgetting@15", "F@15"):
        title = metric.partition("@")[0]
        for name in SETS:
            rows.append(((title if title == "F" else title.capitalize(), name), {
                **{m: entry(run, 8, m, chosen_epochs(run, m), name, metric) for m in models},
                **_ceiling(run, 8, name, metric)}))
    return StudyTable(8, ("value", "forget set"), (*models, "ceiling"), tuple(rows))


def as_block(run: Run, table: StudyTable, averaged: bool = False) -> Table:
    """The table for the report.

    Args:
      averaged: show the metric of the seeds' mean prediction instead of the seeds' values.
    """
    what = ("the metric of the seeds' mean prediction, without an interval" if averaged
            else ROUGH)
    note = {3: f" Forget set {FIRST}; M_FT after {CHOSEN['ft']} epochs, random labels after "
               f"{CHOSEN['rnd']} (the study does not say how many its table has).",
            8: f" M_FT after {CHOSEN['ft']} epochs, random labels after {CHOSEN['rnd']}."}
    caption = (f"Table {table.number} of the study: {table.title}. Each cell: {what}; after the "
               "slash the number that the study printed, if any."
               + note.get(table.number, f" Forget set {FIRST}; the last row is of models that "
                                        "were not unlearned."))
    columns = [(title, {"α": f"in {run.unit}", "epochs": "of unlearning",
                        "value": "what the row shows", "forget set": "which D_f"}[title])
               for title in table.stub]
    columns += [(column_title(m), _definition(run, m)) for m in table.models]
    rows = []
    for names, entries in table.rows:
        cells = [Cell(n, sort=float(n) if n.isdecimal() else None) for n in names]
        rows.append((*cells, *(_cell(run, entries.get(m), averaged) for m in table.models)))
    # LaTeX has the values of the study in rows of their own (latex.py), but no mean predictions
    return Table(caption, tuple(columns), tuple(rows),
                 name=f"table{table.number}-mean-prediction" if averaged else "")


def column_title(method: str) -> str:
    """The title of a column."""
    return method if method == "ceiling" else symbol(method)


def _definition(run: Run, method: str) -> str:
    fixed = {"original": "trained on everything", "retrain": "trained without D_f",
             "ceiling": f"M_R against the M_R of other seeds, which {start_of_others(run)}; models "
                        "of the same seed, as in the other columns, can agree more"}
    if method in fixed:
        return fixed[method]
    if method not in random_arms(run):
        return f"M_O after the method {run.arm_setting(method)['method']}"
    arm = run.arm_setting(method)
    draw = ("a uniform age for D_f" if arm["labels"] == "uniform" else
            "the true age ± {} to {} years for D_f".format(*arm["offset"]))
    if arm["label_units"] == "as_published":
        return f"{draw}, with the unit error of the published code"
    return f"{draw}, in years as described"


def _cell(run: Run, e: Entry | None, averaged: bool) -> Cell:
    if e is None:
        return NONE
    metric = dataclasses.replace(describe(run, e.metric), percent=False)
    value = e.mean_prediction if averaged else e.here.mean
    beside = f" / {metric_text(metric, e.printed)}" if e.printed is not None else ""
    if averaged:
        shown = "–" if np.isnan(value) else metric.text(value)
        cell = Cell(shown, beside.strip(), value)
        return trace(run, cell, e.model, e.forget_set, f"averaged:{e.metric}")
    found = number(metric, e.here if e.here.n else None)
    cell = Cell(found.text, (found.note + beside).strip(), found.sort)
    return trace(run, cell, e.model, e.forget_set, e.metric)


def metric_text(metric: Metric, value: float) -> str:
    """A printed value with the digits it was printed with, at least two."""
    return max(f"{value:.2f}", f"{value:g}", key=len) if metric.decimals else f"{value:g}"


def as_frame(run: Run, table: StudyTable) -> pd.DataFrame:
    """The table as tidy rows: one for each value.

    Returns:
      Columns table, forget_set, method, epochs, metric, printed, mean, std, ci95_low, ci95_high, n,
      mean_prediction.
    """
    rows = []
    for _, entries in table.rows:
        for method, e in entries.items():
            rows.append({
                "table": table.number, "forget_set": e.forget_set,
                "method": "retrain" if method == "ceiling" else method, "epochs": e.model.epochs,
                "metric": e.metric, "printed": e.printed, "mean": e.here.mean,
                "std": e.here.std, "ci95_low": e.here.low, "ci95_high": e.here.high,
                "n": e.here.n, "mean_prediction": e.mean_prediction})
    return pd.DataFrame(rows).drop_duplicates(["forget_set", "method", "epochs", "metric"])
