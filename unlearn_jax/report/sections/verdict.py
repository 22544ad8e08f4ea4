"""Did it work? Differences on the forget set, seed by seed, with their intervals."""

import dataclasses

import pandas as pd

from unlearn_jax.report.render.document import Cell, Table
from unlearn_jax.report.sections.headline import ROUGH, ceiling, headline_metrics, number
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import (
    ENSEMBLES,
    Metric,
    describe,
    model_symbol,
    pretrained,
    symbol,
)
from unlearn_jax.report.tables.origins import trace
from unlearn_jax.report.tables.stats import Estimate, estimate


@dataclasses.dataclass(frozen=True)
class ErrorGap:
    """How M_O, M_R and M_e differ on D_f; all differences are within a seed, then averaged.

    M_O is the one that M_e started from: that of its seed, or where all M_e started from one
    (`unlearn.from_seed`) that one. Intervals are then conditional on it.

    The error is the MAE on D_f (label units), or 1 − accuracy on D_f.

    Attributes:
      gap: error(M_R) − error(M_O): what there is to forget.
      shift: error(M_e) − error(M_O): how far M_e went.
      rest: error(M_R) − error(M_e): what is left to go.
      share: shift / gap; of no values unless the gap is positive in every seed and, from two
        seeds on, established.
    """

    gap: Estimate
    shift: Estimate
    rest: Estimate
    share: Estimate


def error_metric(run: Run) -> str:
    """The metric of results.csv that the differences are of."""
    return "accuracy_forget" if run.classification else "mae_forget"


def error_on_forget(run: Run, model: ModelKey, forget_set: str) -> pd.Series:
    """Error by seed: MAE in label units, or the share of D_f that is classified wrongly."""
    values = run.values(model, forget_set, error_metric(run))
    return 1 - values if run.classification else values


def _error_before(run: Run, evaluated: ModelKey, forget_set: str) -> pd.Series:
    """The error of the M_O that each seed's model started from."""
    errors = error_on_forget(run, run.only(forget_set, "original"), forget_set)
    seed = run.from_seed(evaluated, forget_set, error_metric(run))
    return errors if seed < 0 else pd.Series(errors.get(seed), errors.index, dtype=float)


def gap(run: Run, forget_set: str, evaluated: ModelKey) -> ErrorGap:
    """Compares an unlearned model with M_O and M_R; seeds with a failed member are left out."""
    errors = {"o": _error_before(run, evaluated, forget_set),
              "r": error_on_forget(run, run.only(forget_set, "retrain"), forget_set),
              "e": error_on_forget(run, evaluated, forget_set)}
    paired = pd.DataFrame(errors)
    # M_e's failures say nothing about the gap
    both = paired[["o", "r"]].dropna()
    whole = paired.dropna()
    shift, rest = whole.e - whole.o, whole.r - whole.e
    return ErrorGap(estimate(both.r - both.o), estimate(shift), estimate(rest),
                    estimate(share_closed(run, forget_set, evaluated)))


def share_closed(run: Run, forget_set: str, evaluated: ModelKey) -> pd.Series:
    """(M_e − M_O) / (M_R − M_O) by seed; empty where no gap is established."""
    o = _error_before(run, evaluated, forget_set)
    r, e = (error_on_forget(run, m, forget_set) for m in (
        run.only(forget_set, "retrain"), evaluated))
    gaps = (r - o).dropna()
    between = estimate(gaps)
    # a ratio to a gap that may be 0 says nothing
    sound = len(gaps) and (gaps > 0).all() and (between.n == 1 or between.above_zero)
    return ((e - o) / gaps).dropna() if sound else pd.Series(dtype=float)


