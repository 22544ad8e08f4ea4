"""The tables of results: the numbers of results.csv over seeds, arranged to be read."""

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render.document import Cell, Table
from unlearn_jax.report.tables.files import ReportError
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, describe, model_title
from unlearn_jax.report.tables.origins import trace
from unlearn_jax.report.tables.stats import Estimate, estimate_metric

NONE = Cell("–", sort=float("nan"))
ROUGH = ("mean ± half the width of its 95 % interval (Student's t over seeds; of what is a mean "
         "over pairs of seeds the jackknife over seeds), with the number of seeds in brackets")
ATTACKED = ("Attacks judge models by the samples of D_f that were trained on, with the labels they "
            "were trained with: its validation samples no model ever learned.")
NOT_W1 = ", but for W1 on D_f, where models have the M_R of their own seed beside them"
TPR = (" A TPR is given only at rates that allow one of the test samples at least to be taken for "
       "a member: at 0.01 from 100 of them on.")
MODEL_COLUMN = ("model", "M_O was trained on all training data, M_R from the same start without "
                "the forget set; the others, but for ensembles (SISA), started from M_O and are to "
                "become like M_R")
EPOCHS_COLUMN = ("epochs", "what the method was given, in epochs; for M_R the most that training "
                 "may take")


def headline(run: Run, forget_set: str) -> Table:
    """One row per model with the numbers a paper would print.

    Raises:
      ReportError: results.csv lacks a metric that the table cannot do without.
    """
    names = headline_metrics(run)
    _require(run, forget_set, names[:2])
    names = [n for n in names if _present(run, forget_set, n)]
    baseline = "majority class" if run.classification else "median label"
    return _model_table(
        run, forget_set, names, run.models(forget_set),
        f"Forget set {forget_set}: {ROUGH}. The baseline always answers the training set's "
        f"{baseline} and knows no seed; “–”: not defined for this model.")


def headline_metrics(run: Run) -> list[str]:
    return catalogue.columns(catalogue.HEADLINE, run.classification, run.alpha)


def by_alpha(run: Run, forget_set: str) -> Table | None:
    """Forgetting for every alpha, the ceiling in the last row; None without such metrics."""
    alphas = alphas_of(run, forget_set)
    if not alphas:
        return None
    unit = "" if run.classification else f" {run.unit}"
    columns = [MODEL_COLUMN, EPOCHS_COLUMN]
    columns += [(f"α = {a}", f"Forgetting with α = {a}{unit}: "
                 "mean over D_f of exp(−|r − e| / α)") for a in alphas]
    rows, plain = [], Metric()
    for model in run.models(forget_set):
        found = [_estimate(run, model, forget_set, f"forgetting@{a}") for a in alphas]
        if any(e is not None for e in found):
            rows.append((*_head(run, model), *(
                trace(run, number(plain, e), model, forget_set, f"forgetting@{a}")
                for a, e in zip(alphas, found))))
    ceilings = [ceiling(run, forget_set, a) for a in alphas]
    if any(e is not None for e in ceilings):
        reference = run.only(forget_set, "retrain")
        rows.append((Cell("ceiling: M_R against M_R of other seeds"), NONE, *(
            trace(run, number(plain, e), reference, forget_set, f"ceiling@{a}")
            for a, e in zip(alphas, ceilings))))
    what = "1 − p(true class)" if run.classification else "absolute errors"
    return Table(
        f"Forgetting against α, forget set {forget_set}: {ROUGH}. r and e are {what} of M_R and "
        "of the model on the same sample and seed. A small α asks for nearly equal errors, a "
        "large one forgives. The last row is the ceiling, M_R against the M_Rs of other seeds: it "
        "bounds Forgetting against M_Rs of other seeds (forgetting_across in summary.csv, as is F "
        "for each α), while models of one seed grew from the same weights and can agree more.",
        tuple(columns), tuple(rows))


