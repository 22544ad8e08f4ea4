"""Numbers as cells of a table, and the columns that many tables share."""

import math
from typing import Any

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render.document import Cell
from unlearn_jax.report.tables.names import Metric
from unlearn_jax.report.tables.stats import Estimate

NONE = Cell("–", sort=float("nan"))
ROUGH = ("mean ± half the width of its 95 % interval (Student's t over seeds; the jackknife over "
         "seeds for means over pairs of seeds), with the number of seeds in brackets")
MODEL_COLUMN = ("model", "M_O was trained on all training data, M_R from the same start without "
                "the forget set; the others, except ensembles (SISA) and short retraining, started "
                "from M_O and should become like M_R")
EPOCHS_COLUMN = ("epochs", "the budget of the method, in epochs; for M_R the most that training "
                 "may take")


def number(metric: Metric, e: Estimate | None, fixed: bool = False) -> Cell:
    """`mean ± half-width (n)`; the mean alone for times that were measured once for all seeds.

    Args:
      fixed: whether the value is of no seed, so that the mean alone is shown.
    """
    if e is None:
        return NONE
    if e.n == 0:
        return Cell("nan", "(n=0)", float("nan"))
    if e.infinite:
        return Cell(metric.infinite, f"in {e.infinite} of {e.n}", e.mean)
    if fixed or catalogue.timed_once(metric.name):
        return Cell(metric.text(e.mean), "", e.mean)
    if not e.has_interval:
        return Cell(metric.text(e.mean), f"(n={e.n}, no interval)", e.mean)
    return Cell(metric.text(e.mean), f"± {metric.text(e.half)} ({e.n})", e.mean)


def epochs_cell(epochs: int) -> Cell:
    """A budget; “–” for M_O and the median, which have none."""
    return Cell(str(epochs), sort=epochs) if epochs else NONE


def count(value: Any, link: str = "") -> Cell:
    """A whole number of a JSON file, which may be absent or null where it has no meaning."""
    return decimal(value, 0, link)


def decimal(value: Any, decimals: int, link: str = "") -> Cell:
    """A number of a JSON file, which may be absent or null where it has no meaning."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return NONE
    return Cell(f"{value:,.{decimals}f}", sort=float(value), link=link)
