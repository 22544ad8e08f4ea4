"""The stage graph: data, original, retrained, unlearned, predictions, results, report.

Each model stage lives in the store under a key that hashes exactly what determines it, so it
is computed once and shared by every run that needs it. A population trains whatever is missing
together, in one compiled program, and its members are stored by (method, forget set, budget).
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from unlearn_jax import checkpoints, data, results, workdir
from unlearn_jax.data.augment import augmentation
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.resident import Resident, RowIndex, make_resident
from unlearn_jax.errors import InputError
from unlearn_jax.layout import Layout, make_layout
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.models import Model, Variables, build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.population import (
    Member,
    Recipe,
    Saver,
    Snapshot,
    init_members,
    train_population,
)
from unlearn_jax.predict import make_predictor, predict
from unlearn_jax.pretrained import load_pretrained
from unlearn_jax.report import write_report
from unlearn_jax.splits import ForgetSet, Splits, make_splits
from unlearn_jax.store import Store, stage_key
from unlearn_jax.train import Loss, make_loss

# Keys of `data` that a trained model depends on beyond the fingerprint of what was loaded.
_DATA_KEYS = ("task", "split", "seed", "balance", "rotation", "shift", "zoom", "flip")
_TRAIN_KEYS = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "warmup",
               "weight_decay", "momentum", "loss", "patience")
_UNLEARN_KEYS = ("batch_size", "optimizer", "learning_rate", "schedule", "warmup",
                 "weight_decay", "momentum")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Models of all seeds, made together: one checkpoint in the store.

    Attributes:
      method: `original`, `retrain` or a method's name.
      forget_set: None for the original.
      epochs: budget: 0 for the original, `train.epochs` for retraining.
      parts: what determines it.
    """

    method: str
    forget_set: ForgetSet | None
    epochs: int
    parts: dict[str, Any]

    @property
    def key(self) -> str:
        """Its place in the store."""
        return stage_key(self.method, self.parts)

    @property
    def forget_name(self) -> str:
        """The forget set's name, `''` for the original."""
        return self.forget_set.name if self.forget_set else ""


@dataclasses.dataclass
class Study:
    """What the stages of one run share."""

    config: ml_collections.ConfigDict
    config_name: str
    store: Store
    run: workdir.Run
    dataset: Dataset
    splits: Splits
    resident: Resident
    index: RowIndex
    model: Model
    loss: Loss
    bar: Callable[..., Any] | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every stage's members, in this order."""
        return self.config.seeds


def run_study(config: ml_collections.ConfigDict, config_name: str, directory: Path, store: Store,
              command: str, bar: Callable[..., Any] | None = None) -> None:
    """Everything, from data to report.

    Args:
      config: checked and locked.
      config_name: `ft`, or `ft:utkface` with an argument.
      directory: the work directory.
      store: of the stages.
      command: as typed, for the report.
      bar: makes progress bars.

    Raises:
      InputError: something handed in cannot be used.
    """
    make_layout(config.parallel, len(config.seeds))  # a missing device fails before any work
    with workdir.claim(directory, config, config_name, command) as run:
        study = prepare(config, config_name, store, run, bar)
        original = original_stage(study)
        retrained = [retrain_stage(study, original, f) for f in study.splits.forget_sets]
        train_missing(study, [original, *retrained])
        unlearned = [stage for f in study.splits.forget_sets
                     for stage in unlearn_stages(study, original, f)]
        unlearn_missing(study, original, unlearned)
        write_results(study, original, retrained, unlearned)
    # Only now: the report reads run.json with its final timings.
    write_report(directory)