def averaged(run: Run, forget_set: str) -> Table | None:
    """The same numbers for the seeds' mean prediction; None where results.csv has none."""
    names = [n for n in headline_metrics(run) if _present(run, forget_set, catalogue.AVERAGED + n)]
    if not names:
        return None
    models = [m for m in run.models(forget_set)
              if any(len(run.values(m, forget_set, catalogue.AVERAGED + n)) for n in names)]
    what = "class probabilities" if run.classification else "predictions"
    return _model_table(
        run, forget_set, names, models,
        f"Averaged prediction, forget set {forget_set}: the seeds' {what} are averaged first and "
        "the mean is measured as if it were one model. One value, so no interval. Metrics at "
        "other α and the remaining splits stand in summary.csv, with the prefix “averaged:”.",
        prefix=catalogue.AVERAGED)


def speedups(run: Run, forget_set: str) -> Table | None:
    """How many times cheaper than retraining SISA's deletion was; None where there is none."""
    names = [n for n in run.results.metric.unique().tolist()
             if catalogue.shown_in(n, "speedups") and _present(run, forget_set, n)]
    if not names:
        return None
    models = [m for m in run.models(forget_set) if len(run.values(m, forget_set, names[0]))]
    return _model_table(
        run, forget_set, names, models,
        f"How many times cheaper than retraining M_R the deletion was, forget set {forget_set}: "
        f"{ROUGH}. Shards and slices are drawn anew for each seed.")


def others(run: Run, forget_set: str) -> Table | None:
    """Every metric that the headline and the table by alpha do not show."""
    shown = set(headline_metrics(run))
    rows = run.results[run.results.forget_set == forget_set]
    names = [n for n in rows.metric.unique().tolist()
             if n not in shown and catalogue.shown_in(n, "further")]
    if not names:
        return None
    return _model_table(run, forget_set, names, run.models(forget_set),
                        f"Further measures, forget set {forget_set}: {ROUGH}.")


def audits(run: Run, forget_set: str) -> list[Table]:
    """What attacks and distances say: a table of members' values, one of whole populations'."""
    rows = run.results[run.results.forget_set == forget_set]
    found = rows.metric.unique().tolist()
    names = [n for record in catalogue.RECORDS if record.table == "audits"
             for n in found if catalogue.find(n) is record]
    models = [m for m in run.models(forget_set) if m.method != "median"]
    own = [n for n in names if not catalogue.has_no_seed(n)]
    whole = [n for n in names if catalogue.has_no_seed(n)]
    captions = ((own, f"Audits, forget set {forget_set}: {ROUGH}. M_R's row is what is reached "
                      f"without any memory of D_f{NOT_W1 * ('w1_forget' in own)}. {ATTACKED}"
                      + (TPR if any(n.startswith("mia") for n in own) else "")),
                (whole, f"Audits over all seeds together, forget set {forget_set}: one value "
                        "each, so no interval but that of the forgetting quality. M_R's row is "
                        f"what is reached without any memory of D_f. {ATTACKED}"))
    return [_model_table(run, forget_set, chosen, models, caption, whole=chosen is whole)
            for chosen, caption in captions if chosen]


def failures(run: Run) -> Table | None:
    """The members with a value that is no number and the metrics concerned; None if none."""
    # FLOPs may not have been counted; a member that failed has other values to tell by.
    counted = run.results[~run.results.metric.isin(("flops", "flops_vs_retrain"))]
    bad = counted[counted.value.isna()]
    if bad.empty:
        return None
    identity = ["method", "forget_set", "epochs", "seed"]
    totals = counted.groupby(identity).size()
    rows = []
    for key, group in bad.groupby(identity, sort=False):
        method, forget_set, epochs, seed = key
        names = "every metric" if len(group) == totals[key] else ", ".join(group.metric)
        who = "averaged prediction" if seed == catalogue.NO_SEED else str(seed)
        rows.append((Cell(model_title(run, ModelKey(method, epochs))), Cell(forget_set),
                     epochs_cell(epochs), Cell(who, sort=seed), Cell(names)))
    return Table(
        "Values that are not numbers: the member failed in training, or its weights are finite "
        "and its outputs are not (a warning says which), or it is measured against such a one. "
        "They are left out of means, intervals and figures; n counts the rest.",
        (MODEL_COLUMN, ("forget set", "which forget set"), EPOCHS_COLUMN,
         ("seed", "the member's seed"), ("no number", "the metrics of results.csv concerned")),
        tuple(rows))


