"""Several configs on the same M_O and M_R: one study each, and common populations if possible.

The configs differ only in `unlearn` and `eval`. Members of one compiled program may differ in the
learning rate and in fractional options of the method. All other keys are part of the program;
configs that differ in them still share the process, the data and the models.

The arms of `thesis.arms` are trained here too, each as configured, with its own budgets on every
forget set. Their stages are those of a run of the method alone, so the store shares them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

from unlearn_jax.config.variants import arm_config, budgets
from unlearn_jax.stages.graph import (
    PEAK_RATE,
    RunContext,
    Stage,
    Variant,
    unlearn_stages,
    with_epochs,
)
from unlearn_jax.stages.models import (
    make_unlearning,
    train_recipe,
    unlearn_missing,
    unlearn_recipes,
)
from unlearn_jax.stages.outside import to_be_trained
from unlearn_jax.stages.plan import Plan, make_plan
from unlearn_jax.storage.store import canonical_json

# Raised by a method's step that needs a Python number where the value differs between members.
_NEEDS_NUMBER = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
                 jax.errors.TracerIntegerConversionError)


def unlearn_variants(variants: Sequence[Variant], original: Stage) -> None:
    """Trains what the store lacks of all variants, in as few programs as possible.

    Args:
      variants: may have no stages, or stages that another variant has, too.
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
            unlearn_missing(program, original)
        except _NEEDS_NUMBER:
            if len(program) == 1:
                raise
            first = program[0]
            logging.warning("%s needs %s as part of the program: one program for each value",
                            first.required_unlearning.found.name, ", ".join(first.traced_options))
            for variant in program:
                alone = dataclasses.replace(variant, name="", traced_options={})
                unlearn_missing([alone], original)
    for variant, stages in zip(variants, repeated):  # in the store by now
        unlearn_missing([dataclasses.replace(variant, stages=stages)], original)


def programs(variants: Sequence[Variant]) -> list[list[Variant]]:
    """The variants by compiled program, each named by the values that differ within its program.

    Args:
      variants: variants that share M_O.
    """
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        found.setdefault(_common(variant), []).append(variant)
    return [_named(group) for group in found.values()]


def _common(variant: Variant) -> str:
    """Everything that the members of one program have in common, as text.

    An option at 0 may switch off a part of the method and its preparation. So the members of a
    program have the same options at 0.
    """
    unlearning = variant.required_unlearning
    setting, method = unlearning.setting, unlearning.found
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
    first = group[0].required_unlearning
    numbers = [{k: v for k, v in variant.required_unlearning.setting.options.to_dict().items()
                if _is_dial(v)} for variant in group]
    differ = [k for k in numbers[0] if len({own[k] for own in numbers}) > 1]
    # A method that trains nothing has no step that could read them.
    read = differ if first.step else []
    rates = [variant.study.config.unlearn.learning_rate for variant in group]
    # The package's own steps take the learning rate as an argument alone.
    from_config = bool(first.step and first.found.code and len(set(rates)) > 1)
    return [dataclasses.replace(
        variant,
        traced_options={k: own[k] for k in read} | ({PEAK_RATE: rate} if from_config else {}),
        name=", ".join([f"learning_rate={rate!r}",
                        *(f"{k}={own[k]!r}" for k in differ)]))
        for variant, own, rate in zip(group, numbers, rates)]


def _is_dial(value: Any) -> bool:
    return isinstance(value, float)


def make_arms(study: RunContext, original: Stage) -> list[Variant]:
    """The arms of `thesis.arms`, each checked before any training.

    Forget sets with the same budgets are trained together: an arm has a variant for each choice of
    budgets.

    Raises:
      InputError: a method refuses its setting.
    """
    found = []
    for arm in study.config.thesis.arms:
        by_set = budgets(study.config, arm, [f.name for f in study.splits.forget_sets])
        for epochs in dict.fromkeys(by_set.values()):
            if not epochs:
                continue
            own = with_epochs(study, arm_config(study.config, arm), epochs)
            stages = [dataclasses.replace(stage, arm=arm) for f in study.splits.forget_sets
                      if by_set[f.name] == epochs for stage in unlearn_stages(own, original, f)]
            found.append(Variant(own, stages, make_unlearning(own), arm))
    return found


def plan_variants(study: RunContext, original: Stage, retrained: Sequence[Stage],
                  variants: Sequence[Variant]) -> Plan:
    """What it takes to train and to predict M_O, the M_Rs and all variants; see `make_plan`."""
    runs = [("M_O and M_R", train_recipe(study), to_be_trained([original, *retrained]))]
    runs += [(f"{variant.arm} on {', '.join(dict.fromkeys(s.forget_name for s in made))}", recipe,
              made) for variant in variants for recipe, made in unlearn_recipes(variant)]
    own = [stage for variant in variants for stage in variant.stages]
    return make_plan(study, runs, [(original, study.splits.forget_sets),
                                   *((s, [s.forget_set]) for s in (*retrained, *own))])


def run_arms(original: Stage, arms: Sequence[Variant]) -> list[Stage]:
    """Trains what the store lacks; returns the stages of all arms."""
    for number, variant in enumerate(arms, 1):
        logging.info("arm %s on %s, part %d of %d", variant.arm,
                     ", ".join(dict.fromkeys(s.forget_name for s in variant.stages)), number,
                     len(arms))
        unlearn_missing([variant], original)
    return [stage for variant in arms for stage in variant.stages]
