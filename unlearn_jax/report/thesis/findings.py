"""The errors of the study's published notebooks, measured on a run: units, pairs, the ceiling."""

import functools

import numpy as np
import pandas as pd

from unlearn_jax.report.render.document import Block, Cell, Section, Table, Text
from unlearn_jax.report.tables.cells import ROUGH, number
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, describe, model_symbol, symbol
from unlearn_jax.report.tables.origins import made_by, trace
from unlearn_jax.report.tables.stats import Estimate, estimate, estimate_pairs, pseudo_values
from unlearn_jax.report.thesis.published import ALPHA, FIRST
from unlearn_jax.report.thesis.tables import chosen_epochs, column_title

_FORGETTING = f"forgetting@{ALPHA:g}"
_ACROSS = f"forgetting_across@{ALPHA:g}"
_YEARS = Metric(decimals=1)
_SHARE = Metric(decimals=1, percent=True)


def all_pairs_forgetting(reference_N: np.ndarray, evaluated_N: np.ndarray, labels_N: np.ndarray,
                         alpha: float) -> float:
    """Forgetting as the published code computes it: over all pairs of a label and a prediction.

    Labels of shape (N,) minus predictions of shape (N, 1) broadcast to N x N: each prediction is
    compared with the label of every sample. It serves to compare with printed values only; the
    metric is `metrics.errors.forgetting`.

    Args:
      reference_N: predictions of M_R, label units.
      evaluated_N: predictions of the evaluated model on the same samples.
      labels_N: their true labels.
      alpha: label units.

    Raises:
      ValueError: the shapes are not all `[N]`.
    """
    shape = np.shape(labels_N)
    if len(shape) != 1 or np.shape(reference_N) != shape or np.shape(evaluated_N) != shape:
        raise ValueError(f"predictions of shapes {np.shape(reference_N)} and "
                         f"{np.shape(evaluated_N)} with labels of shape {shape}; all must be [N]")
    # Samples of one label share a row of the N x N errors.
    labels, counts = np.unique(labels_N, return_counts=True)
    rows = [np.exp(-np.abs(np.abs(y - reference_N) - np.abs(y - evaluated_N)) / alpha).mean()
            for y in labels]
    return float(np.average(rows, weights=counts))


def sections(run: Run) -> tuple[Section, ...]:
    """The three findings, each with its table; two are about the first forget set alone."""
    absent = (Text(f"Not measured: the run has no forget set {FIRST}."),)
    here = FIRST in run.forget_sets
    return (Section("Units: random labels as described and as published",
                    _units(run) if here else absent),
            Section("Pairs: Forgetting by sample and over all pairs",
                    _pairs(run) if here else absent),
            Section("The ceiling: what an independent retraining reaches", (_ceiling(run),)))


def models_of_first(run: Run) -> list[ModelKey]:
    """M_O and every arm at every number of epochs, on the first forget set."""
    return [m for m in run.models(FIRST) if m.method == "original" or m.method in run.arms]


def predicted_on_forget(run: Run, model: ModelKey) -> Estimate:
    """The mean prediction on D_f, label units, over seeds."""
    return estimate(run.prediction(model, FIRST, "forget").outputs.mean(axis=1))


def _units(run: Run) -> tuple[Block, ...]:
    config = run.run["config"]["model"]
    top = config["output_offset"] + config["output_scale"]
    labels = np.concatenate([run.prediction(run.reference(FIRST, "original"), FIRST, s).labels
                             for s in ("forget", "retain")])
    low, high = map(float, FIRST.split("-"))
    scaled = labels / 60
    selected = int(((scaled >= low) & (scaled <= high)).sum())
    rows = []
    for model in models_of_first(run):
        outputs = run.prediction(model, FIRST, "forget").outputs
        near = (outputs >= top - 1).mean(axis=1)
        near = np.where(np.isfinite(outputs).all(axis=1), near, np.nan)
        rows.append((made_by(run, Cell(model_symbol(model)), model, FIRST),
                     number(_YEARS, predicted_on_forget(run, model)),
                     number(_SHARE, estimate(near)),
                     *(trace(run, number(describe(run, m), estimate(
                         run.values(model, FIRST, m))), model, FIRST, m)
                       for m in ("mae_forget", "mae_test", f"F@{ALPHA:g}"))))
    text = (
        "The published code divides ages by 60 before it selects those from "
        f"{low:g} to {high:g}: of the {len(labels):,} samples of training and validation here that "
        f"would select {selected}. It then shifts the normalised labels by 3 to 6 and clips them "
        "to 20 and 60. The sigmoid of the network ends at 1, so a label of 20 or more is out of "
        f"its reach; its best answer is its highest output, {top:g} years. M_RND_UNITS repeats "
        "that error. M_RND_OFFSET has labels in years, as the text describes them. M_RND draws a "
        "uniform age.")
    table = Table(
        f"Forget set {FIRST}: {ROUGH}.",
        (("model", "and its epochs"),
         ("predicted on D_f (years)", "mean prediction on D_f, in years"),
         (f"at least {top - 1:g} (%)", "share of D_f whose prediction is within a year of the "
          f"highest output, {top:g} years, in %"),
         *((describe(run, m).header, describe(run, m).definition)
           for m in ("mae_forget", "mae_test", f"F@{ALPHA:g}"))), tuple(rows), name="units")
    return Text(text), table


