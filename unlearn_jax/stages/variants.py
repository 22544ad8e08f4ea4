"""Several configs on the same M_O and M_R: one study each, and common populations where they can.

The configs differ in `unlearn` and `eval` alone. Of these, members of one compiled program may
differ in the learning rate and in options of the method that are fractional numbers. All
else is part of the program; such configs still share the process, the data and the models.

The methods of `thesis.arms` are trained here too, each as it is given, with budgets of its own on
every forget set. Their stages are those of a run of the method alone, so the store shares them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.stages.graph import Stage, Study, unlearn_stages, with_epochs
from unlearn_jax.stages.models import (
    Unlearning,
    Variant,
    make_unlearning,
    train_recipe,
    unlearn_in_one_program,
    unlearn_missing,
    unlearn_recipes,
)
from unlearn_jax.stages.plan import Plan, make_plan
from unlearn_jax.storage.store import canonical_json
from unlearn_jax.variants import arm_config, budgets

# What a method's step raises when it asks Python for a number that differs between members.
_NEEDS_NUMBER = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
                 jax.errors.TracerIntegerConversionError)


def unlearn_variants(variants: Sequence[Variant], original: Stage) -> None:
    """Trains what all variants lack, in as few programs as it takes.

    Args:
      variants: with their stages, which may be none or also another's.
      original: finished.
    """
    seen: set[str] = set()
    wanted, repeated = [], []
    for variant in variants:
        own = [s for s in variant.stages if s.key not in seen]
        seen |= {s.key for s in own}
        wanted.append(dataclasses.replace(variant, stages=own))
        repeated.append([s for s in variant.stages if s not in own])
    for program in programs([v for v in wanted if v.stages]):
        try:
            unlearn_in_one_program(program, original)
        except _NEEDS_NUMBER:
            if len(program) == 1:
                raise
            logging.warning("%s needs %s as part of the program: one program for each value",
                            program[0].unlearning.found.name, ", ".join(program[0].dials))
            for variant in program:
                unlearn_missing(variant.study, original, variant.stages, variant.unlearning)
    for variant, stages in zip(variants, repeated):  # in the store by now
        unlearn_missing(variant.study, original, stages, variant.unlearning)


def programs(variants: Sequence[Variant]) -> list[list[Variant]]:
    """The variants by compiled program, each named by what tells it from its companions.

    Args:
      variants: of the same M_O.
    """
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        found.setdefault(_common(variant), []).append(variant)
    return [_named(group) for group in found.values()]


def _common(variant: Variant) -> str:
    """What the members of one program have in common.

    An option at 0 may switch off a part of the method and what it prepares for it, so that members
    share which ones are.
    """
    setting, method = variant.unlearning.setting, variant.unlearning.found
    section = setting.config.to_dict()
    del section["learning_rate"]
    section.pop(method.name, None)
    passes = [[dataclasses.asdict(p) for p in method.method.passes(setting, epoch)]
              for epoch in range(max(section["epochs"]))]
    return canonical_json({
        "unlearn": section, "code": method.code, "passes": passes,
        "options": {k: v for k, v in setting.options.to_dict().items() if not _is_dial(v)},
        "off": [k for k, v in setting.options.to_dict().items() if _is_dial(v) and not v],
        "eval_batch_size": variant.study.config.eval.batch_size})


def _named(group: list[Variant]) -> list[Variant]:
    if len(group) == 1:
        return group
    numbers = [{k: v for k, v in variant.unlearning.setting.options.to_dict().items()
                if _is_dial(v)} for variant in group]
    differ = [k for k in numbers[0] if len({own[k] for own in numbers}) > 1]
    # A method that trains nothing has no step to read them.
    read = differ if group[0].unlearning.step else []
    return [dataclasses.replace(
        variant, dials={k: own[k] for k in read},
        name=", ".join([f"learning_rate={variant.study.config.unlearn.learning_rate!r}",
                        *(f"{k}={own[k]!r}" for k in differ)]))
        for variant, own in zip(group, numbers)]


def _is_dial(value: Any) -> bool:
    return isinstance(value, float)


@dataclasses.dataclass(frozen=True)
class Part:
    """An arm on the forget sets that share its budgets: what one population can train.

    Attributes:
      arm: what results call it.
      study: with the arm's config and these budgets.
      unlearning: its method, made ready.
      stages: of all these forget sets and budgets.
    """

    arm: str
    study: Study
    unlearning: Unlearning
    stages: tuple[Stage, ...]

    def recipes(self) -> list[tuple[Recipe, list[Stage]]]:
        """The runs that it takes, each with the stages that it makes."""
        return unlearn_recipes(self.study, list(self.stages), self.unlearning)


def make_parts(study: Study, original: Stage) -> list[Part]:
    """The arms of `thesis.arms`, each checked before any training.

    Raises:
      InputError: a method refuses its setting.
    """
    parts = []
    for arm in study.config.thesis.arms:
        by_set = budgets(study.config, arm, [f.name for f in study.splits.forget_sets])
        for epochs in dict.fromkeys(by_set.values()):
            if not epochs:
                continue
            own = with_epochs(study, arm_config(study.config, arm), epochs)
            stages = [dataclasses.replace(stage, arm=arm) for f in study.splits.forget_sets
                      if by_set[f.name] == epochs for stage in unlearn_stages(own, original, f)]
            parts.append(Part(arm, own, make_unlearning(own), tuple(stages)))
    return parts


def plan_parts(study: Study, original: Stage, retrained: Sequence[Stage],
               parts: Sequence[Part]) -> Plan:
    """What it takes to train and to predict M_O, the M_Rs and all parts; see `make_plan`."""
    runs = [("M_O and M_R", train_recipe(study), [original, *retrained])]
    runs += [(f"{part.arm} on {', '.join(dict.fromkeys(s.forget_name for s in made))}", recipe,
              made) for part in parts for recipe, made in part.recipes()]
    own = [stage for part in parts for stage in part.stages]
    return make_plan(study, runs, [(original, study.splits.forget_sets),
                                   *((s, [s.forget_set]) for s in (*retrained, *own))])


def run_parts(original: Stage, parts: list[Part]) -> list[Stage]:
    """Trains what the store lacks; returns the stages of all arms."""
    for number, part in enumerate(parts, 1):
        logging.info("arm %s on %s, part %d of %d", part.arm,
                     ", ".join(dict.fromkeys(s.forget_name for s in part.stages)), number,
                     len(parts))
        unlearn_missing(part.study, original, list(part.stages), part.unlearning)
    return [stage for part in parts for stage in part.stages]