def prepare(config: ml_collections.ConfigDict, config_name: str, store: Store,
            run: workdir.Run, bar: Callable[..., Any] | None) -> Study:
    """Loads the data, splits it and lays it on the device."""
    began = time.monotonic()
    dataset = data.load(config.data, store.root / "data")
    splits = make_splits(dataset, config.data, config.forget)
    resident, index = make_resident(dataset, splits.rows, augmentation(config.data),
                                    config.data.seed)
    jax.block_until_ready(resident.images)
    seconds = time.monotonic() - began
    logging.info("data: %s, %d images of %d pixels in %.1f s: train %d (%d with copies), "
                 "validation %d, test %d", dataset.name, len(dataset.labels),
                 config.data.image_size, seconds, len(splits.train), len(splits.rows.source),
                 len(splits.validation), len(splits.test))
    for f in splits.forget_sets:
        logging.info("forget set %s: %d training and %d validation samples", f.name,
                     len(f.train), len(f.validation))
    run.record_stage("data", "", dataset.fingerprint, "computed", seconds, len(dataset.labels))
    run.write_data(dataset, splits)
    model = build_model(config.model, config.data.image_size, dataset.num_classes)
    loss = make_loss(config.train.loss, config.model.output_scale)
    return Study(config, config_name, store, run, dataset, splits, resident, index, model, loss,
                 bar)


def original_stage(study: Study) -> Stage:
    """M_O of all seeds."""
    config = study.config
    parts = {
        "data": study.dataset.fingerprint, "seeds": config.seeds,
        "split": {k: config.data[k] for k in _DATA_KEYS},
        "model": {**config.model.to_dict(), "pretrained": _file_digest(config.model.pretrained)},
        "train": {k: config.train[k] for k in _TRAIN_KEYS},
    }
    return Stage("original", None, 0, parts)


def retrain_stage(study: Study, original: Stage, forget_set: ForgetSet) -> Stage:
    """M_R of all seeds for one forget set."""
    return Stage("retrain", forget_set, study.config.train.epochs,
                 {**original.parts, "forget": _forget_parts(study, forget_set)})


def unlearn_stages(study: Study, original: Stage, forget_set: ForgetSet) -> list[Stage]:
    """The unlearned models of all seeds for one forget set, one stage per budget."""
    section = study.config.unlearn
    if section.method == "retrain":
        return []
    keys = (*_UNLEARN_KEYS, *METHODS[section.method].options)
    parts = {"original": original.key, "forget": _forget_parts(study, forget_set),
             "unlearn": {k: section[k] for k in keys}}
    return [Stage(section.method, forget_set, epochs, {**parts, "epochs": epochs})
            for epochs in sorted(section.epochs)]


def train_missing(study: Study, stages: list[Stage]) -> None:
    """Trains the originals and the retrained models that the store lacks, as one population."""
    config = study.config
    settings = OptimizerSettings.from_config(config.train)
    optimizer = make_optimizer(settings)

    def start(missing: list[Stage], layout: Layout) -> Variables:
        return _initial_variables(study, layout, [s for _ in missing for s in study.seeds])

    setting = Setting(study.model, optimizer, study.loss, _label_space(study), config.unlearn)
    recipe = Recipe("train", METHODS["retrain"].make_step(setting), optimizer, settings,
                    study.loss, config.train.epochs, config.train.batch_size,
                    config.eval.batch_size, config.train.patience, keep="best")
    _run_missing(study, stages, recipe, start, walks_forget=False)


def unlearn_missing(study: Study, original: Stage, stages: list[Stage]) -> None:
    """Unlearns for all forget sets, seeds and budgets that the store lacks.

    At a constant learning rate the budgets are snapshots of one run, as a longer run begins
    like a shorter one. Any other schedule depends on the length, so each budget is a run.
    """
    if not stages:
        return
    section = study.config.unlearn
    method = METHODS[section.method]
    settings = OptimizerSettings.from_config(section)
    optimizer = make_optimizer(settings)
    setting = Setting(study.model, optimizer, study.loss, _label_space(study), section)
    step = method.make_step(setting)

    def start(missing: list[Stage], layout: Layout) -> Variables:
        sets = len({s.forget_name for s in missing})
        if method.start == "initial":
            return _initial_variables(study, layout, [s for _ in range(sets) for s in study.seeds])
        variables, _ = _load(study, original)
        return jax.tree.map(lambda x: np.concatenate([x] * sets), variables)

    budgets = sorted({s.epochs for s in stages})
    runs = [budgets] if settings.schedule == "constant" else [[b] for b in budgets]
    for run in runs:
        recipe = Recipe(section.method, step, optimizer, settings, study.loss, max(run),
                        section.batch_size, study.config.eval.batch_size, keep="last",
                        snapshots=tuple(run))
        _run_missing(study, [s for s in stages if s.epochs in run], recipe, start,
                     method.walks_forget)


