"""Members that failed, the run's own warnings, and files that do not fit together."""

from unlearn_jax.errors import ReportError
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.render.document import Block, Cell, Items, Section, Table, Text
from unlearn_jax.report.sections.headline import headline_metrics
from unlearn_jax.report.tables.cells import EPOCHS_COLUMN, MODEL_COLUMN, epochs_cell
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import model_symbol, model_title
from unlearn_jax.report.tables.predictions import parse_prediction_name

ANCHOR = "warnings"


def section(run: Run) -> Section:
    """Says so where there is nothing to warn of."""
    failed, found = failures(run), notes(run)
    blocks: list[Block] = [failed] if failed else [Text("No member failed.")]
    blocks.append(Items(tuple(found)) if found else Text("There are no warnings."))
    return Section("Warnings", tuple(blocks), anchor=ANCHOR)


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
        member = "averaged prediction" if seed == catalogue.NO_SEED else str(seed)
        rows.append((Cell(model_title(run, ModelKey(method, epochs))), Cell(forget_set),
                     epochs_cell(epochs), Cell(member, sort=seed), Cell(names)))
    return Table(
        "Values that are not numbers: the member failed in training, or its weights are finite "
        "and its outputs are not (a warning says which), or a member that it is compared with "
        "failed. They are left out of means, intervals and figures; n counts the rest.",
        (MODEL_COLUMN, ("forget set", "which forget set"), EPOCHS_COLUMN,
         ("seed", "the member's seed"), ("no number", "the metrics of results.csv concerned")),
        tuple(rows), name="failures")


def failed_members(run: Run) -> set[tuple[str, str, int]]:
    """(method, forget set, seed) of the members whose own predictions are no numbers."""
    # not by utility or Forgetting: these are no numbers either where the M_R of the seed failed
    bad = run.results[run.results.value.isna() & (run.results.seed >= 0)
                      & (run.results.metric == headline_metrics(run)[0])]
    # M_O is one model, however many forget sets it is measured on
    return {(m, "" if m == "original" else fs, s)
            for m, fs, s in zip(bad.method, bad.forget_set, bad.seed)}


def notes(run: Run) -> list[str]:
    """The run's own warnings, and files of the work directory that do not fit together."""
    # Earlier versions counted what a merger is made of among its warnings.
    sources = tuple(f"merged from {m['directory']}: " for m in run.run.get("merged", ()))
    notes = [w for w in map(str, run.run["warnings"]) if not w.startswith(sources)]
    own, other = run.data["fingerprint"], run.run.get("data_fingerprint")
    if other is not None and other != own:
        notes.append(f"data.json is of data {own}, run.json of data {other}: the files are not "
                     "of one run")
    return notes + seeds_apart(run) + _stray_predictions(run)


def seeds_apart(run: Run) -> list[str]:
    """Names the models and seeds where not all models of a forget set have the same seeds."""
    notes = []
    for forget_set in run.forget_sets:
        groups: dict[tuple[int, ...], list[str]] = {}
        for model in run.models(forget_set):
            if seeds := run.seeds_of(model, forget_set):
                groups.setdefault(seeds, []).append(model_symbol(model))
        if len(groups) > 1:
            parts = "; ".join(f"{', '.join(names)}: {', '.join(map(str, seeds))}"
                              for seeds, names in groups.items())
            notes.append(f"forget set {forget_set}: the rows of its tables are means over "
                         f"different seeds ({parts}), so a part of their differences is due to "
                         "the seeds")
    return notes


def _stray_predictions(run: Run) -> list[str]:
    """Files of predictions without a row in results.csv."""
    known = {(m.method, fs, m.epochs) for fs in run.forget_sets for m in run.models(fs)}
    strays = []
    for path in sorted((run.workdir / "predictions").glob("*.npz")):
        try:
            stray = parse_prediction_name(path.name)[:3] not in known
        except ReportError as error:
            strays.append(str(error))
            continue
        if stray:
            strays.append(f"predictions/{path.name} belongs to no model of results.csv")
    return strays
