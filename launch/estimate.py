"""The runs and costs of a sweep: `--dry-run`. Each process is planned like a study.

Steps and images are counted exactly, from the data and the forget sets, without stages that are
already in the store. Time and memory come from `unlearn_jax/stages/plan.py`; its docstring explains
the estimates. The models of a comparison or of a training scheme (SISA) are not counted, because
they depend on trained models; the lines of their processes state this.
"""

import dataclasses
import signal
import tempfile
import textwrap
from pathlib import Path

import ml_collections

from launch.local import environments
from launch.plan import Job, Plan
from unlearn_jax.engine.layout import find_devices
from unlearn_jax.errors import InputError
from unlearn_jax.methods import find_method
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.stages import workdir
from unlearn_jax.stages.evaluate import predictions_key
from unlearn_jax.stages.graph import (
    RunContext,
    Stage,
    Variant,
    original_stage,
    retrain_stages,
    unlearn_stages,
)
from unlearn_jax.stages.loading import load
from unlearn_jax.stages.models import make_unlearning
from unlearn_jax.stages.plan import Plan as StudyPlan
from unlearn_jax.stages.plan import duration
from unlearn_jax.stages.variants import make_arms, plan_variants
from unlearn_jax.startup import use_devices
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt


def describe(plan: Plan, where: str, pack: int) -> str:
    """The plan in words: runs, processes and costs.

    Args:
      plan: the plan; nothing is trained or written, but data are decoded into its store.
      where: `local` or `slurm`.
      pack: processes on a GPU, or in a task.

    Raises:
      InputError: data, forget sets or a method's options cannot be used.
    """
    lines = [f"{len(plan.points)} points: {sum(r.members for r in plan.runs)} unlearned models in "
             f"{len(plan.runs)} runs, {len(plan.jobs)} processes; work directory {plan.directory}, "
             f"store {plan.store}"]
    total, made = 0.0, set()
    for job in plan.jobs:
        lines.append(f"process {job.name}")
        mine = _here(job) if where == "slurm" else job
        if mine is not job:
            lines.append(f"  jax finds no {job.runs[0].config.parallel.backend} here: planned with "
                         "what there is")
        for run in job.runs:
            c = run.config
            lines.append(
                f"  run {run.name}: {find_method(c.unlearn.method).name}, {len(c.seeds)} seeds x "
                f"{len(c.forget.sets)} forget sets x budgets {c.unlearn.epochs}, "
                f"{len(run.points)} points" + (", finished" if plan.finished(run) else ""))
            if not _countable(c):
                lines.append("    its unlearned models are not in the plan that follows")
        planned = plan_job(mine, Store(plan.store), made)
        total += planned.seconds or 0.0
        lines.append(textwrap.indent(planned.text(), "  "))
    if len(plan.jobs) > 1:
        lines.append("models that several processes need are counted with the first of them, and "
                     "as in the store with the others")
    if where == "slurm":
        tasks = -(-len(plan.jobs) // pack)
        lines.append(f"SLURM: an array of {tasks} tasks, about {duration(total)} of tasks in all; "
                     "rate and memory are this machine's")
    else:
        places = len(environments(plan.runs[0].config.parallel.backend, len(plan.jobs), pack))
        lines.append(f"about {duration(total / places)} with {places} processes at a time, and "
                     "beside it reports")
    return "\n".join(lines)


def use_devices_of(plan: Plan) -> None:
    """Gives this process the devices of the sweep's processes; call it before jax finds devices."""
    configs = [run.config for run in plan.runs]
    # If only some jobs run on a CPU, a process that plans all of them has both backends.
    config = next((c for c in configs if c.parallel.backend != "cpu"), configs[0])
    before = {n: signal.getsignal(n) for n in (*interrupt.SIGNALS, signal.SIGINT)}
    use_devices(config)
    for number, handler in before.items():
        signal.signal(number, handler)  # there is nothing to save: a signal ends this process


def _here(job: Job) -> Job:
    """The job, planned without devices that this submit host lacks."""
    try:
        find_devices(job.runs[0].config.parallel.backend)
        return job
    except InputError:
        return dataclasses.replace(job, runs=tuple(
            dataclasses.replace(run, config=_anywhere(run.config)) for run in job.runs))


def _anywhere(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.parallel.update(backend="", members=0, batch=1)
    return config


class _Later(Store):
    """A store with additional stages, as if earlier processes had made them."""

    def __init__(self, root: Path, made: set[tuple[str, str]]):
        super().__init__(root)
        self._made = made

    def complete(self, stage: str, key: str) -> bool:
        return (stage, key) in self._made or super().complete(stage, key)


def plan_job(job: Job, store: Store, made: set[tuple[str, str]] | None = None) -> StudyPlan:
    """The training and predictions of a process of the sweep, without stages in the store.

    Args:
      job: the job of the process.
      store: store of the sweep.
      made: (stage, key) of the stages that earlier processes of the sweep make; those of this
        process are added.

    Raises:
      InputError: data, forget sets or a method's options cannot be used.
    """
    first, made = job.runs[0], set() if made is None else made
    store = _Later(store.root, made)
    with tempfile.TemporaryDirectory() as scratch:
        run = workdir.RunRecord(Path(scratch), first.config, first.config_name, "")
        study = load(first.config, first.config_name, store, run, None)
        original = original_stage(study)
        retrained = retrain_stages(study, original)
        variants: list[Variant] = []
        for own in job.runs:
            variants += _variants(dataclasses.replace(study, config=own.config), original,
                                  own.name, {s.key for v in variants for s in v.stages})
        with convolutions(first.config.parallel.convolution):
            planned = plan_variants(study, original, retrained, variants)
    own = [(s, [s.forget_set]) for s in (*retrained, *(s for v in variants for s in v.stages))]
    for stage, forget_sets in ((original, study.splits.forget_sets), *own):
        made |= {(stage.method, stage.key),
                 *(("predictions", predictions_key(study, stage, f)) for f in forget_sets)}
    return planned


def _variants(study: RunContext, original: Stage, name: str, planned: set[str]) -> list[Variant]:
    if study.config.thesis.arms:
        return make_arms(study, original)
    if not _countable(study.config):
        return []
    # Runs of a sweep may share models; these are trained once.
    made = [s for f in study.splits.forget_sets for s in unlearn_stages(study, original, f)
            if s.key not in planned]
    return [Variant(study, made, make_unlearning(study), name)]


def _countable(config: ml_collections.ConfigDict) -> bool:
    return not (config.compare.methods or find_method(config.unlearn.method).method.scheme)
