"""The tables of results: the numbers of results.csv over seeds, arranged to be read."""

from unlearn_jax.errors import ReportError
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render.document import Cell, Table, Text
from unlearn_jax.report.tables.cells import (
    EPOCHS_COLUMN,
    MODEL_COLUMN,
    NONE,
    ROUGH,
    epochs_cell,
    number,
)
from unlearn_jax.report.tables.forgetting import alphas_of, ceiling
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric, describe, model_title
from unlearn_jax.report.tables.origins import trace
from unlearn_jax.report.tables.stats import Estimate, estimate_metric

ATTACKED = ("Attacks use the samples of D_f in the training set, with the labels of training. They "
            "leave out the validation samples of D_f, on which no model was trained.")
NOT_W1 = ", except for W1 on D_f, where each model is compared with the M_R of its own seed"
# Audits with a value for each sample, as sentences name them.
_BY_SAMPLE = {"lira": "U-LiRA", "challenge": "the challenge's forgetting quality"}
MANY = 64  # seeds from which on nothing is said about their number
TPR = (" A TPR is given only at rates at which at least one test sample can be taken for a member: "
       "at 0.01 with 100 test samples or more.")



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
        run, forget_set, "results", names, run.models(forget_set),
        f"Forget set {forget_set}: {ROUGH}. The baseline always answers the training set's "
        f"{baseline} and depends on no seed; “–”: not defined for this model.")


def headline_metrics(run: Run) -> list[str]:
    return catalogue.columns(catalogue.HEADLINE, run.classification, run.alpha)


def by_alpha(run: Run, forget_set: str) -> Table | None:
    """A table of Forgetting at each threshold alpha, with one row for each model.

    The last row has the ceiling, which is the Forgetting of one M_R against another. Returns None
    if the run has no Forgetting metric.
    """
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
        "of the model on the same sample and seed. A small α requires nearly equal errors, a large "
        "α tolerates differences. The last row is the ceiling, M_R against the M_Rs of other "
        "seeds. It bounds Forgetting against M_Rs of other seeds, which summary.csv has as "
        "forgetting_across, beside F for each α. Models of one seed started from the same weights "
        "and can agree more.",
        tuple(columns), tuple(rows), name=f"forgetting-{forget_set}")


def averaged(run: Run, forget_set: str) -> Table | None:
    """The same numbers for the mean prediction of the seeds; None where results.csv has none."""
    names = [n for n in headline_metrics(run) if _present(run, forget_set, catalogue.AVERAGED + n)]
    if not names:
        return None
    models = [m for m in run.models(forget_set)
              if any(len(run.values(m, forget_set, catalogue.AVERAGED + n)) for n in names)]
    what = "class probabilities" if run.classification else "predictions"
    return _model_table(
        run, forget_set, "averaged", names, models,
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
        run, forget_set, "speedups", names, models,
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
    return _model_table(run, forget_set, "further", names, run.models(forget_set),
                        f"Further measures, forget set {forget_set}: {ROUGH}.")


def audits(run: Run, forget_set: str) -> list[Table]:
    """Attacks and distances: one table of values by member, one of values of whole populations."""
    rows = run.results[run.results.forget_set == forget_set]
    found = rows.metric.unique().tolist()
    names = [n for record in catalogue.RECORDS if record.table == "audits"
             for n in found if catalogue.find(n) is record]
    models = [m for m in run.models(forget_set) if m.method != "median"]
    own = [n for n in names if not catalogue.has_no_seed(n)]
    whole = [n for n in names if catalogue.has_no_seed(n)]
    row = ("M_R's row is what is reached without any memory of D_f"
           if run.only(forget_set, "retrain") else
           "There is no M_R, whose row would say what is reached without any memory of D_f")
    members = (f"Audits, forget set {forget_set}: {ROUGH}. {row}"
               f"{NOT_W1 * ('w1_forget' in own)}. {ATTACKED}"
               + (TPR if any(n.startswith("mia") for n in own) else ""))
    together = (f"Audits over all seeds together, forget set {forget_set}: one value each, so no "
                f"interval but that of the forgetting quality. {row}. {ATTACKED}")
    return [_model_table(run, forget_set, kind, chosen, models, caption, whole=chosen is whole)
            for kind, chosen, caption in (("audits", own, members),
                                          ("population-audits", whole, together)) if chosen]


def few_seeds(run: Run) -> Text | None:
    """What the number of seeds means for audits that judge each sample by itself; None without any.

    Also None where there are at least `MANY` seeds.
    """
    asked = [name for name in run.run["config"]["eval"].get("audits", ()) if name in _BY_SAMPLE]
    n = len(run.seeds)
    if not asked or n >= MANY:
        return None
    names = " and ".join(_BY_SAMPLE[name] for name in asked)
    judge = "judges" if len(asked) == 1 else "judge"
    text = (f"{names[0].upper()}{names[1:]} {judge} each sample of D_f by itself, from one value "
            f"per model: here from {n} model{'s' if n != 1 else ''} of each kind, one per seed.")
    if "lira" in asked:
        text += (f" U-LiRA compares half of them with the other half, {n // 2} with {n // 2}"
                 + (", and is computed from 8 seeds on" if n < 8 else "") + ".")
    return Text(f"{text} With so few models the value of a single sample, and the largest of all "
                "samples, is mostly chance. Only means over D_f count, beside M_R's row, which has "
                "as many models; and an attack with more models may find what this one misses.")


def _model_table(run: Run, forget_set: str, kind: str, names: list[str], models: list[ModelKey],
                 caption: str, prefix: str = "", whole: bool = False) -> Table:
    metrics = [describe(run, name) for name in names]
    rows = []
    for model in models:
        cells = []
        for metric in metrics:
            # the ceiling belongs to M_R; its value is repeated beside every Forgetting value
            source: ModelKey | None = model
            name = prefix + metric.name
            if catalogue.of_reference(metric.name) and model.method not in ("median", "retrain"):
                source, name = run.only(forget_set, "retrain"), metric.name
            cell = number(metric, _estimate(run, source, forget_set, name),
                          fixed=whole or bool(prefix) or model.method == "median")
            cells.append(trace(run, cell, source, forget_set, name, 100 if metric.percent else 1))
        rows.append((*_head(run, model), *cells))
    columns = (MODEL_COLUMN, EPOCHS_COLUMN, *((m.header, m.definition) for m in metrics))
    return Table(caption, columns, tuple(rows), name=f"{kind}-{forget_set}")


def _head(run: Run, model: ModelKey) -> tuple[Cell, Cell]:
    return Cell(model_title(run, model), sort=run.rank[model.method]), epochs_cell(model.epochs)


def _estimate(run: Run, model: ModelKey | None, forget_set: str, metric: str) -> Estimate | None:
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
