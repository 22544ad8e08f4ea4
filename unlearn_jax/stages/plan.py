"""The plan of a run: models, steps, images and FLOPs, with an estimate of time and memory.

Models, steps and images are counted exactly, as the engine will walk over them. The time is
estimated from the rate at which this store's finished stages trained on this device, or else from a
few measured steps. The memory comes from the compiler's analysis of the training step.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.memory import tree_bytes
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import Rate, measure_rate
from unlearn_jax.members import Member
from unlearn_jax.stages import workdir
from unlearn_jax.stages.evaluate import predictions_key, split_rows
from unlearn_jax.stages.graph import RunContext, Stage, make_member
from unlearn_jax.stages.populations import shortened
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.metadata import CheckpointError

# A step is a forward pass and a backward pass. The latter costs as much as two forward passes.
_FORWARD = 1 / 3
_MEASURE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Job:
    """A population that is to be trained.

    Attributes:
      name: what the models are called.
      models: members that the store lacks.
      reused: members that the store has.
      epochs: the most epochs of a member.
      steps, images: sums over all members and epochs; fewer if a member stops early.
      validated: images of the validations after each epoch.
    """

    name: str
    models: int
    reused: int
    epochs: int
    steps: int
    images: int
    validated: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run before it begins.

    Attributes:
      jobs: in their order.
      predicted: images to predict after training.
      measured: rate of a few steps of the first job; None if nothing is to be trained.
      recorded: images/s of this store's finished stages of the same network on this device; None
        if there are none.
      image_bytes: size of the resident images.
      early: whether members may stop before their last epoch.
    """

    jobs: tuple[Job, ...]
    predicted: int
    measured: Rate | None
    recorded: float | None
    image_bytes: int
    early: bool

    @property
    def seconds(self) -> float | None:
        """Estimated time of training and predicting, with compilation; None: nothing to train."""
        if self.measured is None:
            return None
        images = sum(j.images for j in self.jobs) + _FORWARD * self.predicted
        if self.recorded is None:
            images += _FORWARD * sum(j.validated for j in self.jobs)  # recorded rates hold them
        compiling = self.measured.compile_seconds * sum(j.models > 0 for j in self.jobs)
        return images / (self.recorded or self.measured.images_per_second) + compiling

    @property
    def flops(self) -> float | None:
        """FLOPs of all training steps, each as one of the first job; None: not counted."""
        if self.measured is None:
            return 0.0
        flops = self.measured.flops_of_a_step * sum(j.steps for j in self.jobs)
        return None if math.isnan(flops) else flops

    def record(self) -> dict:
        """The plan as run.json holds it."""
        m = self.measured
        return {
            "jobs": [dataclasses.asdict(j) for j in self.jobs], "predicted": self.predicted,
            "flops": self.flops,
            "measured_images_per_s": m and round(m.images_per_second, 1),
            "recorded_images_per_s": self.recorded and round(self.recorded, 1),
            "call_bytes": m and m.call_bytes, "image_bytes": self.image_bytes,
            "seconds": self.seconds and round(self.seconds, 1)}

    def text(self) -> str:
        """The plan in words, with the source of each estimate."""
        lines = ["Plan", f"  {'to train':44} {'models':>7} {'in store':>8} {'epochs':>7} "
                         f"{'steps':>12} {'images':>14}"]
        for j in self.jobs:
            lines.append(f"  {j.name:44} {j.models:7} {j.reused:8} {j.epochs:7} {j.steps:12,} "
                         f"{j.images:14,}")
        lines.append(f"  {'together':44} {sum(j.models for j in self.jobs):7} "
                     f"{sum(j.reused for j in self.jobs):8} {'':7} "
                     f"{sum(j.steps for j in self.jobs):12,} "
                     f"{sum(j.images for j in self.jobs):14,}")
        if self.early:
            lines.append("  Epochs, steps and images are the most there can be: models stop early.")
        lines.append(f"  Then {self.predicted:,} images are predicted.")
        m, seconds = self.measured, self.seconds
        if m is None or seconds is None:
            return "\n".join([*lines, "  Every model is in the store: nothing to train."])
        flops = "not counted" if self.flops is None else \
            f"{self.flops:.3g} for the training steps, as they are written"
        rate = (f"{self.recorded:,.0f} images/s, as finished stages of this store trained on this "
                f"device (now, in {m.calls} calls: {m.images_per_second:,.0f})" if self.recorded
                else f"{m.images_per_second:,.0f} images/s, measured now in {m.calls} calls of the "
                     "training step")
        lines += [
            f"  FLOPs: {flops}.",
            f"  Time: about {duration(seconds)} at {rate}; a prediction counted as a third "
            f"of a step, each compilation as {m.compile_seconds:.0f} s.",
            f"  Memory: {m.call_bytes / 1e6:,.0f} MB for a call of {m.members} "
            f"model{'' if m.members == 1 else 's'} on each device, as the compiler has it, the "
            f"images ({self.image_bytes / 1e6:,.0f} MB) included where they are there."]
        return "\n".join(lines)


