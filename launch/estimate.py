"""What a sweep would run and cost: `--dry-run`. Figures of earlier runs where there are any.

Images are counted exactly, from the data and the forget sets. Their rate is that of the same model
and batch in the store, or is measured here and now on a few steps; the text says which. Whatever
the store has already is not counted.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from launch.local import environments
from launch.plan import Job, Plan
from unlearn_jax import checkpoints, stages, workdir
from unlearn_jax.engine import train_population
from unlearn_jax.layout import make_layout
from unlearn_jax.memory import tree_bytes
from unlearn_jax.methods import find_method
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.population import Recipe
from unlearn_jax.stages.graph import Stage, Study, original_stage, retrain_stage, unlearn_stages
from unlearn_jax.stages.models import initial_variables, make_unlearning
from unlearn_jax.stages.populations import make_member
from unlearn_jax.store import Store, human_bytes
from unlearn_jax.train import make_train_step

_STEPS = 5  # of a member, measured after as many that are not
_COPIES = 4  # of a member's parameters with Adam: weights, two moments, the best so far
_FEW_MODELS = 3  # of the store, that say something of the rate


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast a population trains.

    Attributes:
      images_per_second: of all members together.
      source: where the figure is from.
    """

    images_per_second: float
    source: str


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a job, beyond what the store has.

    Attributes:
      models: to be trained.
      images: that they walk over.
      rate: of training.
      bytes: on the device, or in a process without one: data and members.
    """

    models: int
    images: int
    rate: Rate
    bytes: int

    @property
    def seconds(self) -> float:
        """Of training, without compilation and predictions."""
        return self.images / self.rate.images_per_second


def describe(plan: Plan, where: str, pack: int) -> str:
    """The plan in words: runs, processes, and what they cost.

    Args:
      plan: nothing of it is written or trained; data are decoded into its store.
      where: `local` or `slurm`.
      pack: processes of a GPU, or of a task.

    Raises:
      InputError: data or forget sets cannot be used.
    """
    lines = [f"{len(plan.points)} points: {sum(r.members for r in plan.runs)} unlearned models in "
             f"{len(plan.runs)} runs, {len(plan.jobs)} processes; work directory {plan.directory}, "
             f"store {plan.store}"]
    costs = []
    for job in plan.jobs:
        lines.append(f"process {job.name}")
        for run in job.runs:
            c = run.config
            lines.append(
                f"  run {run.name}: {find_method(c.unlearn.method).name}, {len(c.seeds)} seeds x "
                f"{len(c.forget.sets)} forget sets x budgets {c.unlearn.epochs}, "
                f"{len(run.points)} points" + (", finished" if plan.finished(run) else ""))
        cost = _cost(plan, job)
        costs.append(cost)
        lines.append(f"  {cost.models} models to train, {cost.images} images, about "
                     f"{_duration(cost.seconds)} at {cost.rate.images_per_second:.0f} images/s "
                     f"({cost.rate.source}); about {human_bytes(cost.bytes)} of memory")
    total = sum(c.seconds for c in costs)
    if where == "slurm":
        tasks = -(-len(plan.jobs) // pack)
        lines.append(f"SLURM: an array of {tasks} tasks, about {_duration(total)} of tasks in all; "
                     "the rate is this machine's")
    else:
        places = len(environments(plan.runs[0].config.parallel.backend, len(plan.jobs), pack))
        lines.append(f"about {_duration(total / places)} with {places} processes at a time, and "
                     "beside it compilation, predictions and reports")
    return "\n".join(lines)


def _cost(plan: Plan, job: Job) -> Cost:
    store = Store(plan.store)
    with tempfile.TemporaryDirectory() as scratch:
        first = job.runs[0]
        run = workdir.Run(Path(scratch), first.config, first.config_name, "")
        study = stages.load(first.config, first.config_name, store, run, None)
    members, images = 0, 0
    for own, stage, epochs in _missing(study, job, store):
        members += len(own.seeds)
        images += sum(_images(own, stage, seed, epochs) for seed in own.seeds)
    rate = _recorded(study, store) or _measured(study)
    shapes = jax.eval_shape(study.model.init, jax.random.key(0))
    data = tree_bytes((study.resident.images, study.resident.labels))
    return Cost(members, images, rate, data + _COPIES * members * tree_bytes(shapes))


def _missing(study: Study, job: Job, store: Store) -> Iterator[tuple[Study, Stage, int]]:
    """The stages that the store lacks, each once, with the epochs that are trained for them."""
    seen = set()
    original = original_stage(study)
    wanted = [(study, s, study.config.train.epochs) for s in (original, *(
        retrain_stage(study, original, f) for f in study.splits.forget_sets))]
    for run in job.runs:
        own = dataclasses.replace(study, config=run.config)
        method = find_method(run.config.unlearn.method).method
        snapshots = run.config.unlearn.schedule == "constant" and not method.own_runs
        for f in study.splits.forget_sets:
            before = 0
            for stage in unlearn_stages(own, original, f):
                # At a constant rate a longer run begins with the shorter ones.
                wanted.append((own, stage, stage.epochs - before if snapshots else stage.epochs))
                before = stage.epochs
    for own, stage, epochs in wanted:
        if stage.key not in seen and not store.complete(stage.method, stage.key):
            seen.add(stage.key)
            yield own, stage, epochs


def _images(study: Study, stage: Stage, seed: int, epochs: int) -> int:
    member = make_member(study, seed, stage.forget_set)
    if stage.method in ("original", "retrain"):
        return epochs * len(member.retain)
    unlearning = make_unlearning(study)
    method = unlearning.found.method
    return sum(p.count(member) for epoch in range(epochs)
               for p in method.passes(unlearning.setting, epoch))


def _recorded(study: Study, store: Store) -> Rate | None:
    """The rate of models in the store that were trained like these; None: too few."""
    config, images, seconds, models = study.config, 0.0, 0.0, 0
    for kind in ("original", "retrain"):
        for path in store.root.glob(f"{kind}/*/checkpoint"):
            if not store.complete(kind, path.parent.name):
                continue
            metadata, _ = checkpoints.describe(path)
            theirs = metadata["config"]
            if (theirs["model"], theirs["data"]["image_size"], theirs["train"]["batch_size"]) == (
                    _plain(config.model.to_dict()), config.data.image_size,
                    config.train.batch_size):
                images += float(np.sum(metadata["images"]))
                seconds += float(np.sum(metadata["seconds"]))
                models += len(metadata["seeds"])
    if models < _FEW_MODELS or not seconds > 0:
        return None
    return Rate(images / seconds, f"of {models} models in {store.root}, on whatever trained them")


def _measured(study: Study) -> Rate:
    """The rate of a few training steps here: M_O of all seeds, on a part of the data."""
    config = study.config
    settings = OptimizerSettings.from_config(config.train)
    optimizer = make_optimizer(settings)
    # The first epoch warms up.
    recipe = Recipe("train", make_train_step(study.model, optimizer, study.loss), optimizer,
                    settings, study.loss, 2, config.train.batch_size, config.eval.batch_size,
                    keep="last", snapshots=(1, 2))
    part = _STEPS * config.train.batch_size
    members = [dataclasses.replace(m, retain=m.retain[:part], validation=m.validation[:1])
               for m in (make_member(study, seed, None) for seed in study.seeds)]
    layout = make_layout(config.parallel, len(members))
    start = initial_variables(study, layout, list(study.seeds))
    trained = train_population(recipe, study.model, layout, study.resident, members, start)
    first, second = trained.snapshots[1], trained.snapshots[2]
    images = int((second.images - first.images).sum())
    return Rate(images / (second.seconds - first.seconds),
                f"measured now, on {images} images with {len(members)} members")


def _plain(tree):
    return {k: list(v) if isinstance(v, tuple) else v for k, v in tree.items()}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
