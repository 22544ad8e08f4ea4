"""Explanations of models, from explain.csv, channels.csv and explanations/FORGETSET.npz."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn_jax.report.figures import explanations
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import html, markdown
from unlearn_jax.report.render.document import Cell, Code, Document, Figure, Section, Table, Text
from unlearn_jax.report.tables.cells import MODEL_COLUMN, ROUGH, number
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


def section(run: Run, forget_set: str, output: Output) -> Section | None:
    """Everything on one forget set; None where nothing was explained."""
    rows = read(run, forget_set)
    if rows is None:
        return None
    counts = rows[rows.measure == "unexplained"].groupby("set").samples.max()
    images = ", ".join(f"{n} of {_SETS[name]}" for name, n in counts.items())
    arrays = explanations.read_arrays(run, forget_set)
    height, width = arrays["gradcam"].shape[2:]
    text = (f"The explanations are about {_value(run)}, on {images} (drawn at random, the same for "
            "every model). Integrated gradients give the contribution of each pixel, starting from "
            f"a {_baseline(run)} image; Grad-CAM gives that of each of the {height} × {width} "
            "places of a late layer. "
            "Maps of independent models differ, so no model can be expected to exceed the likeness "
            "of M_R to the M_Rs of other seeds. ")
    inner = [t for t in (_likeness(run, forget_set, rows), _channels(run, forget_set, rows)) if t]
    if height * width < explanations.FEW:
        text += ("A rank correlation over so few places says little; an earlier stage has more "
                 "places (eval.explain_stage). ")
    return Section("Explanations", (Text(text + _missing(run, rows)), *inner,
                                    *_pictures(run, forget_set, arrays, output)))


def _pictures(run: Run, forget_set: str, arrays: dict[str, Any],
              output: Output) -> Iterator[Figure]:
    """Maps are images; channels are lines, whose values can be pointed at."""
    for kind, maker in (("samples", explanations.samples), ("means", explanations.means)):
        for name in explanations.TITLES:
            yield from output.draw(f"explained-{name}-{kind}-{forget_set}", maker, run, forget_set,
                                   arrays, name, values=False)
    yield from output.draw(f"explained-channels-{forget_set}", explanations.channels, run,
                           forget_set)


def write_explained(workdir: Path, out: Path) -> Path:
    """Writes explain.md, explain.html and figures of the command `unlearn_jax.explain`.

    Args:
      workdir: the run's work directory, for the names and colours of its models.
      out: holds explain.csv, channels.csv, explanations/ and run.json.

    Returns:
      The page.

    Raises:
      ReportError: a file is missing or malformed.
    """
    record = read_json(out, "run.json")
    run = dataclasses.replace(read_run(workdir), workdir=out, run=record)
    manifest.begin_report(out)
    parts: list[Section] = []
    for name in run.forget_sets:
        found = section(run, name, Output(out))
        if found:
            parts.append(dataclasses.replace(found, title=f"Forget set {name}",
                                             unfolded=not parts))
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
    return (f"On average integrated gradients leave {rows.value.mean():.2g}{unit} unexplained "
            f"(if this is large, eval.explain_steps should be larger); {FILE} has the details.")


def _models(run: Run, rows: pd.DataFrame) -> list[ModelKey]:
    found = {ModelKey(m, int(e)) for m, e in zip(rows.method, rows.epochs)}
    return sorted(found, key=lambda model: (run.rank[model.method], model.epochs))


def _likeness(run: Run, forget_set: str, rows: pd.DataFrame) -> Table | None:
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
        f"{ROUGH}. A constant map has no rank correlation and is left out; “–”: no map has one. "
        "D_f − D_r: the difference of the mean maps over D_f and over D_r, which is meaningful for "
        f"aligned images only. Cosines stand in {FILE}.",
        (MODEL_COLUMN, ("map", "what was compared"),
         *((f"{_AGAINST[pair]}, {_SETS[s]}", _definition(pair, s)) for pair, s in keys)),
        tuple(cells), name=f"maps-{forget_set}")


def _channels(run: Run, forget_set: str, rows: pd.DataFrame) -> Table | None:
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
        "set differs by more than that of 95 % of the channels of independent M_Rs, which are "
        f"matched by correlation first; {ROUGH}. So {_AGAINST['retrain', 'other']} are at 5 % "
        "on average. " + (f"All models began with the weights of {pretrained(run)}, seeds but for "
                       "the head" if pretrained(run) else
                       "Models of one seed share their first weights")
        + " and may stay below it. channels.csv has every channel.",
        (MODEL_COLUMN, ("stage", "whose output"),
         *((f"{_AGAINST[pair]}, {_SETS[s]} (%)", _definition(pair, s, "the next seed, matched"))
           for pair, s in keys)),
        tuple(cells), name=f"channels-{forget_set}")


def _any(rows: pd.DataFrame, pair: tuple[str, str]) -> bool:
    return ((rows.against == pair[0]) & (rows.seeds == pair[1])).any()


def _of(rows: pd.DataFrame, model: ModelKey) -> pd.DataFrame:
    return rows[(rows.method == model.method) & (rows.epochs == model.epochs)]


def _head(run: Run, model: ModelKey) -> Cell:
    return Cell(model_title(run, model))


def _cell(metric: Metric, rows: pd.DataFrame, pair: tuple[str, str], name: str,
          of_seeds: Callable[[pd.Series], Estimate] = estimate) -> Cell:
    values = rows[(rows.against == pair[0]) & (rows.seeds == pair[1]) & (rows.set == name)].value
    # a map or an activation that is constant in every seed has no such number
    return number(metric, of_seeds(values) if values.notna().any() else None)


def _definition(pair: tuple[str, str], name: str,
                others: str = "every other seed, mean over all pairs") -> str:
    seeds = "the same seed" if pair[1] == "same" else others
    model = "M_R" if pair[0] == "retrain" else "M_O"
    return f"compared with {model} of {seeds}, on {_SETS[name]}"