def _run_missing(study: Study, stages: list[Stage], recipe: Recipe,
                 start: Callable[[list[Stage], Layout], Variables], walks_forget: bool) -> None:
    with contextlib.ExitStack() as locks:
        # In the order of their keys, so that two processes never wait for each other.
        for stage in sorted(stages, key=lambda s: s.key):
            if not study.store.complete(stage.method, stage.key):
                locks.enter_context(study.store.lock(stage.method, stage.key))
        missing = [s for s in stages if not study.store.complete(s.method, s.key)]
        for stage in stages:
            if stage not in missing:
                _record_reused(study, stage)
        if not missing:
            return
        recipe = dataclasses.replace(
            recipe, snapshots=tuple(sorted({s.epochs for s in missing} & set(recipe.snapshots))))
        if recipe.keep == "last":
            recipe = dataclasses.replace(recipe, epochs=max(recipe.snapshots))
        _run_population(study, missing, recipe, start, walks_forget)


def _run_population(study: Study, missing: list[Stage], recipe: Recipe, start,
                    walks_forget: bool) -> None:
    """Trains the members of the missing stages together and stores each stage."""
    forget_sets = {s.forget_name: s.forget_set for s in missing}
    members = [_member(study, seed, f, walks_forget)
               for f in forget_sets.values() for seed in study.seeds]
    layout = make_layout(study.config.parallel, len(members))
    logging.info("%s: %d members (%d seeds x %s), up to %d epochs of %d to %d images, %s",
                 recipe.name, len(members), len(study.seeds),
                 ", ".join(name or "original" for name in forget_sets), recipe.epochs,
                 min(len(m.rows) for m in members), max(len(m.rows) for m in members),
                 dict(layout.mesh.shape))
    # Progress belongs to the stage that is written last: it goes when all are there.
    population_key = stage_key("population", {"stages": [s.key for s in missing]})
    progress = study.store.progress(missing[-1].method, missing[-1].key) / population_key
    saver = _CheckpointSaver(progress, study.config.train.checkpoint_seconds)
    trained = train_population(recipe, study.model, layout, study.resident, members,
                               start(missing, layout), saver, study.bar)
    status = "resumed" if saver.resumed else "computed"
    for stage in missing:
        snapshot = trained.snapshots[stage.epochs if recipe.keep == "last" else recipe.epochs]
        mine = [m for m, member in enumerate(members) if member.forget_set == stage.forget_name]
        metadata = _store_stage(study, stage, snapshot, mine, trained.history)
        seconds = float(np.sum(metadata["seconds"]))
        study.run.record_stage(stage.method, stage.forget_name, stage.key, status, seconds,
                               int(np.sum(metadata["images"])), len(mine), stage.epochs)
    study.run.record_compilation(recipe.name, trained.compile_seconds)
    images = sum(row["images"] for row in {(r["seed"], r["forget_set"]): r
                                           for r in trained.history}.values())
    seconds = max(s.seconds for s in trained.snapshots.values())
    logging.info("%s: %d images in %.1f s (%.0f images/s), and %.1f s of compilation",
                 recipe.name, images, seconds, images / max(seconds, 1e-9),
                 trained.compile_seconds)


