"""Reads the files of a work directory that the report needs, and checks them."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn_jax.labels import find_class, find_range
from unlearn_jax.metrics.catalogue import has_no_seed
from unlearn_jax.report.tables.files import (
    ReportError,
    checked,
    field,
    is_number,
    numbers,
    read_csv,
    read_json,
    refuse,
    refuse_repeats,
)
from unlearn_jax.report.tables.predictions import Prediction, read_prediction

TASKS = ("regression", "classification")
REFERENCES = ("original", "retrain")  # every verdict needs both
DATA_SPLITS = ("train", "validation", "test")
# In a comparison: trained like M_R without D_f, for no longer than the budget of the methods.
SHORT = "retrain_short"

_RESULT_COLUMNS = ("method", "forget_set", "epochs", "seed", "metric", "value")
_HISTORY_COLUMNS = ("stage", "forget_set", "seed", "epoch", "train_loss", "validation_loss",
                    "best")
_TRIAL_NUMBERS = ("trial", "learning_rate", "strength", "epochs", "validation_error", "limit",
                  "images", "seconds", "flops")
_TRIAL_COLUMNS = ("method", "forget_set", "option", "within", "chosen", "note", "stage", "command",
                  *_TRIAL_NUMBERS)
_TRUTH = {"True": True, "False": False, "1": True, "0": False}
UNFINISHED = ("the run in {} has not finished: these results may be of an earlier one, and files "
              "may be missing; run its command again")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


@dataclasses.dataclass(frozen=True, order=True)
class ModelKey:
    """One population of a forget set: a method at a budget.

    Attributes:
      method: 'median', 'original', 'retrain', 'ft', ...
      epochs: unlearning budget in epochs; 0 for the median and the original.
    """

    method: str
    epochs: int


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A work directory, read and checked.

    Attributes:
      workdir: where.
      results: results.csv, one row per value; `value` is float, NaN for a failed member.
      history: history.csv, or None where there is none.
      data: data.json.
      run: run.json.
      trials: trials.csv of a comparison, or None where there is none.
    """

    workdir: Path
    results: pd.DataFrame
    history: pd.DataFrame | None
    data: dict[str, Any]
    run: dict[str, Any]
    trials: pd.DataFrame | None = None

    @property
    def task(self) -> str:
        return self.data["task"]

    @property
    def classification(self) -> bool:
        return self.task == "classification"

    @property
    def unit(self) -> str:
        return self.data["label_unit"]

    @property
    def label(self) -> str:
        """What the label is called: 'age' where it is counted in years."""
        return "class" if self.classification else "age" if self.unit == "years" else "label"

    @property
    def alpha(self) -> float:
        return float(field(self.run, "run.json", "config.eval.alpha", (int, float)))

    @property
    def forget_sets(self) -> tuple[str, ...]:
        return tuple(self.data["forget_sets"])

    @property
    def arms(self) -> tuple[str, ...]:
        """The variants of methods that the config lists in `thesis.arms`; () for none."""
        return tuple(self._thesis.get("arms", ()))

    def arm_setting(self, arm: str) -> dict[str, Any]:
        """The section `unlearn` of the config as an arm was run with it."""
        return {**field(self.run, "run.json", "config.unlearn", dict),
                **field(self.run, "run.json", f"config.thesis.unlearn.{arm}", dict)}

    @property
    def _thesis(self) -> dict[str, Any]:
        return self.run["config"].get("thesis", {})

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        whole = self.results.metric.map(has_no_seed).astype(bool)
        column = self.results.loc[~whole, "seed"]
        return tuple(sorted(column.unique().tolist()))

    def seeds_of(self, model: "ModelKey", forget_set: str) -> tuple[int, ...]:
        """The seeds over which a population is averaged; () for the median, which has none."""
        return self._seeds.get((model.method, model.epochs, forget_set), ())

    @functools.cached_property
    def _seeds(self) -> dict[tuple, tuple[int, ...]]:
        own = self.results[~self.results.metric.map(has_no_seed).astype(bool)
                           & (self.results.method != "median")]
        return {key: tuple(sorted(column.unique().tolist())) for key, column in
                own.groupby(["method", "epochs", "forget_set"])["seed"]}

    @functools.cached_property
    def rank(self) -> dict[str, int]:
        """Methods in the order that tables and legends show them."""
        first = ("median", *REFERENCES)
        found = self.results.method.unique().tolist()
        return {m: i for i, m in enumerate(
            [m for m in first if m in found] + [m for m in found if m not in first])}

    @property
    def given_splits(self) -> list[str]:
        """The splits that came with the data, of `DATA_SPLITS`; the others were drawn at random."""
        drawn = self.data.get("drawn_splits", DATA_SPLITS)  # scored predictions do not say
        return [split for split in DATA_SPLITS if split not in drawn]

    def models(self, forget_set: str) -> list[ModelKey]:
        """The populations of a forget set: baseline, original, retrained, then the unlearned."""
        return list(self._models.get(forget_set, ()))

    def unlearned(self, forget_set: str) -> list[ModelKey]:
        return [m for m in self.models(forget_set) if m.method not in ("median", *REFERENCES)]

    def only(self, forget_set: str, method: str) -> ModelKey | None:
        """The first population of a method, None where there is none.

        Predictions that were scored may lack M_O or M_R, a run of its own M_R (`without`).
        """
        return next((m for m in self.models(forget_set) if m.method == method), None)

    def without(self, forget_set: str) -> tuple[str, ...]:
        """Which of `REFERENCES` a forget set lacks, as predictions that were scored may.

        A run of its own lacks M_R where its config says `retrain.mode='off'`.
        """
        return _without(self.run, (forget_set,)).get(forget_set, ())

    def reference(self, forget_set: str, method: str) -> ModelKey:
        """The population of 'original' or 'retrain', which every forget set has.

        Raises:
          ReportError: results.csv has no row of it.
        """
        found = self.only(forget_set, method)
        if found is None:
            raise ReportError(f"results.csv: no rows with method={method!r} and "
                              f"forget_set={forget_set!r}")
        return found

    @functools.cached_property
    def _models(self) -> dict[str, list[ModelKey]]:
        found: dict[str, set[ModelKey]] = {}
        for method, epochs, forget_set, _ in self._groups:
            found.setdefault(forget_set, set()).add(ModelKey(method, epochs))
        return {name: sorted(models, key=lambda m: (self.rank[m.method], m.epochs))
                for name, models in found.items()}

    @functools.cached_property
    def _groups(self) -> dict[tuple, pd.Series]:
        # Slices of one sorted table: a pandas group of its own takes a millisecond, of thousands.
        keys = ["method", "epochs", "forget_set", "metric"]
        rows = self.results.sort_values([*keys, "seed"], kind="stable", ignore_index=True)
        names = list(zip(*(rows[key].tolist() for key in keys)))
        firsts = [i for i, name in enumerate(names) if not i or name != names[i - 1]]
        seeds, values = pd.Index(rows["seed"], name="seed"), rows["value"].to_numpy()
        return {names[a]: pd.Series(values[a:b], seeds[a:b], name="value")
                for a, b in itertools.pairwise([*firsts, len(rows)])}

    def values(self, model: ModelKey | None, forget_set: str, metric: str) -> pd.Series:
        """The values of one metric by seed; empty where there is none, or no model."""
        found = None if model is None else self._groups.get(
            (model.method, model.epochs, forget_set, metric))
        return pd.Series(dtype=float) if found is None else found

    @functools.cached_property
    def _origins(self) -> dict[tuple, str]:
        """The stage of each mean; '' where its values come from several stages."""
        if "stage" not in self.results:
            return {}
        found: dict[tuple, str] = {}
        columns = (self.results[name].tolist() for name in (
            "method", "epochs", "forget_set", "metric", "stage"))
        for *key, stage in zip(*columns):
            if found.setdefault(tuple(key), stage) != stage:
                found[tuple(key)] = ""
        return found

    @functools.cached_property
    def _stages(self) -> dict[str, dict[str, Any]]:
        return {stage["key"]: stage for stage in reversed(self.run["stages"])}

    def origin(self, model: ModelKey | None, forget_set: str, metric: str) -> str:
        """The key of the stage whose result a metric measures; '' if it is not known."""
        if model is None:
            return ""
        key = self._origins.get((model.method, model.epochs, forget_set, metric), "")
        if model.method == "median":  # which the data alone decides
            key = self.data["fingerprint"]
        return key if key in self._stages else ""

    def from_seed(self, model: ModelKey | None, forget_set: str, metric: str) -> int:
        """The seed whose M_O all members of a model started from; -1: each from its own seed's."""
        key = self.origin(model, forget_set, metric)
        return int(self._stages[key].get("from_seed", -1)) if key else -1

    def has_stage(self, key: str) -> bool:
        """Whether run.json has a stage of this key."""
        return key in self._stages

    def stage(self, key: str) -> dict[str, Any]:
        """The entry of run.json of a stage that it has."""
        return self._stages[key]

    def forget_range(self, forget_set: str) -> tuple[float, float] | None:
        """First and last label of a forget set that is a label range or a class, else None."""
        request = self.data["forget_sets"][forget_set]["request"]
        if request.startswith("class:"):
            number = find_class(request.removeprefix("class:"), self.data["class_names"])
            return None if number is None else (number, number)
        return find_range(request)

    def prediction(self, model: ModelKey, forget_set: str, split: str) -> Prediction:
        """Reads one file of predictions.

        Raises:
          ReportError: it is missing, or an array is, or has another shape.
        """
        name = f"predictions/{model.method}.{forget_set}.{model.epochs}.{split}.npz"
        found = read_prediction(checked(self.workdir, name), name, self.classification)
        if not set(found.seeds.tolist()) <= set(self.seeds):
            raise ReportError(f"{name}: the array 'seeds' holds {found.seeds.tolist()}; "
                              f"results.csv has {list(self.seeds)}")
        return found


