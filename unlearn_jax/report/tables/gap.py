"""How M_O, M_R and an unlearned model differ on D_f, seed by seed."""

import dataclasses

import pandas as pd

from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.stats import Estimate, estimate


@dataclasses.dataclass(frozen=True)
class ErrorGap:
    """How M_O, M_R and M_e differ on D_f; all differences are within a seed, then averaged.

    M_e is compared with the M_O that it started from. That is the M_O of its seed, or one M_O for
    all seeds (`unlearn.from_seed`); intervals are then conditional on this M_O.

    The error is the MAE on D_f (label units), or 1 − accuracy on D_f.

    Attributes:
      gap: error(M_R) − error(M_O): what there is to forget.
      shift: error(M_e) − error(M_O): how far M_e went.
      rest: error(M_R) − error(M_e): what is left to go.
      share: shift / gap. It has no values unless the gap is positive in every seed and, with two
        seeds or more, established.
    """

    gap: Estimate
    shift: Estimate
    rest: Estimate
    share: Estimate


def error_metric(run: Run) -> str:
    """The metric of results.csv whose differences are taken."""
    return "accuracy_forget" if run.classification else "mae_forget"


def error_on_forget(run: Run, model: ModelKey | None, forget_set: str) -> pd.Series:
    """Error by seed: MAE in label units, or the share of D_f that is classified wrongly."""
    values = run.values(model, forget_set, error_metric(run))
    return 1 - values if run.classification else values


def _error_before(run: Run, evaluated: ModelKey | None, forget_set: str) -> pd.Series:
    """The error of the M_O that each seed's model started from."""
    errors = error_on_forget(run, run.only(forget_set, "original"), forget_set)
    seed = run.from_seed(evaluated, forget_set, error_metric(run))
    return errors if seed < 0 else pd.Series(errors.get(seed), errors.index, dtype=float)


def error_gap(run: Run, forget_set: str, evaluated: ModelKey | None) -> ErrorGap:
    """Compares an unlearned model with M_O and M_R; seeds with a failed member are left out."""
    errors = {"o": _error_before(run, evaluated, forget_set),
              "r": error_on_forget(run, run.only(forget_set, "retrain"), forget_set),
              "e": error_on_forget(run, evaluated, forget_set)}
    paired = pd.DataFrame(errors)
    # a failed M_e does not affect the gap
    both = paired[["o", "r"]].dropna()
    whole = paired.dropna()
    shift, rest = whole.e - whole.o, whole.r - whole.e
    return ErrorGap(estimate(both.r - both.o), estimate(shift), estimate(rest),
                    estimate(share_closed(run, forget_set, evaluated)))


def share_closed(run: Run, forget_set: str, evaluated: ModelKey | None) -> pd.Series:
    """(M_e − M_O) / (M_R − M_O) by seed; empty where no gap is established."""
    o = _error_before(run, evaluated, forget_set)
    r, e = (error_on_forget(run, m, forget_set) for m in (
        run.only(forget_set, "retrain"), evaluated))
    gaps = (r - o).dropna()
    between = estimate(gaps)
    # a ratio to a gap that may be 0 has no meaning
    sound = len(gaps) and (gaps > 0).all() and (between.n == 1 or between.above_zero)
    return ((e - o) / gaps).dropna() if sound else pd.Series(dtype=float)


def sets_with_gap(run: Run) -> list[str]:
    """The forget sets on which M_R errs more than M_O, by an interval that excludes 0."""
    return [name for name in run.forget_sets
            if error_gap(run, name, run.only(name, "original")).gap.above_zero]