def on_gap(run: Run, forget_set: str) -> str:
    """In words: has M_O learned, and does leaving the forget set out show?"""
    original = run.only(forget_set, "original")
    metric = _metric(run)
    if missing := run.without(forget_set):
        names = " and ".join(f"predictions of {symbol(method)}" for method in missing)
        return (f"{_on_use(run, forget_set, original)}There are no {names}, so it is not known "
                "whether there is anything to forget.")
    g = gap(run, forget_set, original).gap
    what = "share of wrong answers" if run.classification else "MAE"
    text = _on_use(run, forget_set, original)
    if g.n == 0:
        return f"{text}No seed has finite values on D_f for both M_O and M_R: nothing to compare."
    text += (f"On D_f the {what} of M_R is {_distance(metric, g.mean, 'above', 'below')} that of "
             f"M_O{interval(metric, g)}")
    if g.n == 1:
        return f"{text}. One seed gives no interval, so nothing is established."
    if g.above_zero:
        return (f"{text}. The interval excludes 0: a model that never saw the forget set errs "
                "more on it, so there is something to forget.")
    if g.below_zero:
        return (f"{text}. The interval excludes 0 on the wrong side: M_R errs less on the forget "
                "set than M_O, which trained on it. There is no gap for unlearning to close.")
    return (f"{text}. The interval includes 0: no difference between M_R and M_O is established, "
            "so these numbers cannot show whether anything was forgotten.")


def sets_with_gap(run: Run) -> list[str]:
    """The forget sets on which M_R errs more than M_O, by an interval that excludes 0."""
    return [name for name in run.forget_sets
            if gap(run, name, run.only(name, "original")).gap.above_zero]


def on_model(run: Run, forget_set: str, model: ModelKey) -> str:
    """In words: where an unlearned model stands between M_O and M_R."""
    metric, share = _metric(run), Metric(decimals=0, percent=True)
    each = gap(run, forget_set, model)
    name = model_symbol(model)
    if missing := run.without(forget_set):
        return f"{name} cannot be judged without {' and '.join(map(symbol, missing))}."
    if each.shift.n == 0:
        return f"{name} cannot be judged: no seed has finite values for M_O, M_R and it."
    detail = (f"on D_f it errs {_distance(metric, each.shift.mean, 'more', 'less')} than M_O"
              f"{interval(metric, each.shift)}")
    if each.share.n:
        detail += (f", which is {share.text(each.share.mean)} % of the gap"
                   f"{interval(share, each.share, ' %')}")
    detail += f".{_on_forgetting(run, forget_set, model)}"
    return f"{name} {_standing(each, model.method in ENSEMBLES)}: {detail}{on_start(run, model)}"


def on_start(run: Run, *models: ModelKey) -> str:
    """In words: that the models of all seeds started from one M_O, where they did."""
    seeds = sorted({seed for fs in run.forget_sets for m in models
                    if (seed := run.from_seed(m, fs, error_metric(run))) >= 0})
    if not seeds:
        return ""
    return (" Models of all seeds started from the M_O of seed "
            f"{', '.join(map(str, seeds))}, which they are compared with: intervals are "
            "conditional on that M_O"
            + ("." if pretrained(run) else
               ", and of the M_Rs that seed's alone began with its weights."))


def _standing(each: ErrorGap, ensemble: bool) -> str:
    if each.shift.n == 1:
        return "has one seed with finite values, so nothing is established"
    if not each.gap.above_zero:
        return "cannot be judged without an established gap"
    if each.shift.below_zero:
        return "moved away from M_R"
    if not each.shift.above_zero:
        return "is not shown to have forgotten (the interval includes 0)"
    if each.rest.above_zero:
        return "lies between M_O and M_R"
    if each.rest.below_zero and ensemble:
        return "lies beyond M_R, as weaker models may, and its constituents saw a shard each"
    if each.rest.below_zero:
        return "lies beyond M_R, which is itself a trace of the forget set"
    return "cannot be told from M_R on this measure"


