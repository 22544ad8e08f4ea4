"""What explanations say, from explain.csv, channels.csv and explanations/FORGETSET.npz."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from unlearn_jax.report.figures import explanations
from unlearn_jax.report.render import html, markdown
from unlearn_jax.report.render.document import Cell, Code, Document, Figure, Section, Table, Text
from unlearn_jax.report.sections import headline
from unlearn_jax.report.tables.files import read_json, refuse_repeats, rows_of
from unlearn_jax.report.tables.inputs import ModelKey, Run, read_run
from unlearn_jax.report.tables.names import Metric, model_title, pretrained
from unlearn_jax.report.tables.stats import Estimate, estimate, estimate_pairs
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk

FILE = "explain.csv"
_COLUMNS = ("method", "forget_set", "epochs", "seed", "set", "map", "measure", "against", "seeds",
            "value", "samples")
_MAPS = {"ig": "integrated gradients", "gradcam": "Grad-CAM"}
_SETS = {"forget": "D_f", "retain": "D_r", "forget-retain": "D_f − D_r"}
_NUMBER, _SHARE = Metric(decimals=2), Metric(decimals=1, percent=True)
_FEW = 16  # places of a map
# (against, seeds) of the columns that tables show, and their titles
_AGAINST = {("retrain", "other"): "M_R of other seeds", ("retrain", "same"): "M_R",
            ("original", "same"): "M_O"}


def read(run: Run, forget_set: str) -> pd.DataFrame | None:
    """The rows of a forget set; None where nothing was explained.

    Raises:
      ReportError: explain.csv is malformed, or has two rows for one number.
    """
    rows = rows_of(run.workdir, FILE, _COLUMNS, forget_set, ("epochs", "seed", "samples"),
                   ("value",))
    if rows is not None:
        refuse_repeats(rows, FILE, list(_COLUMNS[:9]))
    return rows


def section(run: Run, forget_set: str, figures: tuple[Figure, ...]) -> Section | None:
    """Everything on one forget set; None where nothing was explained."""
    rows = read(run, forget_set)
    if rows is None:
        return None
    counts = rows[rows.measure == "unexplained"].groupby("set").samples.max()
    images = ", ".join(f"{n} of {_SETS[name]}" for name, n in counts.items())
    height, width = explanations.read_arrays(run, forget_set)["gradcam"].shape[2:]
    text = (f"What is explained is {_value(run)}, on {images} (drawn at random, the same for every "
            "model). Integrated gradients say how much each pixel adds to it, beginning with a "
            f"{_baseline(run)} image; Grad-CAM says which of the {height} × {width} "
            "places of a late layer do. "
            "Independent models disagree in their maps: M_R's likeness to the M_Rs of other seeds "
            "is what no model can be asked to exceed. ")
    inner = [t for t in (_likeness(run, rows), _channels(run, rows)) if t]
    if height * width < _FEW:
        text += ("Of so few places a rank correlation says little; an earlier stage has more "
                 "(eval.explain_stage). ")
    return Section("Explanations", (Text(text + _missing(run, rows)), *inner, *figures))


def draw(run: Run, forget_set: str) -> list[Figure]:
    """Draws the pictures of a forget set into `figures/`; nothing where there is none to draw."""
    return explanations.draw(run, forget_set) if read(run, forget_set) is not None else []


def write_explained(workdir: Path, out: Path) -> Path:
    """Writes explain.md, explain.html and figures of the command `unlearn_jax.explain`.

    Args:
      workdir: of the run, for the names and colours of its models.
      out: holds explain.csv, channels.csv, explanations/ and run.json.

    Returns:
      The page.

    Raises:
      ReportError: a file is missing or malformed.
    """
    record = read_json(out, "run.json")
    run = dataclasses.replace(read_run(workdir), workdir=out, run=record)
    manifest.begin_report(out)
    (out / "figures").mkdir(exist_ok=True)
    parts = []
    for name in run.forget_sets:
        found = section(run, name, tuple(draw(run, name)))
        if found:
            parts.append(dataclasses.replace(found, title=f"Forget set {name}"))
    document = Document(f"{record['config_name']}: what the models look at", (
        Text(f"Explanations of the models of the run in {workdir}. M_O is the original model, M_R "
             "was retrained without the forget set D_f and is the reference; D_r is what stays."),
    ), (*parts, Section("How to reproduce", (Code(record["command"]),))))
    disk.write_file(out / "explain.md", markdown.render(document))
    disk.write_file(out / "explain.html", html.render(document, out))
    manifest.end_report(out)
    return out / "explain.html"


def _value(run: Run) -> str:
    return ("the logit of an image's own class" if run.classification
            else f"the predicted {run.label} in {run.unit}")


def _baseline(run: Run) -> str:
    return str(run.run["config"]["eval"]["explain_baseline"])


def _missing(run: Run, rows: pd.DataFrame) -> str:
    """How complete integrated gradients are."""
    rows = rows[rows.measure == "unexplained"]
    unit = "" if run.classification else f" {run.unit}"
    return (f"Integrated gradients leave {rows.value.mean():.2g}{unit} on average unexplained "
            f"(the larger, the more of eval.explain_steps are needed); details stand in {FILE}.")


def _models(run: Run, rows: pd.DataFrame) -> list[ModelKey]:
    found = {ModelKey(m, int(e)) for m, e in zip(rows.method, rows.epochs)}
    return sorted(found, key=lambda model: (run.rank[model.method], model.epochs))


def _likeness(run: Run, rows: pd.DataFrame) -> Table | None:
    rows = rows[rows.measure == "rank_correlation"]
    sets = [s for s in _SETS if (rows.set == s).any()]
    keys = [(pair, s) for pair in _AGAINST for s in sets if _any(rows, pair)]
    if not keys:
        return None
    cells: list[tuple[Cell, ...]] = []
    for name, title in _MAPS.items():
        for model in _models(run, rows):
            mine = _of(rows, model)
            mine = mine[mine["map"] == name]
            cells.append((_head(run, model), Cell(title), *(
                _cell(_NUMBER, mine, pair, s, estimate_pairs if pair[1] == "other" else estimate)
                for pair, s in keys)))
    return Table(
        "Likeness of maps: Spearman's rank correlation over the places of a map, mean over images; "
        f"{headline.ROUGH}. A map that is the same everywhere has none and is left out. D_f − D_r: "
        "of the mean map over the one less that over the other, which asks for images that are "
        f"aligned. Cosines stand in {FILE}.",
        (headline.MODEL_COLUMN, ("map", "what was compared"),
         *((f"{_AGAINST[pair]}, {_SETS[s]}", _definition(pair, s)) for pair, s in keys)),
        tuple(cells))


def _channels(run: Run, rows: pd.DataFrame) -> Table | None:
    rows = rows[rows.measure == "changed_channels"]
    sets = [s for s in _SETS if (rows.set == s).any()]
    keys = [(pair, s) for pair in _AGAINST for s in sets if _any(rows, pair)]
    if not keys or rows.value.isna().all():
        return None
    cells: list[tuple[Cell, ...]] = []
    for layer in rows["map"].unique():
        for model in _models(run, rows):
            mine = _of(rows, model)
            cells.append((_head(run, model), Cell(layer), *(
                _cell(_SHARE, mine[mine["map"] == layer], pair, s) for pair, s in keys)))
    return Table(
        "Channels that changed: share of a stage's channels whose mean activation over the whole "
        "set differs by more than 95 % of the channels of independent M_Rs do, after these were "
        f"matched by correlation; {headline.ROUGH}. So {_AGAINST['retrain', 'other']} are at 5 % "
        "on average. " + (f"All models began with the weights of {pretrained(run)}, seeds but for "
                       "the head" if pretrained(run) else
                       "Models of one seed share their first weights")
        + " and may stay below it. Every channel stands in channels.csv.",
        (headline.MODEL_COLUMN, ("stage", "whose output"),
         *((f"{_AGAINST[pair]}, {_SETS[s]} (%)", _definition(pair, s, "the next seed, matched"))
           for pair, s in keys)),
        tuple(cells))


def _any(rows: pd.DataFrame, pair: tuple[str, str]) -> bool:
    return ((rows.against == pair[0]) & (rows.seeds == pair[1])).any()


def _of(rows: pd.DataFrame, model: ModelKey) -> pd.DataFrame:
    return rows[(rows.method == model.method) & (rows.epochs == model.epochs)]


def _head(run: Run, model: ModelKey) -> Cell:
    return Cell(model_title(run, model))


def _cell(metric: Metric, rows: pd.DataFrame, pair: tuple[str, str], name: str,
          of_seeds: Callable[[pd.Series], Estimate] = estimate) -> Cell:
    values = rows[(rows.against == pair[0]) & (rows.seeds == pair[1]) & (rows.set == name)].value
    return headline.number(metric, of_seeds(values) if len(values) else None)


def _definition(pair: tuple[str, str], name: str,
                others: str = "every other seed, mean over all pairs") -> str:
    seeds = "the same seed" if pair[1] == "same" else others
    model = "M_R" if pair[0] == "retrain" else "M_O"
    return f"compared with {model} of {seeds}, on {_SETS[name]}"