def read_run(workdir: Path) -> Run:
    """Reads a work directory.

    Args:
      workdir: holds results.csv, data.json, run.json, predictions/ and, if the run kept one,
        history.csv.

    Raises:
      ReportError: names the file, the column or field, and what is allowed.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise ReportError(f"{workdir} is not a folder; give the work directory of a finished run")
    if (workdir / "plan.json").exists() and (workdir / "report").is_dir():
        raise ReportError(f"{workdir} is the folder of a sweep; give {workdir / 'report'}, or one "
                          "of the folders in it if the sweep has several reports")
    data = _read_data(workdir)
    run = read_json(workdir, "run.json")
    for path, kind in (("config_name", str), ("command", str), ("config", dict),
                       ("versions", dict), ("device", str), ("stages", list),
                       ("warnings", list), ("config.eval.alpha", (int, float))):
        field(run, "run.json", path, kind)
    for i, stage in enumerate(run["stages"]):
        for key in ("stage", "key", "status"):
            field(stage, f"run.json, stages[{i}]", key, str)
    if not run.get("finished", True):
        run["warnings"] = [UNFINISHED.format(workdir), *run["warnings"]]
    sets = tuple(data["forget_sets"])
    results = _read_results(workdir, sets, _without(run, sets))
    return Run(workdir, results, _read_history(workdir), data, run,
               _read_trials(workdir, results, run))


def _read_data(workdir: Path) -> dict[str, Any]:
    data = read_json(workdir, "data.json")
    for path, kind in (("source", str), ("fingerprint", str), ("task", str),
                       ("label_unit", str), ("counts.train", int), ("counts.validation", int),
                       ("counts.test", int), ("class_names", list), ("histograms", dict),
                       ("forget_sets", dict), ("dropped_reasons", dict)):
        field(data, "data.json", path, kind)
    if "drawn_splits" in data:
        field(data, "data.json", "drawn_splits", list)
    if data["task"] not in TASKS:
        raise ReportError(f"data.json: the field 'task' is {data['task']!r}; allowed: "
                          + ", ".join(TASKS))
    # from here on keys are file contents: a dot in them is no path
    for where in ("counts", "dropped_reasons"):
        for key, value in data[where].items():
            field({"count": value}, f"data.json, {where}[{key!r}]", "count", int)
    for step, counts in data["histograms"].items():
        if not isinstance(counts, dict):
            raise ReportError(f"data.json: histograms[{step!r}] is not an object of counts")
        for key, value in counts.items():
            field({"count": value}, f"data.json, histograms[{step!r}][{key!r}]", "count", int)
            if not is_number(key):
                raise ReportError(f"data.json: histograms[{step!r}] has the label {key!r}; "
                                  "labels, and classes, are numbers there")
    if not data["forget_sets"]:
        raise ReportError("data.json: the field 'forget_sets' is empty")
    for name, entry in data["forget_sets"].items():
        if not _NAME.fullmatch(name):
            raise ReportError(f"data.json: the forget set {name!r} is no file name; allowed: "
                              "letters, digits and . _ = + -")
        for key, kind in (("request", str), ("train", int), ("validation", int)):
            field(entry, f"data.json, forget_sets[{name!r}]", key, kind)
    return data


def _without(run: dict[str, Any], sets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By forget set, which of `REFERENCES` are missing, as run.json says."""
    if "scored" not in run:
        off = run["config"].get("retrain", {}).get("mode") == "off"
        return dict.fromkeys(sets, ("retrain",)) if off else {}
    found = field(run, "run.json", "scored.without", dict)
    return {name: tuple(methods) for name, methods in found.items()}


