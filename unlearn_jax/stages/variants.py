"""Several configs on the same M_O and M_R: one study each, and common populations where they can.

The configs differ in `unlearn` and `eval` alone. Of these, members of one compiled program may
differ in the learning rate and in options of the method that are fractional numbers. All
else is part of the program; such configs still share the process, the data and the models.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging

from unlearn_jax.stages.graph import Stage
from unlearn_jax.stages.models import Variant, unlearn_in_one_program, unlearn_missing
from unlearn_jax.storage.store import canonical_json

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