def failed_members(run: Run) -> set[tuple[str, str, int]]:
    """(method, forget set, seed) of the members whose own predictions are no numbers."""
    # not by utility or Forgetting: they also fail where the M_R of the same seed did
    bad = run.results[run.results.value.isna() & (run.results.seed >= 0)
                      & (run.results.metric == headline_metrics(run)[0])]
    # M_O is one model, however many forget sets it is measured on
    return {(m, "" if m == "original" else fs, s)
            for m, fs, s in zip(bad.method, bad.forget_set, bad.seed)}


def alphas_of(run: Run, forget_set: str) -> list[str]:
    """The alphas of results.csv for a forget set, ascending, as they are written there."""
    rows = run.results[run.results.forget_set == forget_set]
    found = {n.removeprefix("forgetting@") for n in rows.metric if n.startswith("forgetting@")}
    try:
        return sorted(found, key=float)
    except ValueError:
        raise ReportError("results.csv: the column 'metric' holds forgetting@ALPHA with an ALPHA "
                          f"that is no number; found: {', '.join(sorted(found))}") from None


def ceiling(run: Run, forget_set: str, alpha: str) -> Estimate | None:
    """The retrain ceiling; None with one seed."""
    return _estimate(run, run.only(forget_set, "retrain"), forget_set, f"ceiling@{alpha}")


def number(metric: Metric, e: Estimate | None, fixed: bool = False) -> Cell:
    """`mean ± half-width (n)`; the mean alone of what was timed once for all seeds.

    Args:
      fixed: for a value that knows no seed.
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


def _model_table(run: Run, forget_set: str, names: list[str], models: list[ModelKey],
                 caption: str, prefix: str = "", whole: bool = False) -> Table:
    metrics = [describe(run, name) for name in names]
    rows = []
    for model in models:
        cells = []
        for metric in metrics:
            # the ceiling is a property of M_R, and stands beside every Forgetting value
            source, name = model, prefix + metric.name
            if catalogue.of_reference(metric.name) and model.method not in ("median", "retrain"):
                source, name = run.only(forget_set, "retrain"), metric.name
            cell = number(metric, _estimate(run, source, forget_set, name),
                          fixed=whole or bool(prefix) or model.method == "median")
            cells.append(trace(run, cell, source, forget_set, name, 100 if metric.percent else 1))
        rows.append((*_head(run, model), *cells))
    columns = (MODEL_COLUMN, EPOCHS_COLUMN, *((m.header, m.definition) for m in metrics))
    return Table(caption, columns, tuple(rows))


def _head(run: Run, model: ModelKey) -> tuple[Cell, Cell]:
    return Cell(model_title(run, model), sort=run.rank[model.method]), epochs_cell(model.epochs)


def epochs_cell(epochs: int) -> Cell:
    """A budget; none of M_O and the median, which were not given one."""
    return Cell(str(epochs), sort=epochs) if epochs else NONE


def _estimate(run: Run, model: ModelKey, forget_set: str, metric: str) -> Estimate | None:
    values = run.values(model, forget_set, metric)
    return estimate_metric(metric, values) if len(values) else None


def _present(run: Run, forget_set: str, metric: str) -> bool:
    r = run.results
    return bool(((r.forget_set == forget_set) & (r.metric == metric)).any())


def _require(run: Run, forget_set: str, names: list[str]) -> None:
    for model in run.models(forget_set):
        for name in names:
            if model.method != "median" and not len(run.values(model, forget_set, name)):
                raise ReportError(
                    f"results.csv: no rows with method={model.method!r}, forget_set="
                    f"{forget_set!r}, epochs={model.epochs}, metric={name!r}")
