"""Model stages: trains what the store lacks, as populations, and stores it.

Missing originals and retrained models of all seeds and forget sets are members of one
population, trained by one compiled program; so are all unlearned models of a method. What is
stored, and found again by later runs, is a stage: all seeds of a (method, forget set, budget).
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from unlearn_jax import checkpoints, workdir
from unlearn_jax.engine import train_population
from unlearn_jax.errors import ConfigError
from unlearn_jax.layout import Layout, make_layout
from unlearn_jax.methods import find_method
from unlearn_jax.methods.method import LabelSpace, Prepared, Setting
from unlearn_jax.methods.outside import Found
from unlearn_jax.models import Variables
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.population import Member, Pass, Recipe, Snapshot, init_members
from unlearn_jax.prepare import Preparation
from unlearn_jax.pretrained import load_pretrained
from unlearn_jax.splits import ForgetSet
from unlearn_jax.stages.graph import Stage, Study, method_options
from unlearn_jax.stages.progress import CheckpointSaver
from unlearn_jax.train import Step, make_train_step

_MOST_NAMED = 1000  # indices of touched channels or weights that are written down, per layer


def train_recipe(study: Study) -> Recipe:
    """How originals and retrained models are trained."""
    config = study.config
    settings = OptimizerSettings.from_config(config.train)
    optimizer = make_optimizer(settings)
    step = make_train_step(study.model, optimizer, study.loss)
    return Recipe("train", step, optimizer, settings, study.loss, config.train.epochs,
                  config.train.batch_size, config.eval.batch_size, config.train.patience,
                  keep=config.train.keep)


def train_missing(study: Study, stages: list[Stage]) -> None:
    """Trains the originals and the retrained models that the store lacks, as one population."""

    def start(missing: list[Stage], layout: Layout) -> tuple[Variables, np.ndarray]:
        seeds = [s for _ in missing for s in study.seeds]
        return initial_variables(study, layout, seeds), np.zeros(len(seeds), bool)

    _run_missing(study, stages, train_recipe(study), start)


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """The config's method, made ready.

    Attributes:
      found: the method and its name.
      setting: what it is given.
      step: its single-member step; None where it trains nothing.
    """

    found: Found
    setting: Setting
    step: Step | None


def make_unlearning(study: Study) -> Unlearning:
    """The config's method with its step.

    Raises:
      InputError: the method cannot work as configured.
    """
    section = study.config.unlearn
    found = find_method(section.method)
    method = found.method
    optimizer = method.make_optimizer(OptimizerSettings.from_config(section))
    setting = Setting(study.model, optimizer, study.loss, _label_space(study), section,
                      method_options(section, found), study.config.train)
    if method.check:
        method.check(setting)
    epochs = range(max(section.epochs))
    if section.batch_size % 2 and any(p.paired for e in epochs for p in method.passes(setting, e)):
        raise ConfigError(f"config.unlearn.batch_size is {section.batch_size}; {found.name} needs "
                          "an even one: half of a batch is D_r and half is D_f")
    return Unlearning(found, setting, method.make_step(setting) if method.make_step else None)


def unlearn_recipes(study: Study, stages: list[Stage],
                    unlearning: Unlearning) -> list[tuple[Recipe, list[Stage]]]:
    """The runs that unlearning takes, each with the stages that it makes.

    At a constant learning rate the budgets are snapshots of one run, as a longer run begins
    like a shorter one. Any other schedule depends on the length, so each budget is a run.
    """
    section, method = study.config.unlearn, unlearning.found.method
    settings = OptimizerSettings.from_config(section)
    optimizer = unlearning.setting.optimizer

    def passes(epoch: int) -> tuple[Pass, ...]:
        return method.passes(unlearning.setting, epoch)

    step = unlearning.step or make_train_step(study.model, optimizer, study.loss)
    budgets = sorted({s.epochs for s in stages})
    apart = settings.schedule != "constant" or method.own_runs
    runs = [[b] for b in budgets] if apart else [budgets] if budgets else []
    return [(Recipe(unlearning.found.name, step, optimizer, settings, study.loss, max(run),
                    section.batch_size, study.config.eval.batch_size, keep="last",
                    snapshots=tuple(run), passes=passes),
             [s for s in stages if s.epochs in run]) for run in runs]


def unlearn_missing(study: Study, original: Stage, stages: list[Stage],
                    unlearning: Unlearning) -> None:
    """Unlearns for all forget sets, seeds and budgets that the store lacks."""
    section, method = study.config.unlearn, unlearning.found.method

    def start(missing: list[Stage], layout: Layout) -> tuple[Variables, np.ndarray]:
        sets = len({s.forget_name for s in missing})
        if method.start == "initial":
            seeds = list(study.seeds) * sets
            return initial_variables(study, layout, seeds), np.zeros(len(seeds), bool)
        variables, metadata = checkpoints.restore(original.directory(study.store) / "checkpoint")
        which = np.arange(len(study.seeds))
        if section.from_seed >= 0:
            which[:] = study.seeds.index(section.from_seed)
        which = np.tile(which, sets)
        # What starts from a failed model is no unlearned model, however well it trains.
        return (jax.tree.map(lambda x: np.asarray(x)[which], variables),
                np.asarray(metadata["failed"])[which])

    prepare = functools.partial(method.prepare, unlearning.setting) if method.prepare else None
    for recipe, made in unlearn_recipes(study, stages, unlearning):
        _run_missing(study, made, recipe, start, prepare)


def shortened(recipe: Recipe, missing: list[Stage]) -> Recipe:
    """The recipe with the snapshots that these stages need, and no epoch after the last of them."""
    if recipe.keep == "best":
        return recipe
    snapshots = tuple(sorted({snapshot_of(s, recipe) for s in missing}))
    return dataclasses.replace(recipe, snapshots=snapshots, epochs=max(snapshots))


def snapshot_of(stage: Stage, recipe: Recipe) -> int:
    """After how many epochs of a recipe the stage's models are taken; the best one's is the last.

    An original has the budget 0, as nothing is unlearned, but is trained all the same.
    """
    whole = recipe.keep == "best" or stage.method == "original"
    return recipe.epochs if whole else stage.epochs


def _run_missing(study: Study, stages: list[Stage], recipe: Recipe,
                 start: Callable[[list[Stage], Layout], tuple[Variables, np.ndarray]],
                 prepare: Callable[[Preparation], Prepared] | None = None) -> None:
    with missing_of(study, stages) as missing:
        if not missing:
            return
        _run_population(study, missing, shortened(recipe, missing), start, prepare)


@contextlib.contextmanager
def missing_of(study: Study, stages: list[Stage]) -> Iterator[list[Stage]]:
    """The stages that the store lacks, held against other processes; notes those it has."""
    with contextlib.ExitStack() as locks:
        # In the order of their keys, so that two processes never wait for each other.
        for stage in sorted(stages, key=lambda s: s.key):
            if not study.store.complete(stage.method, stage.key):
                locks.enter_context(study.store.lock(stage.method, stage.key))
        missing = [s for s in stages if not study.store.complete(s.method, s.key)]
        for stage in stages:
            if stage not in missing:
                _record_reused(study, stage)
        yield missing


def _run_population(study: Study, missing: list[Stage], recipe: Recipe, start, prepare) -> None:
    """Trains the members of the missing stages together and stores each stage."""
    forget_sets = {s.forget_name: s.forget_set for s in missing}
    members = [make_member(study, seed, f) for f in forget_sets.values() for seed in study.seeds]
    layout = make_layout(study.config.parallel, len(members))
    logging.info("%s: %d members (%d seeds x %s), up to %d epochs of %d to %d images, %s",
                 recipe.name, len(members), len(study.seeds),
                 ", ".join(name or "original" for name in forget_sets), recipe.epochs,
                 *_fewest_and_most(recipe, members),
                 dict(layout.mesh.shape))
    saver = CheckpointSaver(study.store, recipe, missing, study.config.train.checkpoint_seconds)
    variables, failed = start(missing, layout)
    before = Preparation(recipe.name, study.model, layout, study.resident, members, variables,
                         study.loss, recipe.batch_size)
    prepared = prepare(before) if prepare else Prepared(variables)
    failed |= ~_finite_members(prepared.variables, len(members))
    trained = train_population(recipe, study.model, layout, before.resident, members,
                               prepared.variables, saver, study.bar, prepared.context)
    status = "resumed" if saver.resumed else "computed"
    for stage in missing:
        snapshot = trained.snapshots[snapshot_of(stage, recipe)]
        mine = [m for m, member in enumerate(members) if member.forget_set == stage.forget_name]
        snapshot = dataclasses.replace(
            snapshot, failed=snapshot.failed | failed, images=snapshot.images + before.images,
            flops=snapshot.flops + before.flops, seconds=snapshot.seconds + before.seconds)
        metadata = _store_stage(study, stage, snapshot, mine, trained.history, prepared.touched)
        seconds = float(np.sum(metadata["seconds"]))
        study.run.record_stage(stage.name, stage.forget_name, stage.key, status, seconds,
                               int(np.sum(metadata["images"])), len(mine), stage.epochs)
    saver.finish()
    study.run.record_start(recipe.name, trained.compile_seconds + before.compile_seconds,
                           trained.first_step_seconds)
    images = sum(row["images"] for row in {(r["seed"], r["forget_set"]): r
                                           for r in trained.history}.values())
    seconds = max(s.seconds for s in trained.snapshots.values())
    logging.info("%s: %d images in %.1f s (%.0f images/s), and %.1f s of compilation%s",
                 recipe.name, images, seconds, images / max(seconds, 1e-9),
                 trained.compile_seconds, "" if trained.first_step_seconds is None else
                 f"; the first step ended after {trained.first_step_seconds:.1f} s")


def _store_stage(study: Study, stage: Stage, snapshot: Snapshot, mine: list[int],
                 history: list[dict[str, Any]],
                 touched: Mapping[str, np.ndarray]) -> dict[str, Any]:
    metadata = stage_metadata(study, stage, snapshot, mine)
    rows = [{"stage": stage.method, **row} for row in history
            if row["forget_set"] == stage.forget_name
            and (stage.method in ("original", "retrain") or row["epoch"] <= stage.epochs)]
    variables = jax.tree.map(lambda x: np.asarray(x)[np.array(mine)], snapshot.variables)
    with study.store.write(stage.method, stage.key, stage.parts) as directory:
        checkpoints.save(directory / "checkpoint", variables, metadata)
        (directory / "history.json").write_text(json.dumps(rows))
        (directory / "touched.json").write_text(json.dumps(_touched_rows(study, touched, mine)))
    return metadata


def stage_metadata(study: Study, stage: Stage, snapshot: Snapshot,
                   mine: list[int]) -> dict[str, Any]:
    """What a stage's checkpoint says of its members, those at the positions `mine`."""
    # Members run side by side; a member's share of the clock is its share of the images.
    share = snapshot.images / max(snapshot.images.sum(), 1)
    return {
        "stage": stage.method, "forget_set": stage.forget_name, "epochs": stage.epochs,
        "seeds": study.seeds, "config_name": study.config_name,
        "config": study.config.to_dict(), "data_fingerprint": study.dataset.fingerprint,
        "device": workdir.device(),
        "step": snapshot.steps[mine], "epochs_trained": snapshot.epochs[mine],
        "metric": {"validation_loss": snapshot.validation_loss[mine]},
        "failed": snapshot.failed[mine], "images": snapshot.images[mine],
        "seconds": snapshot.seconds * share[mine], "flops": snapshot.flops[mine],
    }