def _store_stage(study: Study, stage: Stage, snapshot: Snapshot, mine: list[int],
                 history: list[dict[str, Any]]) -> dict[str, Any]:
    # Members run side by side; a member's share of the clock is its share of the images.
    share = snapshot.images / max(snapshot.images.sum(), 1)
    metadata = {
        "stage": stage.method, "forget_set": stage.forget_name, "epochs": stage.epochs,
        "seeds": study.seeds, "config_name": study.config_name,
        "config": study.config.to_dict(), "data_fingerprint": study.dataset.fingerprint,
        "step": snapshot.steps[mine], "epochs_trained": snapshot.epochs[mine],
        "metric": {"validation_loss": snapshot.validation_loss[mine]},
        "failed": snapshot.failed[mine], "images": snapshot.images[mine],
        "seconds": snapshot.seconds * share[mine],
    }
    rows = [{"stage": stage.method, **row} for row in history
            if row["forget_set"] == stage.forget_name
            and (stage.method in ("original", "retrain") or row["epoch"] <= stage.epochs)]
    variables = jax.tree.map(lambda x: np.asarray(x)[np.array(mine)], snapshot.variables)
    with study.store.write(stage.method, stage.key, stage.parts) as directory:
        checkpoints.save(directory / "checkpoint", variables, metadata)
        (directory / "history.json").write_text(json.dumps(rows))
    return metadata


def _record_reused(study: Study, stage: Stage) -> None:
    path = study.store.path(stage.method, stage.key) / "checkpoint"
    logging.info("%s %s: reused from %s", stage.method, stage.forget_name, path)
    metadata, _ = checkpoints.describe(path)
    study.run.record_stage(stage.method, stage.forget_name, stage.key, "reused", 0.0,
                           int(np.sum(metadata["images"])), len(metadata["seeds"]), stage.epochs)


def write_results(study: Study, original: Stage, retrained: list[Stage],
                  unlearned: list[Stage]) -> None:
    """Predictions of every model on every split, and results.csv and history.csv from them."""
    rows = []
    layout = make_layout(study.config.parallel, len(study.seeds))
    predictor = make_predictor(study.model, layout)
    classification = study.dataset.num_classes > 0
    train_labels = study.dataset.labels[study.splits.train]
    baseline = (int(np.bincount(train_labels).argmax()) if classification
                else float(np.median(train_labels)))
    for retrain in retrained:
        split_rows = _split_rows(study.splits, retrain.forget_set)
        targets = results.Targets(
            {name: study.dataset.labels[r] for name, r in split_rows.items()},
            {name: study.dataset.ids[r] for name, r in split_rows.items()})
        name = retrain.forget_name
        stages = [original, *(u for u in unlearned if u.forget_name == name), retrain]
        outcomes = [_outcome(study, layout, predictor, s, retrain.forget_set, split_rows)
                    for s in stages]
        for outcome in outcomes:
            results.save_predictions(study.run.directory / "predictions", outcome, targets)
        rows += results.result_rows(outcomes[:-1], outcomes[-1], targets, baseline,
                                    study.config.eval, classification)
    study.run.write_table("results.csv", rows, results.COLUMNS)
    stages = [original, *retrained, *unlearned]
    history = [row for s in stages for row in _history(study, s)]
    # A longer budget's history holds that of a shorter one.
    unique = {(r["stage"], r["forget_set"], r["seed"], r["epoch"]): r for r in history}
    study.run.write_table("history.csv", unique.values(), workdir.HISTORY_COLUMNS)


