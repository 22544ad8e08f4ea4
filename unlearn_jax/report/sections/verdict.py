"""Did it work? Differences on the forget set, seed by seed, with their intervals."""

import dataclasses
from collections.abc import Sequence

from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Cell, Items, Section, Table, Text
from unlearn_jax.report.sections import summary
from unlearn_jax.report.sections.headline import headline_metrics
from unlearn_jax.report.tables import judgement, origins
from unlearn_jax.report.tables.cells import ROUGH, number
from unlearn_jax.report.tables.forgetting import ceiling
from unlearn_jax.report.tables.gap import ErrorGap, error_gap, error_metric
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.judgement import judge_all
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


def section(run: Run, output: Output) -> Section:
    """The verdicts, also as verdict.csv; then the differences in words and in one table."""
    judgements = judge_all(run)
    output.write("verdict.csv", judgement.table(judgements))
    judged = summary.table(run, judgements)
    blocks: list[Block] = [judged] if judged else []
    for forget_set in run.forget_sets:
        lead = f"Forget set {forget_set}. " if len(run.forget_sets) > 1 else ""
        references = [run.only(forget_set, m) for m in ("original", "retrain")]
        blocks.append(Text(lead + on_gap(run, forget_set),
                           links=_stage_links(run, references, forget_set)))
        models = run.unlearned(forget_set)
        if models:
            blocks.append(Items(tuple(
                Text(on_model(run, forget_set, m),
                     links=_stage_links(run, [m], forget_set)) for m in models)))
    differences = table(run)
    return Section("Did it work?", (*blocks, *([differences] if differences else [])))


def _stage_links(run: Run, models: Sequence[ModelKey | None],
                 forget_set: str) -> tuple[tuple[str, str], ...]:
    return origins.stage_links(run, models, forget_set, error_metric(run))


def on_gap(run: Run, forget_set: str) -> str:
    """In words: whether M_O has learned, and whether M_R errs more on the forget set."""
    original = run.only(forget_set, "original")
    metric = _metric(run)
    if missing := run.without(forget_set):
        names = "are no " + " and ".join(f"predictions of {symbol(m)}" for m in missing)
        if "scored" not in run.run:
            names = f"is no {' and no '.join(map(symbol, missing))}"
        return (f"{_on_use(run, forget_set, original)}There {names}, so it is not known whether "
                "there is anything to forget.")
    g = error_gap(run, forget_set, original).gap
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


def on_model(run: Run, forget_set: str, model: ModelKey) -> str:
    """In words: where an unlearned model stands between M_O and M_R."""
    metric, share = _metric(run), Metric(decimals=0, percent=True)
    each = error_gap(run, forget_set, model)
    name = model_symbol(model)
    if missing := run.without(forget_set):
        attack = ", except by the attack above" if "retrain" in missing else ""
        return f"{name} cannot be judged without {' and '.join(map(symbol, missing))}{attack}."
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
    """A sentence where the models of all seeds started from one M_O; '' for other runs."""
    seeds = sorted({seed for fs in run.forget_sets for m in models
                    if (seed := run.from_seed(m, fs, error_metric(run))) >= 0})
    if not seeds:
        return ""
    return (" Models of all seeds started from the M_O of seed "
            f"{', '.join(map(str, seeds))} and are compared with it: intervals are conditional on "
            "that M_O"
            + ("." if pretrained(run) else
               ", and only the M_R of that seed started from the weights that it did."))


def _standing(each: ErrorGap, ensemble: bool) -> str:
    if each.shift.n == 1:
        return "has one seed with finite values, so nothing is established"
    if not each.gap.above_zero:
        return "cannot be judged without an established gap"
    if each.shift.below_zero:
        return "moved away from M_R"
    if not each.shift.above_zero:
        return "is not shown to have forgotten (its change from M_O may be 0)"
    if each.rest.above_zero:
        return "lies between M_O and M_R"
    if each.rest.below_zero and ensemble:
        return "lies beyond M_R, as weaker models may: each of its constituents saw one shard"
    if each.rest.below_zero:
        return "lies beyond M_R, which is itself a trace of the forget set"
    return "is not shown to differ from M_R on this measure (the difference may be 0)"


def table(run: Run) -> Table | None:
    """All forget sets and unlearned models in one table; None if nothing can be compared."""
    metric, share = _metric(run), Metric(decimals=0, percent=True)
    what = "1 − accuracy" if run.classification else "the MAE"
    rows = []
    for forget_set in run.forget_sets:
        for model in () if run.without(forget_set) else run.unlearned(forget_set):
            g = error_gap(run, forget_set, model)
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
        "over the seeds in which all of its models are finite. A difference is established where "
        f"its interval excludes 0, whatever the digits shown: marked * (the gap closed is not "
        f"marked){points}." + on_start(
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
        tuple(rows), name="differences")


def _marked(cell: Cell, difference: Estimate | None) -> Cell:
    """The cell with a star where a difference is established, which rounded ends may not show."""
    if difference is None or not (difference.above_zero or difference.below_zero):
        return cell
    return dataclasses.replace(cell, note=f"{cell.note} *".strip())


def _metric(run: Run) -> Metric:
    if run.classification:
        return Metric(header="points", decimals=1, percent=True)
    return Metric(header=run.unit, decimals=2)


def _on_use(run: Run, forget_set: str, original: ModelKey | None) -> str:
    """Whether M_O has learned anything; unlearning a useless model would show nothing."""
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
                                "the comparisons below mean little. ")


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
    untouched, reached = (metric.text(e.mean) for e in across)
    return (f"{text}. Against M_Rs of other seeds it is {reached}; there M_O has {untouched}, and "
            f"the ceiling is {metric.text(top.mean)}.")


def _distance(metric: Metric, value: float, more: str, less: str) -> str:
    return f"{metric.text(abs(value))} {metric.header} {less if value < 0 else more}"


def interval(metric: Metric, e: Estimate, unit: str = "") -> str:
    """In words, in brackets, to stand behind a mean."""
    if e.n < 2:
        return f" (n={e.n}, no interval)"
    return (f" (95 % interval {metric.text(e.low)} to {metric.text(e.high)}{unit}, "
            f"{e.n} seeds)")
