"""Arms: methods side by side, each as it is given, with budgets of its own on every forget set.

The stages are those that a run of a method alone would make, so that the store shares them.
"""

import dataclasses
from collections.abc import Sequence

from absl import logging

from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.stages.graph import Stage, Study, unlearn_stages, with_epochs
from unlearn_jax.stages.models import (
    Unlearning,
    make_unlearning,
    train_recipe,
    unlearn_missing,
    unlearn_recipes,
)
from unlearn_jax.stages.plan import Plan, make_plan
from unlearn_jax.variants import arm_config, budgets


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
