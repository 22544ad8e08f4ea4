"""Model stages: what M_O, the M_Rs and a method's models start from, and the recipes of both.

Missing originals and retrained models of all seeds and forget sets are members of one
population, trained by one compiled program; so are all unlearned models of a method, also of
several configs that differ in what members may differ in.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

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
from unlearn_jax.methods.outside import Found
from unlearn_jax.models import Variables
from unlearn_jax.networks.pretrained import load_members
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import started
from unlearn_jax.stages.graph import Stage, Study, method_options
from unlearn_jax.stages.populations import Share, run_missing
from unlearn_jax.stages.rehearsal import rehearse
from unlearn_jax.storage import checkpoints
from unlearn_jax.train import Step, make_train_step
from unlearn_jax.units import label_step


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

    run_missing([Share(study, stages, start)], train_recipe(study))


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
      Exception: whatever the code of a method from outside raises.
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
    if stages:
        unlearn_in_one_program([Variant(study, stages, unlearning)], original)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What one config asks of a method.

    Attributes:
      study: of the run that asks; its config decides.
      stages: at least one.
      unlearning: the method of the study's config.
      name: tells its members from those of the other variants; '' for the only one.
      dials: options that the compiled step reads from the member, as other variants have other
        values; all others are part of the program.
    """

    study: Study
    stages: list[Stage]
    unlearning: Unlearning
    name: str = ""
    dials: Mapping[str, float] = dataclasses.field(default_factory=dict)


def unlearn_in_one_program(variants: list[Variant], original: Stage) -> None:
    """Like `unlearn_missing`, for configs that differ in nothing but what members may differ in.

    Args:
      variants: their configs differ in the learning rate and in options of the method;
        `variants.programs` finds those that may be brought together.
      original: finished; of all of them.
    """
    first = variants[0]
    section, method = first.study.config.unlearn, first.unlearning.found.method

    def start(missing: list[Stage], layout: Layout) -> tuple[Variables, np.ndarray]:
        study = first.study
        sets = len({s.forget_name for s in missing})
        if method.start == "initial":
            seeds = list(study.seeds) * sets
            return initial_variables(study, layout, seeds), np.zeros(len(seeds), bool)
        variables, metadata = checkpoints.restore(original.directory(study.store) / "checkpoint")
        which = np.tile(started(study.seeds, section.from_seed), sets)
        # What starts from a failed model is no unlearned model, however well it trains.
        return (jax.tree.map(lambda x: np.asarray(x)[which], variables),
                np.asarray(metadata["failed"])[which])

    every = [stage for v in variants for stage in v.stages]
    for recipe, made in unlearn_recipes(first.study, every, first.unlearning):
        if first.dials:
            step = dialled(method.make_step, first.unlearning.setting)
            recipe = dataclasses.replace(recipe, step=step)
        run_missing([Share(v.study, [s for s in v.stages if s in made], start,
                           functools.partial(method.prepare, v.unlearning.setting)
                           if method.prepare else None,
                           v.name, v.study.config.unlearn.learning_rate, v.dials)
                     for v in variants], recipe)


def dialled(make_step: Callable[[Setting], Step], setting: Setting) -> Step:
    """A method's step that reads some of its options from the member.

    Args:
      make_step: of the method.
      setting: with all options.

    Returns:
      A step whose context is `(the method's context, {option: value})`.
    """
    @functools.wraps(make_step(setting))
    def step(key, state, batch, learning_rate, context):
        context, dials = context
        options = ml_collections.ConfigDict({**setting.options.to_dict(), **dials})
        own = make_step(dataclasses.replace(setting, options=options))
        return own(key, state, batch, learning_rate, context)

    return step


def initial_variables(study: Study, layout: Layout, seeds: list[int]) -> Variables:
    """Where training starts, `[M, ...]`: fresh weights, or the pretrained ones."""
    variables = init_members(study.model, layout, seeds)
    path = study.config.model.pretrained
    if not path:
        return variables
    variables, loaded = load_members(path, variables, study.config.model)
    logging.info("%s", loaded)
    return variables


def _label_space(study: Study) -> LabelSpace:
    d, labels = study.config.data, study.dataset.labels[study.splits.train]
    classes = study.dataset.num_classes
    counts = np.bincount(labels, minlength=classes) if classes else np.zeros(0)
    return LabelSpace(d.label_min, d.label_max, classes, study.config.model.output_scale,
                      float(np.mean(labels)), float(np.std(labels)),
                      tuple((counts / len(labels)).tolist()), 1.0 if classes else label_step(d))