def _read_results(workdir: Path, forget_sets: tuple[str, ...],
                  without: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    table = read_csv(workdir, "results.csv", _RESULT_COLUMNS)
    if table.empty:
        raise ReportError(f"{workdir / 'results.csv'} has no rows")
    for column in ("epochs", "seed"):
        table[column] = numbers(table, "results.csv", column, whole=True)
    table["value"] = numbers(table, "results.csv", "value")
    for column, good, allowed in (
            ("method", table.method.map(lambda m: bool(_METHOD.fullmatch(m))),
             "letters, digits and _ + -"),
            ("forget_set", table.forget_set.isin(forget_sets),
             "those of data.json: " + ", ".join(forget_sets)),
            ("metric", table.metric != "", "a name")):
        refuse(table, ~good, "results.csv", column, allowed)
    refuse_repeats(table, "results.csv", ["method", "forget_set", "epochs", "seed", "metric"])
    for name in forget_sets:
        for method in REFERENCES:
            if method not in without.get(name, ()) and not (
                    (table.forget_set == name) & (table.method == method)).any():
                raise ReportError(f"results.csv: no rows with method={method!r} and "
                                  f"forget_set={name!r}")
    return table


def _read_history(workdir: Path) -> pd.DataFrame | None:
    if not (workdir / "history.csv").exists():
        return None
    table = read_csv(workdir, "history.csv", _HISTORY_COLUMNS)
    for column in ("seed", "epoch"):
        table[column] = numbers(table, "history.csv", column, whole=True)
    for column in ("train_loss", "validation_loss"):
        table[column] = numbers(table, "history.csv", column)
    refuse(table, ~table.best.isin(_TRUTH), "history.csv", "best", ", ".join(_TRUTH))
    table["best"] = table.best.map(_TRUTH).astype(bool)
    refuse_repeats(table, "history.csv", ["stage", "forget_set", "seed", "epoch"])
    return None if table.empty else table


def _read_trials(workdir: Path, results: pd.DataFrame, run: dict[str, Any]) -> pd.DataFrame | None:
    if not (workdir / "trials.csv").exists():
        return None
    for name, kind in (("rank_by", str), ("budget", str), ("trials", int),
                       ("fraction", (int, float)), ("tolerance", (int, float))):
        field(run, "run.json", f"config.compare.{name}", kind)
    table = read_csv(workdir, "trials.csv", _TRIAL_COLUMNS)
    for column in _TRIAL_NUMBERS:
        table[column] = numbers(table, "trials.csv", column, whole=column in ("trial", "epochs"))
    for column in ("within", "chosen"):
        refuse(table, ~table[column].isin(_TRUTH), "trials.csv", column, ", ".join(_TRUTH))
        table[column] = table[column].map(_TRUTH).astype(bool)
    refuse_repeats(table, "trials.csv", ["method", "forget_set", "trial"])
    known = set(zip(results.method, results.forget_set, results.epochs))
    for (method, forget_set), rows in table.groupby(["method", "forget_set"], sort=False):
        if rows.chosen.sum() != 1:
            raise ReportError(f"trials.csv: {rows.chosen.sum()} trials of {method} on {forget_set} "
                              "are chosen; it must be one")
        if (method, forget_set, rows.epochs[rows.chosen].item()) not in known:
            raise ReportError(f"results.csv: no rows for the trial of {method} on {forget_set} "
                              "that trials.csv has as chosen")
    return table
