"""Populations: train what the store lacks, each stage once, and store it.

A stage is what the store holds and later runs find again: all seeds of a method, forget set and
budget. Several runs, such as the points of a sweep, may share a population.

`train_and_store` is the one loop. It trains models (`train_variants`), the constituents of SISA
(sisa.py) and the models that learn D_f again (relearn.py).
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.engine.layout import Layout, make_layout
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, Snapshot, Trained
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.methods.method import Prepared
from unlearn_jax.models import Variables
from unlearn_jax.stages.graph import RunContext, Stage, Variant, make_member
from unlearn_jax.stages.progress import CheckpointSaver, parts_as_saved
from unlearn_jax.stages.stored import for_as_many, record_reused, store_stage
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt

# Where the members of a variant start. It takes the variant, whose stages are all missing, and a
# layout; it gives variables `[M, ...]` and which members have failed.
Start = Callable[[Variant, Layout], tuple[Variables, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Started:
    """A population that is ready to be trained.

    Attributes:
      variables: `[M, ...]` of its members before training.
      store: stores every stage and notes it in its run. Takes what training left, `computed` or
        `resumed`, and the wall seconds of training without compilation.
      resident: images and labels; None: those of the study.
      context: what the method prepared for each member, `[M, ...]`.
      compile_seconds: spent compiling so far.
    """

    variables: Variables
    store: Callable[[Trained, str, float], None]
    resident: Resident | Streamed | None = None
    context: Any = None
    compile_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Population:
    """Members that one program trains, for stages that the store lacks.

    Attributes:
      study: what a run that wants some of these stages shares.
      recipe: how all members are trained.
      members: the M members. Without any, nothing is trained, and the stages are stored.
      text: its name in the log.
      start: returns the population before its first step, on the devices of a layout.
    """

    study: RunContext
    recipe: Recipe
    members: list[Member]
    text: str
    start: Callable[[Layout], Started]


def train_and_store(store: Store, stages: Sequence[Stage],
                    make: Callable[[list[Stage]], Population],
                    note_reused: Callable[[Stage], None], all_at_once: bool = False) -> None:
    """Trains the stages that the store lacks, and stores them.

    They are one population, except that stages which an earlier process left half-finished in
    several populations are continued as these.

    Args:
      store: where the stages are kept.
      stages: each once.
      make: from some of the stages, all missing, to their population; cheap.
      note_reused: called with each stage that the store has.
      all_at_once: wait for other processes until all missing stages are held. Otherwise stages
        that other processes hold are looked at again after the rest is stored.

    Raises:
      Interrupted: a signal asked for it (interrupt.py).
    """
    rest = list(stages)
    while rest:
        with missing_of(store, rest, all_at_once) as (missing, busy):
            for stage in rest:
                if stage not in missing and stage not in busy:
                    note_reused(stage)
            rest = busy
            parts = parts_as_saved(store, make(missing).recipe, missing) if missing else []
            for part in parts:
                interrupt.leave_if_requested()
                _train(part, make(part))


def _train(stages: list[Stage], population: Population) -> None:
    """Trains a population and stores its stages."""
    study, recipe, members = population.study, population.recipe, population.members
    layout = make_layout(study.config.parallel, max(1, len(members)))
    logging.info("%s: %s, on %s", recipe.name, population.text, _in_words(layout))
    saver = CheckpointSaver(study.store, recipe, stages, study.config.train.checkpoint_seconds)
    ready = population.start(layout)
    trained, began = Trained({}, [], 0.0), time.monotonic()
    if members:
        resident = study.resident if ready.resident is None else ready.resident
        trained = train_population(recipe, study.model, layout, resident, members,
                                   ready.variables, saver, study.bar, ready.context)
    seconds = time.monotonic() - began - trained.compile_seconds
    ready.store(trained, "resumed" if saver.resumed else "computed", seconds)
    saver.finish()
    study.run.record_start(recipe.name, trained.compile_seconds + ready.compile_seconds,
                           trained.first_step_seconds)
    images = sum(row["images"] for row in {(r["seed"], r["forget_set"], r.get("variant")): r
                                           for r in trained.history}.values())
    seconds = max((s.seconds for s in trained.snapshots.values()), default=seconds)
    logging.info("%s: %d images in %.1f s (%.0f images/s), and %.1f s of compilation%s",
                 recipe.name, images, seconds, images / max(seconds, 1e-9),
                 trained.compile_seconds, "" if trained.first_step_seconds is None else
                 f"; the first step ended after {trained.first_step_seconds:.1f} s")


def _in_words(layout: Layout) -> str:
    """The devices of a layout."""
    members, batch = (layout.mesh.shape[axis] for axis in ("member", "batch"))
    if members * batch == 1:
        return "1 device"
    return f"{members * batch} devices" + (f" ({members} for members x {batch} for each batch)"
                                           if batch > 1 else "")


def train_variants(variants: Sequence[Variant], recipe: Recipe, start: Start) -> None:
    """Trains what the store lacks of the variants' stages and stores it.

    Args:
      variants: variants of one store, data set and model; no stage occurs twice.
      recipe: how all their members are trained.
      start: where members start.
    """
    owners = {stage.key: variant for variant in variants for stage in variant.stages}

    def make(missing: list[Stage]) -> Population:
        wanted = {stage.key for stage in missing}
        return _models([dataclasses.replace(v, stages=mine) for v in variants
                        if (mine := [s for s in v.stages if s.key in wanted])],
                       shortened(recipe, missing), start)

    train_and_store(variants[0].study.store, [s for v in variants for s in v.stages], make,
                    lambda stage: record_reused(owners[stage.key].study, stage))


def shortened(recipe: Recipe, missing: list[Stage]) -> Recipe:
    """The recipe with the snapshots that these stages need; it ends with the last of them."""
    if recipe.keep == "best":
        return recipe
    snapshots = tuple(sorted({snapshot_of(s, recipe) for s in missing}))
    return dataclasses.replace(recipe, snapshots=snapshots, epochs=max(snapshots))


def snapshot_of(stage: Stage, recipe: Recipe) -> int:
    """The number of epochs after which a stage's models are taken from the run of a recipe.

    The best models, and originals (whose budget is 0), are taken after the last epoch.
    """
    whole = recipe.keep == "best" or stage.method == "original"
    return recipe.epochs if whole else stage.epochs


@contextlib.contextmanager
def missing_of(store: Store, stages: list[Stage],
               all_at_once: bool = False) -> Iterator[tuple[list[Stage], list[Stage]]]:
    """Holds the stages that the store lacks, so that no other process trains them.

    Args:
      store: where the stages are kept.
      stages: each once.
      all_at_once: wait for other processes until all missing stages are held.

    Yields:
      The stages held, and those that other processes are computing. If any stage is held, there is
      no waiting. So several processes that want the same M_O and an M_R each train their M_Rs at
      the same time.
    """
    with contextlib.ExitStack() as locks:
        held: list[Stage] = []
        busy: list[Stage] = []
        # In the order of their keys, so that two processes never wait for each other.
        for stage in sorted(stages, key=lambda s: s.key):
            if store.complete(stage.method, stage.key):
                continue
            lock = store.lock(stage.method, stage.key, wait=all_at_once)
            (held if locks.enter_context(lock) else busy).append(stage)
        if busy and not held:
            first = busy.pop(0)
            locks.enter_context(store.lock(first.method, first.key))
            held.append(first)
        missing = [s for s in stages if s in held and not store.complete(s.method, s.key)]
        yield missing, [s for s in stages if s in busy]


def _models(variants: list[Variant], recipe: Recipe, start: Start) -> Population:
    """The population of variants whose stages are all missing."""
    study = variants[0].study
    owned = [_members_of(variant) for variant in variants]
    members = [member for own in owned for member in own]
    sets = ", ".join(dict.fromkeys(s.forget_name or "original" for v in variants for s in v.stages))
    names = "".join(f"; {v.name}" for v in variants if v.name)
    images = [recipe.images(m, recipe.passes(0)) for m in members]  # of the first epoch
    text = (f"{len(members)} members ({len(study.seeds)} seeds x {sets}{names}), up to "
            f"{recipe.epochs} epochs of {min(images)} to {max(images)} images")

    def begin(layout: Layout) -> Started:
        made = [_prepare(v, own, recipe, layout, start) for v, own in zip(variants, owned)]
        prepared, before = join_prepared([p for p, _, _ in made]), [b for _, b, _ in made]
        failed = np.concatenate([f for _, _, f in made])
        failed |= ~_finite_members(prepared.variables, len(members))
        context = prepared.context
        if variants[0].traced_options:
            context = (context, {name: np.array([v.traced_options[name] for v, own in zip(
                variants, owned) for _ in own], np.float32) for name in variants[0].traced_options})

        def store(trained: Trained, status: str, _: float) -> None:
            snapshots = {epochs: _with_preparation(snapshot, before, failed)
                         for epochs, snapshot in trained.snapshots.items()}
            for variant, stage in ((v, s) for v in variants for s in v.stages):
                mine = [m for m, member in enumerate(members) if
                        (member.variant, member.forget_set) == (variant.name, stage.forget_name)]
                metadata = store_stage(
                    variant.study, stage, snapshots[snapshot_of(stage, recipe)], mine, members,
                    layout, trained.history, prepared.touched, variant.name)
                variant.study.run.record_stage(
                    stage.name, stage.forget_name, stage.key, status,
                    float(np.sum(metadata["seconds"])), int(np.sum(metadata["images"])),
                    len(mine), stage.epochs, stage.from_seed)

        return Started(prepared.variables, store, before[0].resident, context,
                       sum(b.compile_seconds for b in before))

    return Population(study, recipe, members, text, begin)


def _with_preparation(snapshot: Snapshot, before: list[Preparation],
                      failed: np.ndarray) -> Snapshot:
    """The snapshot with what preparation took, and with the members that had failed by then."""
    images, flops, steps = (np.concatenate([getattr(b, name) for b in before])
                            for name in ("images", "flops", "steps"))
    return dataclasses.replace(
        snapshot, failed=snapshot.failed | failed, images=snapshot.images + images,
        flops=snapshot.flops + flops, steps=snapshot.steps + steps,
        seconds=snapshot.seconds + sum(b.seconds for b in before))


def _members_of(variant: Variant) -> list[Member]:
    """The members of a variant's stages: seeds times forget sets."""
    study, forget_sets = variant.study, {s.forget_name: s.forget_set for s in variant.stages}
    rate = study.config.unlearn.learning_rate if variant.name else None  # None: the recipe's
    return [dataclasses.replace(make_member(study, seed, f), variant=variant.name,
                                learning_rate=rate)
            for f in forget_sets.values() for seed in study.seeds]


