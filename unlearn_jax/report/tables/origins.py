"""Where a number comes from: the stage that made its model, and the config that decides it."""

import dataclasses
from collections.abc import Sequence

from unlearn_jax.report.render.document import Cell, Links
from unlearn_jax.report.tables.inputs import ModelKey, Run

MOST_SEEDS = 8  # whose values are listed
_DATA, _ORIGINAL = ("data",), ("seeds", "data", "model", "train")
_OF_MODELS = ("predictions", "explain", "relearn")  # stages that make no models


def stage_anchor(key: str) -> str:
    """The anchor of a stage's row."""
    return f"stage-{key}"


def config_anchor(section: str) -> str:
    """The anchor of a section of the config; that of keys outside of any is `config-seeds`."""
    return f"config-{section}"


def trace(run: Run, cell: Cell, model: ModelKey | None, forget_set: str, metric: str,
          scale: float = 1.0) -> Cell:
    """The cell with a link to the stage that made its model, and the values by seed.

    Args:
      cell: holds the mean of a metric.
      metric: as in results.csv.
      scale: factor of the values that are listed.

    Returns:
      The cell as it is where results.csv names no stage, or one that run.json does not have.
    """
    key, values = run.origin(model, forget_set, metric), run.values(model, forget_set, metric)
    if model is None or not key or not len(values):
        return cell
    listed = [f"seed {seed}: {scale * value:.6g}" if seed >= 0 else f"{scale * value:.6g}"
              for seed, value in list(values.items())[:MOST_SEEDS]]
    if len(values) > MOST_SEEDS:
        listed.append(f"and {len(values) - MOST_SEEDS} more seeds")
    tip = (f"{metric} of {model.method}, forget set {forget_set}", *listed, *_tip(run, key))
    return dataclasses.replace(cell, link=stage_anchor(key), tip=tip)


def made_by(run: Run, cell: Cell, model: ModelKey, forget_set: str) -> Cell:
    """The cell with a link to the stage of a model, for values that are not in results.csv."""
    rows = run.results
    rows = rows[(rows.method == model.method) & (rows.epochs == model.epochs)
                & (rows.forget_set == forget_set)]
    keys = {run.origin(model, forget_set, metric) for metric in rows.metric.unique()} - {""}
    keys = {key for key in keys if run.stage(key)["stage"] not in _OF_MODELS}
    if len(keys) != 1:
        return cell
    return linked(run, cell, keys.pop())


def linked(run: Run, cell: Cell, key: str) -> Cell:
    """The cell with a link to a stage, if run.json has that."""
    if not run.has_stage(key):
        return cell
    return dataclasses.replace(cell, link=stage_anchor(key), tip=_tip(run, key))


def data_link(run: Run) -> str:
    """The anchor of the stage that read the data; '' where run.json has none."""
    key = run.data["fingerprint"]
    return stage_anchor(key) if any(s["key"] == key for s in run.run["stages"]) else ""


def stage_links(run: Run, models: Sequence[ModelKey | None], forget_set: str,
                metric: str) -> tuple[tuple[str, str], ...]:
    """(text, anchor) of the stages that made some models; models without a stage are left out."""
    keys = {run.origin(m, forget_set, metric): None for m in models}
    return tuple((f"stage {key[:6]}", stage_anchor(key)) for key in keys if key)


def config_sections(run: Run, stage: str) -> tuple[str, ...]:
    """The sections of the config that a stage depends on, among those the run has."""
    wanted: tuple[str, ...]
    if stage == "data":
        wanted = _DATA
    elif stage == "original":
        wanted = _ORIGINAL
    elif stage in _OF_MODELS:
        wanted = ("eval",)
    else:
        own = ("forget",) if stage == "retrain" else ("forget", "unlearn", "compare", "thesis")
        wanted = _ORIGINAL + own
    return tuple(name for name in wanted if _given(run, name))


def config_links(run: Run, stage: str) -> Links:
    """A cell that leads to those sections."""
    return Links(tuple((name, config_anchor(name)) for name in config_sections(run, stage)))


def _tip(run: Run, key: str) -> tuple[str, str]:
    stage = run.stage(key)["stage"]
    return f"stage {stage} {key}", "config: " + ", ".join(config_sections(run, stage))


def _given(run: Run, name: str) -> bool:
    """Whether the section is there and in use: every config has a `compare`, most leave it be."""
    value = run.run["config"].get(name)
    if name == "compare":
        return run.trials is not None
    if name == "thesis":
        return bool(run.arms)
    return bool(value)