def table(run: Run) -> Table | None:
    """All forget sets and unlearned models in one table; None if nothing can be compared."""
    metric, share = _metric(run), Metric(decimals=0, percent=True)
    what = "1 − accuracy" if run.classification else "the MAE"
    rows = []
    for forget_set in run.forget_sets:
        for model in () if run.without(forget_set) else run.unlearned(forget_set):
            g = gap(run, forget_set, model)
            reference = run.only(forget_set, "retrain")
            cells = ((metric, g.gap, reference), (metric, g.shift, model), (metric, g.rest, model),
                     (share, g.share if g.share.n else None, model))
            rows.append((Cell(forget_set), Cell(model_symbol(model)), *(
                trace(run, _marked(number(m, e), e if m is metric else None), of, forget_set,
                      error_metric(run), 100 if run.classification else 1)
                for m, e, of in cells)))
    if not rows:
        return None
    unit = metric.header
    points = "; points are percentage points" if run.classification else ""
    return Table(
        f"Differences on the forget set: {ROUGH}. Each is taken within a seed, then averaged "
        "over the seeds where all models concerned are finite. A difference is established where "
        f"its interval excludes 0, whatever the digits shown: marked *{points}." + on_start(
            run, *dict.fromkeys(model for forget_set in run.forget_sets
                                for model in run.unlearned(forget_set))),
        (("forget set", "which D_f"), ("M_e", "the unlearned model and its budget"),
         (f"M_R − M_O ({unit})", f"{what} on D_f of M_R minus that of M_O, {unit}: what there is "
          "to forget"),
         (f"M_e − M_O ({unit})", f"{what} on D_f of M_e minus that of M_O, {unit}: how far "
          "unlearning went"),
         (f"M_R − M_e ({unit})", f"{what} on D_f of M_R minus that of M_e, {unit}: what is left; "
          "below 0, M_e errs more than a model that never saw D_f"),
         ("gap closed (%)", "(M_e − M_O) / (M_R − M_O) per seed, in %: 0 is M_O, 100 is M_R; "
          "“–” where no gap is established")),
        tuple(rows))


def _marked(cell: Cell, difference: Estimate | None) -> Cell:
    """The cell with a star where a difference is established, which rounded ends may not show."""
    if difference is None or not (difference.above_zero or difference.below_zero):
        return cell
    return dataclasses.replace(cell, note=f"{cell.note} *".strip())


def _metric(run: Run) -> Metric:
    if run.classification:
        return Metric(header="points", decimals=1, percent=True)
    return Metric(header=run.unit, decimals=2)


def _on_use(run: Run, forget_set: str, original: ModelKey) -> str:
    """Whether M_O has learned anything: unlearning a useless model shows nothing."""
    name = headline_metrics(run)[0]
    metric = describe(run, name)
    own = estimate(run.values(original, forget_set, name))
    median = run.only(forget_set, "median")
    baseline = estimate(run.values(median, forget_set, name) if median else [])
    if not own.n or not baseline.n:
        return ""
    what, unit = ("accuracy", " %") if run.classification else ("MAE", f" {run.unit}")
    answer = "most frequent class" if run.classification else "median"
    text = (f"On the test set M_O has an {what} of {metric.text(own.mean)}{unit}"
            f"{interval(metric, own, unit)}; always answering the training set's {answer} has "
            f"one of {metric.text(baseline.mean)}{unit}. ")
    if own.n < 2:
        return text
    better = own.low > baseline.mean if run.classification else own.high < baseline.mean
    return text if better else (f"{text}So M_O is not clearly better than that baseline, and "
                                "what follows says little. ")


def _on_forgetting(run: Run, forget_set: str, evaluated: ModelKey) -> str:
    alpha = f"{run.alpha:g}"
    metric = describe(run, f"forgetting@{alpha}")
    original = run.only(forget_set, "original")
    before, after = (estimate(run.values(m, forget_set, metric.name))
                     for m in (original, evaluated))
    if not before.n or not after.n:
        return ""
    top = ceiling(run, forget_set, alpha)
    text = f" {metric.header}: {metric.text(after.mean)}; M_O has {metric.text(before.mean)}"
    across = [estimate(run.values(m, forget_set, f"forgetting_across@{alpha}"))
              for m in (original, evaluated)]
    if not top or not top.n:
        return f"{text}; the ceiling is unknown."
    if not all(e.n for e in across):
        return f"{text}; the ceiling of Forgetting across seeds is {metric.text(top.mean)}."
    before, after = (metric.text(e.mean) for e in across)
    return (f"{text}. Against M_Rs of other seeds it is {after}; there M_O has {before}, and the "
            f"ceiling is {metric.text(top.mean)}.")


def _distance(metric: Metric, value: float, more: str, less: str) -> str:
    return f"{metric.text(abs(value))} {metric.header} {less if value < 0 else more}"


def interval(metric: Metric, e: Estimate, unit: str = "") -> str:
    """In words, in brackets, to stand behind a mean."""
    if e.n < 2:
        return f" (n={e.n}, no interval)"
    return (f" (95 % interval {metric.text(e.low)} to {metric.text(e.high)}{unit}, "
            f"{e.n} seeds)")