@functools.lru_cache(maxsize=1)
def pairs(run: Run) -> dict[ModelKey, tuple[Estimate, Estimate]]:
    """By model on the first forget set: Forgetting by sample, and over all pairs."""
    reference = run.prediction(run.reference(FIRST, "retrain"), FIRST, "forget")
    found = {}
    for model in models_of_first(run):
        mine = run.prediction(model, FIRST, "forget")
        every = [all_pairs_forgetting(r, e, mine.labels, ALPHA)
                 for r, e in zip(reference.outputs, mine.outputs, strict=True)]
        found[model] = estimate(run.values(model, FIRST, _FORGETTING)), estimate(every)
    return found


def _pairs(run: Run) -> tuple[Block, ...]:
    metric = describe(run, _FORGETTING)
    rows = [(made_by(run, Cell(model_symbol(m)), m, FIRST),
             trace(run, number(metric, own), m, FIRST, _FORGETTING),
             number(metric, every)) for m, (own, every) in pairs(run).items()]
    text = (
        "The published code subtracts predictions of shape (N, 1) from labels of shape (N,), which "
        "gives N × N errors: each prediction is compared with the age of every sample. What it "
        "prints as Forgetting is the mean over all these pairs. That mean does not depend on which "
        "sample a prediction belongs to. The metrics here refuse such shapes; the value over all "
        "pairs stands in this table only.")
    table = Table(
        f"Forget set {FIRST}, α = {ALPHA:g}: {ROUGH}.",
        (("model", "and its epochs"), ("by sample", "the metric as the study defines it"),
         ("over all pairs", "as its published code computes it")), tuple(rows), name="pairs")
    return Text(text), table


def _ceiling(run: Run) -> Table:
    metric, share = describe(run, _ACROSS), Metric(decimals=0, percent=True)
    rows = []
    for name in run.forget_sets:
        top = run.values(run.reference(name, "retrain"), name, f"ceiling@{ALPHA:g}")
        floor = run.values(run.reference(name, "original"), name, _ACROSS)
        cells = [_number(metric, floor)]
        for arm in run.arms:
            own = run.values(ModelKey(arm, chosen_epochs(run, arm)), name, _ACROSS)
            part = share_of_way(own, floor, top)
            cells += [_number(metric, own), number(share, part)]
        cells.append(_number(metric, top))
        rows.append((Cell(name), *cells))
    columns = [("forget set", "which D_f"), ("M_O", "of the untouched model")]
    for arm in run.arms:
        title = f"{column_title(arm)}, {chosen_epochs(run, arm)} epochs"
        columns += [(title, "of it"),
                    (f"{symbol(arm)}, share (%)", "of the way from M_O to the ceiling, in %, a "
                     "ratio of means; “–” where the ceiling is not shown to be above M_O")]
    columns.append(("ceiling", "M_R against the M_R of other seeds"))
    return Table(
        f"Forgetting across seeds, α = {ALPHA:g}: {ROUGH}. Two models retrained with "
        "different seeds do not err alike, so 1 is out of reach. The share compares a model with "
        "M_Rs of other seeds, too: it is the part of the way from M_O to the ceiling that the "
        "model has gone.", tuple(columns), tuple(rows), name="ceiling")


def share_of_way(own: pd.Series, floor: pd.Series, top: pd.Series) -> Estimate | None:
    """(own − floor) / (top − floor), of means over seeds; None where no gap is established.

    The interval is the jackknife's, which leaves out one seed with all its pairs at a time. It
    needs three seeds, as that of the means does. With two seeds there is no interval, and a
    positive gap counts as established.

    Args:
      own, floor, top: by seed, means over its pairs with other seeds.

    Source: Arvesen, Jackknifing U-statistics (1969), of functions of several.
    """
    values = pd.DataFrame({"own": own, "floor": floor, "top": top}).dropna()
    n, gaps = len(values), values.top - values.floor
    between = estimate_pairs(gaps)
    # a ratio to a gap that may be 0 has no meaning
    if not n or not (gaps > 0).all() or (between.has_interval and not between.above_zero):
        return None
    whole = values.mean()
    # The means without a seed and its pairs are those of the other seeds' pseudo-values.
    without = (n * whole - values.apply(pseudo_values)) / (n - 1)
    share, left = ((x.own - x.floor) / (x.top - x.floor) for x in (whole, without))
    found = estimate(n * share - (n - 1) * left)
    return Estimate(share, found.std, share - found.half, share + found.half, n)


def _number(metric: Metric, values: pd.Series) -> Cell:
    return number(metric, estimate_pairs(values) if len(values) else None)