def make_plan(study: RunContext, runs: Sequence[tuple[str, Recipe, Sequence[Stage]]],
              evaluated: Sequence[tuple[Stage, Sequence]]) -> Plan:
    """Counts the work of a run. Measures a few steps if anything is left to train.

    Args:
      study: what the run shares.
      runs: the populations, each as its name, its recipe and the stages that it makes.
      evaluated: the stages, each with the forget sets that it is evaluated on.
    """
    jobs, first = [], None
    for name, recipe, stages in runs:
        job, members = _job(study, name, recipe, stages)
        jobs.append(job)
        first = first or ((recipe, members) if members else None)
    predicted = sum(
        len(study.seeds) * sum(map(len, split_rows(study, f).values()))
        for stage, forget_sets in evaluated for f in forget_sets
        if not study.store.complete("predictions", predictions_key(study, stage, f)))
    return Plan(tuple(jobs), predicted, _measured(study, *first) if first else None,
                recorded_rate(study), tree_bytes(study.resident.images),
                study.config.train.patience > 0)


def _job(study: RunContext, name: str, recipe: Recipe, stages: Sequence[Stage],
         ) -> tuple[Job, list[Member]]:
    missing = [s for s in stages if not study.store.complete(s.method, s.key)]
    sets = {s.forget_name: s.forget_set for s in missing}
    members = [make_member(study, seed, f) for f in sets.values() for seed in study.seeds]
    if missing:
        recipe = shortened(recipe, missing)
    count = len({s.forget_name for s in stages}) * len(study.seeds)
    return Job(name, len(members), count - len(members), recipe.epochs,
               sum(map(recipe.all_steps, members)), sum(map(recipe.all_images, members)),
               sum(recipe.epochs * len(m.validation) for m in members)), members


def _measured(study: RunContext, recipe: Recipe, members: list[Member]) -> Rate:
    layout = make_layout(study.config.parallel, len(members))
    together = [members[m] for m in np.unique(layout.groups(len(members))[0])]
    # Random weights do: the time of a step does not depend on the weights.
    variables = init_members(study.model, layout, [m.seed for m in together])
    return measure_rate(recipe, study.model, layout, study.resident, together, variables,
                        _MEASURE_SECONDS)


def recorded_rate(study: RunContext) -> float | None:
    """Images/s of the finished originals and retrained models of this network and device."""
    config, images, seconds = study.config, 0.0, 0.0
    for method in ("original", "retrain"):
        for key in study.store.keys(method):
            try:
                metadata, _ = checkpoints.describe(study.store.path(method, key) / "checkpoint")
            except CheckpointError as e:
                logging.warning("no rate from %s/%s: %s", method, key, e)
                continue
            theirs = metadata["config"]
            same = (metadata.get("device") == workdir.device()
                    and theirs["model"] == _plain(config.model)
                    and theirs["data"]["image_size"] == config.data.image_size
                    and theirs["train"]["batch_size"] == config.train.batch_size)
            if same:
                images += float(np.sum(metadata["images"]))
                seconds += float(np.sum(metadata["seconds"]))
    return images / seconds if seconds else None


def _plain(section: ml_collections.ConfigDict) -> dict[str, Any]:
    """A section of the config as metadata holds it: tuples are lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in section.to_dict().items()}


def duration(seconds: float) -> str:
    """Seconds in words, as seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
