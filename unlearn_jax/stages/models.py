"""Where M_O, the M_Rs and a method's models start, and the recipes of their training.

One compiled program trains the missing M_O and M_Rs of all seeds and forget sets as one population.
Another one trains all unlearned models of a method, also those of several configs that differ only
in values which members may differ in.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods import find_method
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.models import Variables
from unlearn_jax.networks.pretrained import load_members
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import started
from unlearn_jax.stages.graph import (
    PEAK_RATE,
    RunContext,
    Stage,
    Unlearning,
    Variant,
    method_options,
)
from unlearn_jax.stages.populations import train_variants
from unlearn_jax.stages.rehearsal import rehearse
from unlearn_jax.storage import checkpoints
from unlearn_jax.train import Batch, Step, TrainState, make_train_step
from unlearn_jax.units import label_step


def train_recipe(study: RunContext) -> Recipe:
    """How originals and retrained models are trained."""
    config = study.config
    settings = OptimizerSettings.from_config(config.train)
    optimizer = make_optimizer(settings)
    step = make_train_step(study.model, optimizer, study.loss)
    return Recipe("train", step, optimizer, settings, study.loss, config.train.epochs,
                  config.train.batch_size, config.eval.batch_size, config.train.patience,
                  keep=config.train.keep)


def train_missing(study: RunContext, stages: list[Stage]) -> None:
    """Trains the originals and the retrained models that the store lacks, as one population."""
    train_variants([Variant(study, stages)], train_recipe(study), _start_anew)


def make_unlearning(study: RunContext) -> Unlearning:
    """The config's method with its step.

    Raises:
      InputError: the method cannot work as configured.
      Exception: any exception that the code of an outside method raises.
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
    step = method.make_step(setting) if method.make_step else None
    if found.code:
        rehearse(study, found, setting, step)
    return Unlearning(found, setting, step)


def unlearn_recipes(variant: Variant) -> list[tuple[Recipe, list[Stage]]]:
    """The runs of an unlearning, each with the stages that it makes.

    At a constant learning rate a longer run begins like a shorter one, so the budgets are snapshots
    of one run. Other schedules depend on the number of epochs, so each budget is a run.
    """
    study, unlearning, stages = variant.study, variant.required_unlearning, variant.stages
    section, method = study.config.unlearn, unlearning.found.method
    settings = OptimizerSettings.from_config(section)
    optimizer = unlearning.setting.optimizer

    def passes(epoch: int) -> tuple[Pass, ...]:
        return method.passes(unlearning.setting, epoch)

    step = unlearning.step or make_train_step(study.model, optimizer, study.loss)
    if variant.traced_options:
        assert method.make_step is not None  # a method without a step gets no traced options
        step = dialled(method.make_step, unlearning.setting)
    budgets = sorted({s.epochs for s in stages})
    apart = settings.schedule != "constant" or method.budgets_run_apart
    runs = [[b] for b in budgets] if apart else [budgets] if budgets else []
    return [(Recipe(unlearning.found.name, step, optimizer, settings, study.loss, max(run),
                    section.batch_size, study.config.eval.batch_size, keep="last",
                    snapshots=tuple(run), passes=passes),
             [s for s in stages if s.epochs in run]) for run in runs]


def unlearn_missing(variants: Sequence[Variant], original: Stage) -> None:
    """Unlearns for all forget sets, seeds and budgets that the store lacks.

    Args:
      variants: one, or several whose configs differ only in the learning rate and in options of
        the method that members may differ in; `variants.programs` finds these.
      original: M_O of all variants, finished.
    """
    first = variants[0]
    every = [stage for v in variants for stage in v.stages]
    for recipe, made in unlearn_recipes(dataclasses.replace(first, stages=every)):
        train_variants([dataclasses.replace(v, stages=[s for s in v.stages if s in made])
                        for v in variants], recipe, functools.partial(_start_from, original))


def _start_anew(variant: Variant, layout: Layout) -> tuple[Variables, np.ndarray]:
    """Initial weights, one model for each seed and forget set; none has failed."""
    seeds = list(variant.study.seeds) * len({s.forget_name for s in variant.stages})
    return initial_variables(variant.study, layout, seeds), np.zeros(len(seeds), bool)


def _start_from(original: Stage, variant: Variant,
                layout: Layout) -> tuple[Variables, np.ndarray]:
    """M_O's weights, or initial ones where the method trains from them."""
    if variant.required_unlearning.found.method.start == "initial":
        return _start_anew(variant, layout)
    study = variant.study
    variables, metadata = checkpoints.restore(original.directory(study.store) / "checkpoint")
    which = np.tile(started(study.seeds, study.config.unlearn.from_seed),
                    len({s.forget_name for s in variant.stages}))
    # A model that starts from a failed M_O counts as failed, even if it trains well.
    return (jax.tree.map(lambda x: np.asarray(x)[which], variables),
            np.asarray(metadata["failed"])[which])


def dialled(make_step: Callable[[Setting], Step], setting: Setting) -> Step:
    """A method's step that reads some of its options from the member.

    Args:
      make_step: `Method.make_step` of the method.
      setting: has all options.

    Returns:
      A step whose context is `(the method's context, {option: value})`.
    """
    @functools.wraps(make_step(setting))
    def step(key: jax.Array, state: TrainState, batch: Batch, learning_rate: jax.Array,
             context: Any) -> tuple[TrainState, jax.Array]:
        context, traced = context
        rate = {"learning_rate": traced[PEAK_RATE]} if PEAK_RATE in traced else {}
        options = {k: v for k, v in traced.items() if k != PEAK_RATE}
        own = make_step(dataclasses.replace(
            setting, config=ml_collections.ConfigDict({**setting.config.to_dict(), **rate}),
            options=ml_collections.ConfigDict({**setting.options.to_dict(), **options})))
        return own(key, state, batch, learning_rate, context)

    return step


def initial_variables(study: RunContext, layout: Layout, seeds: list[int]) -> Variables:
    """The variables `[M, ...]` before training: random weights, or pretrained ones."""
    variables = init_members(study.model, layout, seeds)
    path = study.config.model.pretrained
    if not path:
        return variables
    variables, loaded = load_members(path, variables, study.config.model)
    logging.info("%s", loaded)
    return variables


def _label_space(study: RunContext) -> LabelSpace:
    d, labels = study.config.data, study.dataset.labels[study.splits.train]
    classes = study.dataset.num_classes
    counts = np.bincount(labels, minlength=classes) if classes else np.zeros(0)
    return LabelSpace(d.label_min, d.label_max, classes, study.config.model.output_scale,
                      float(np.mean(labels)), float(np.std(labels)),
                      tuple((counts / len(labels)).tolist()), 1.0 if classes else label_step(d))
