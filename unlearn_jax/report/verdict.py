"""Did it work? Differences on the forget set, seed by seed, with their intervals."""

import dataclasses
import math

import numpy as np
import pandas as pd

from unlearn_jax.report.document import Cell, Table
from unlearn_jax.report.inputs import Model, Run
from unlearn_jax.report.naming import Metric, model_symbol
from unlearn_jax.report.stats import Estimate, estimate
from unlearn_jax.report.tables import ROUGH, number


@dataclasses.dataclass(frozen=True)
class Gap:
    """How M_O, M_R and M_e differ on D_f; all differences are within a seed, then averaged.

    The error is the MAE on D_f (label units), or 1 − accuracy on D_f.

    Attributes:
      gap: error(M_R) − error(M_O): what there is to forget.
      shift: error(M_e) − error(M_O): how far M_e went.
      rest: error(M_R) − error(M_e): what is left to go.
      share: shift / gap; of no values unless the gap is positive in every seed.
    """

    gap: Estimate
    shift: Estimate
    rest: Estimate
    share: Estimate


def error_on_forget(run: Run, model: Model, forget_set: str) -> pd.Series:
    """Error by seed: MAE in label units, or the share of D_f that is classified wrongly."""
    if run.classification:
        return 1 - run.values(model, forget_set, "accuracy_forget")
    return run.values(model, forget_set, "mae_forget")


def gap(run: Run, forget_set: str, evaluated: Model) -> Gap:
    """Compares an unlearned model with M_O and M_R; seeds with a failed member are left out."""
    by_method = {m.method: m for m in run.models(forget_set)}
    errors = {"o": error_on_forget(run, by_method["original"], forget_set),
              "r": error_on_forget(run, by_method["retrain"], forget_set),
              "e": error_on_forget(run, evaluated, forget_set)}
    paired = pd.DataFrame(errors)
    # M_e's failures say nothing about the gap
    both = paired[["o", "r"]].dropna()
    gaps = both.r - both.o
    whole = paired.dropna()
    shift, rest = whole.e - whole.o, whole.r - whole.e
    share = shift / gaps[whole.index] if len(gaps) and (gaps > 0).all() else []
    return Gap(estimate(gaps), estimate(shift), estimate(rest), estimate(share))


def sentences(run: Run, forget_set: str) -> list[str]:
    """The verdict in words: on the gap, then on each unlearned model."""
    metric = _metric(run)
    found = [(m, gap(run, forget_set, m)) for m in run.unlearned(forget_set)]
    original = next(m for m in run.models(forget_set) if m.method == "original")
    g = found[0][1].gap if found else gap(run, forget_set, original).gap
    lines = [f"{forget_set}: {_on_gap(run, metric, g)}"]
    lines += [f"{forget_set}, {model_symbol(m)}: {_on_model(metric, each)}" for m, each in found]
    return lines


def table(run: Run) -> Table | None:
    """All forget sets and unlearned models in one table; None if nothing was unlearned."""
    metric, share = _metric(run), Metric("", "", "", 0, True)
    what = "1 − accuracy" if run.classification else "the MAE"
    rows = []
    for forget_set in run.forget_sets:
        for model in run.unlearned(forget_set):
            g = gap(run, forget_set, model)
            rows.append((
                Cell(forget_set), Cell(model_symbol(model)), number(metric, g.gap),
                number(metric, g.shift), number(metric, g.rest),
                number(share, g.share if g.share.n else None)))
    if not rows:
        return None
    unit = metric.header
    return Table(
        f"Differences on the forget set: {ROUGH}. Each is taken within a seed, then averaged "
        "over the seeds where all models concerned are finite. A difference is established where "
        "its interval excludes 0.",
        (("forget set", "which D_f"), ("M_e", "the unlearned model and its budget"),
         (f"M_R − M_O ({unit})", f"{what} on D_f of M_R minus that of M_O, {unit}: what there is "
          "to forget"),
         (f"M_e − M_O ({unit})", f"{what} on D_f of M_e minus that of M_O, {unit}: how far "
          "unlearning went"),
         (f"M_R − M_e ({unit})", f"{what} on D_f of M_R minus that of M_e, {unit}: what is left; "
          "below 0, M_e errs more than a model that never saw D_f"),
         ("gap closed (%)", "(M_e − M_O) / (M_R − M_O) per seed, in %: 0 is M_O, 100 is M_R; "
          "“–” where M_R does not err more than M_O in every seed")),
        tuple(rows))


def _metric(run: Run) -> Metric:
    if run.classification:
        return Metric("", "percentage points", "", 1, True)
    return Metric("", run.unit, "", 2)


def _on_gap(run: Run, metric: Metric, g: Estimate) -> str:
    what = "share of wrong answers on D_f" if run.classification else "MAE on D_f"
    if g.n == 0:
        return f"no seed has a finite {what} of both M_O and M_R, so nothing can be said."
    text = (f"the {what} of M_R minus that of M_O is {_signed(metric, g.mean)} {metric.header}"
            f"{_interval(metric, g)}")
    if g.n == 1:
        return f"{text}. One seed gives no interval: nothing is established."
    if g.above_zero:
        return (f"{text}. The interval excludes 0: retraining without the forget set costs "
                "accuracy on it, so there is something to forget.")
    if g.below_zero:
        return (f"{text}. The interval excludes 0 on the wrong side: M_R errs less on the forget "
                "set than M_O, which trained on it. There is no gap for unlearning to close.")
    return (f"{text}. The interval includes 0: no difference between M_R and M_O is established, "
            "so these numbers cannot show whether anything was forgotten.")


def _on_model(metric: Metric, each: Gap) -> str:
    if each.shift.n == 0:
        return "no seed has finite values for all three models, so nothing can be said."
    text = (f"errs {_signed(metric, each.shift.mean)} {metric.header} against M_O on D_f"
            f"{_interval(metric, each.shift)}")
    if each.share.n:
        share = Metric("", "", "", 0, True)
        text += (f" and closes {share.text(each.share.mean)} % of the gap"
                 f"{_interval(share, each.share, ' %')}")
    if each.shift.n == 1:
        return f"{text}. One seed gives no interval: nothing is established."
    if not each.gap.above_zero:
        return f"{text}. Without an established gap this does not tell forgetting from noise."
    if each.shift.below_zero:
        return f"{text}. It moved away from M_R: it errs less on the forget set than before."
    if not each.shift.above_zero:
        return f"{text}. The interval includes 0: it is not shown to have forgotten anything."
    if each.rest.above_zero:
        return f"{text}. It lies between M_O and M_R: some was forgotten, not all."
    if each.rest.below_zero:
        return (f"{text}. It lies beyond M_R: it errs more on the forget set than a model that "
                "never saw it, which is itself a trace of the data.")
    return f"{text}. On this measure it is not distinguishable from M_R."


def _interval(metric: Metric, e: Estimate, unit: str = "") -> str:
    if e.n < 2:
        return f" (n={e.n}, no interval)"
    return (f" (95 % interval {metric.text(e.low)} to {metric.text(e.high)}{unit}, "
            f"{e.n} seeds)")


def _signed(metric: Metric, value: float) -> str:
    return ("+" if value >= 0 and math.isfinite(value) else "") + metric.text(value)