def _outcome(study: Study, layout: Layout, predictor, stage: Stage, forget_set: ForgetSet,
             split_rows: dict[str, np.ndarray]) -> results.Outcome:
    """The stage's predictions, from the store or computed, and its costs."""
    parts = {"model": stage.key, "forget": _forget_parts(study, forget_set)}
    key = stage_key("predictions", parts)
    checkpoint = study.store.path(stage.method, stage.key) / "checkpoint"
    metadata, _ = checkpoints.describe(checkpoint)
    status, began = "reused", time.monotonic()
    if not study.store.complete("predictions", key):
        status = "computed"
        variables, _ = _load(study, stage)
        failed = np.array(metadata["failed"])
        with study.store.write("predictions", key, parts) as directory:
            for split, rows in split_rows.items():
                outputs = np.stack(predict(predictor, layout, variables, study.resident,
                                           [rows] * len(study.seeds),
                                           study.config.eval.batch_size))
                outputs[failed] = np.nan
                np.save(directory / f"{split}.npy", outputs)
    directory = study.store.path("predictions", key)
    outputs = {split: np.load(directory / f"{split}.npy") for split in split_rows}
    study.run.record_stage("predictions", forget_set.name, key, status, time.monotonic() - began,
                           len(study.seeds) * sum(len(r) for r in split_rows.values()),
                           len(study.seeds), stage.epochs)
    return results.Outcome(stage.method, forget_set.name, stage.epochs, stage.key, study.seeds,
                           outputs, *(np.array(metadata[k])
                                      for k in ("images", "seconds", "epochs_trained")))


def _split_rows(splits: Splits, forget_set: ForgetSet) -> dict[str, np.ndarray]:
    """Data set rows of each split; one without samples is left out."""
    rows = {"test": splits.test, "forget": splits.forget(forget_set),
            "retain": splits.retain_train(forget_set),
            "validation": splits.retain_validation(forget_set)}
    return {name: r for name, r in rows.items() if len(r)}


def _member(study: Study, seed: int, forget_set: ForgetSet | None, walks_forget: bool) -> Member:
    splits, index = study.splits, study.index
    if forget_set is None:
        return Member(seed, "", index(splits.rows), splits.validation, np.zeros(0, np.int32))
    forget = index(splits.forget_rows(forget_set))
    rows = index(splits.rows) if walks_forget else index(splits.retain_rows(forget_set))
    return Member(seed, forget_set.name, rows, splits.retain_validation(forget_set), forget)


def _initial_variables(study: Study, layout: Layout, seeds: list[int]) -> Variables:
    variables = init_members(study.model, layout, seeds)
    path = study.config.model.pretrained
    if not path:
        return variables
    loaded = []
    for m in range(len(seeds)):
        one = jax.tree.map(lambda x, m=m: np.asarray(x[m]), variables)
        one, summary = load_pretrained(path, one, study.config.model)
        loaded.append(one)
    logging.info("%s", summary)
    return jax.tree.map(lambda *x: np.stack(x), *loaded)


def _load(study: Study, stage: Stage) -> tuple[Variables, dict[str, Any]]:
    return checkpoints.restore(study.store.path(stage.method, stage.key) / "checkpoint")


def _history(study: Study, stage: Stage) -> list[dict[str, Any]]:
    return json.loads((study.store.path(stage.method, stage.key) / "history.json").read_text())


def _label_space(study: Study) -> LabelSpace:
    d = study.config.data
    return LabelSpace(d.label_min, d.label_max, study.dataset.num_classes,
                      study.config.model.output_scale)


def _forget_parts(study: Study, forget_set: ForgetSet) -> dict[str, str]:
    rows = np.concatenate([forget_set.train, forget_set.validation]).astype(np.int64)
    ids = "\n".join(study.dataset.ids[rows].tolist())
    return {"name": forget_set.name, "ids": hashlib.blake2b(ids.encode()).hexdigest()[:16]}


def _file_digest(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "blake2b").hexdigest()[:16]
    except OSError as e:
        raise InputError(f"config.model.pretrained is {path!r}: {e.strerror}") from e


class _CheckpointSaver(Saver):
    """Keeps a half-finished population in the store's progress directory."""

    def __init__(self, directory: Path, seconds: float):
        self._directory = directory
        self._seconds = seconds
        self._last = time.monotonic()
        self.resumed = False

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._seconds

    def save(self, epoch, tree, metadata) -> None:
        checkpoints.save_progress(self._directory, epoch, tree, metadata)
        self._last = time.monotonic()

    def load(self, template):
        latest = checkpoints.latest(self._directory)
        if latest is None:
            return None
        metadata, _ = checkpoints.describe(latest)
        self.resumed = True
        return checkpoints.restore(latest, template(metadata))