def _prepare(variant: Variant, members: list[Member], recipe: Recipe, layout: Layout,
             start: Start) -> tuple[Prepared, Preparation, np.ndarray]:
    """What a variant's method makes of its members, what that took, and which had failed."""
    study = variant.study
    own = for_as_many(layout, len(members))
    variables, failed = start(variant, own)
    before = Preparation(recipe.name, study.model, own, study.resident, members, variables,
                         study.loss, recipe.batch_size)
    unlearning = variant.unlearning
    if unlearning is None or unlearning.found.method.prepare is None:
        return Prepared(variables), before, failed
    return unlearning.found.method.prepare(unlearning.setting, before), before, failed


def join_prepared(parts: list[Prepared]) -> Prepared:
    """The preparations of several variants, joined for one population."""
    if len(parts) == 1:
        return parts[0]

    def join(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x]), *trees)

    return Prepared(join([p.variables for p in parts]), join([p.context for p in parts]),
                    join([dict(p.touched) for p in parts]))


def _finite_members(variables: Variables, count: int) -> np.ndarray:
    """Which members `[M]` have only finite variables."""
    finite = np.ones(count, bool)
    for leaf in jax.tree.leaves(variables):
        finite &= np.isfinite(np.asarray(leaf)).reshape(count, -1).all(1)
    return finite