def _touched_rows(study: Study, touched: Mapping[str, np.ndarray],
                  mine: list[int]) -> list[dict[str, Any]]:
    """Per layer and seed: how many channels or weights, of how many, and the first of them."""
    return [{"seed": seed, "layer": layer, "touched": int(mask[m].sum()), "of": mask[m].size,
             "which": np.flatnonzero(mask[m])[:_MOST_NAMED].tolist()}
            for layer, mask in touched.items() for seed, m in zip(study.seeds, mine)]


def _fewest_and_most(recipe: Recipe, members: list[Member]) -> tuple[int, int]:
    """Images of the smallest and of the largest first epoch."""
    images = [sum(p.count(m) for p in recipe.passes(0)) for m in members]
    return min(images), max(images)


def _finite_members(variables: Variables, count: int) -> np.ndarray:
    """Which members `[M]` have only finite variables."""
    finite = np.ones(count, bool)
    for leaf in jax.tree.leaves(variables):
        finite &= np.isfinite(np.asarray(leaf)).reshape(count, -1).all(1)
    return finite


def _record_reused(study: Study, stage: Stage) -> None:
    path = stage.directory(study.store) / "checkpoint"
    logging.info("%s %s: reused from %s", stage.name, stage.forget_name, path)
    metadata, _ = checkpoints.describe(path)
    study.run.record_stage(stage.name, stage.forget_name, stage.key, "reused", 0.0,
                           int(np.sum(metadata["images"])), len(metadata["seeds"]), stage.epochs)


def make_member(study: Study, seed: int, forget_set: ForgetSet | None) -> Member:
    """What the model of a seed and forget set walks over; None: the original."""
    splits, index = study.splits, study.index
    if forget_set is None:
        return Member(seed, "", index(splits.rows), splits.validation, np.zeros(0, np.int32))
    return Member(seed, forget_set.name, index(splits.retain_rows(forget_set)),
                  splits.retain_validation(forget_set), index(splits.forget_rows(forget_set)))


def initial_variables(study: Study, layout: Layout, seeds: list[int]) -> Variables:
    """Where training starts, `[M, ...]`: fresh weights, or the pretrained ones."""
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


def _label_space(study: Study) -> LabelSpace:
    d, labels = study.config.data, study.dataset.labels[study.splits.train]
    classes = study.dataset.num_classes
    counts = np.bincount(labels, minlength=classes) if classes else np.zeros(0)
    return LabelSpace(d.label_min, d.label_max, classes, study.config.model.output_scale,
                      float(np.mean(labels)), float(np.std(labels)),
                      tuple((counts / len(labels)).tolist()))
