"""Populations of stages: trains what the store lacks, each stage once, and stores it.

What is stored, and found again by later runs, is a stage: all seeds of a (method, forget set,
budget). Several runs, such as the points of a sweep, may share a population.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine import recalibration
from unlearn_jax.engine.layout import MEMBER, Layout, make_layout
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, Snapshot
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.methods.method import Prepared
from unlearn_jax.models import Variables
from unlearn_jax.stages import workdir
from unlearn_jax.stages.graph import Stage, Study
from unlearn_jax.stages.progress import CheckpointSaver, parts_as_saved
from unlearn_jax.storage import checkpoints
from unlearn_jax.storage.store import Store
from unlearn_jax.system import interrupt

_MOST_NAMED = 1000  # indices of touched channels or weights that are written down, per layer


@dataclasses.dataclass(frozen=True)
class Share:
    """What one run asks of a population.

    Attributes:
      study: of the run.
      stages: that it wants.
      start: from its missing stages and a layout to the variables `[M, ...]` of its members, and
        which of them have failed.
      prepare: of the method; None: nothing to prepare.
      name: see `Member.variant`.
      learning_rate: peak rate of its members; None: the recipe's.
      dials: see `Variant.dials`.
    """

    study: Study
    stages: list[Stage]
    start: Callable[[list[Stage], Layout], tuple[Variables, np.ndarray]]
    prepare: Callable[[Preparation], Prepared] | None = None
    name: str = ""
    learning_rate: float | None = None
    dials: Mapping[str, float] = dataclasses.field(default_factory=dict)


def run_missing(shares: list[Share], recipe: Recipe) -> None:
    """Trains what the store lacks of the shares' stages and stores it.

    It is one population, but for what an earlier process has left half-finished in several.

    Args:
      shares: of one store, data set and model; no stage twice.
      recipe: of all of them.
    """
    owners = {stage.key: share for share in shares for stage in share.stages}
    rest = [stage for share in shares for stage in share.stages]
    while rest:
        with missing_of(shares[0].study.store, rest) as (missing, busy):
            for stage in rest:
                if stage not in missing and stage not in busy:
                    record_reused(owners[stage.key].study, stage)
            rest = busy
            for part in missing and parts_as_saved(shares[0].study.store,
                                                   shortened(recipe, missing), missing):
                interrupt.leave_if_requested()
                _run_population(
                    [dataclasses.replace(share, stages=mine) for share in shares
                     if (mine := [s for s in share.stages if s in part])],
                    shortened(recipe, part))


def shortened(recipe: Recipe, missing: list[Stage]) -> Recipe:
    """The recipe with the snapshots that these stages need, and no epoch after the last of them."""
    if recipe.keep == "best":
        return recipe
    snapshots = tuple(sorted({snapshot_of(s, recipe) for s in missing}))
    return dataclasses.replace(recipe, snapshots=snapshots, epochs=max(snapshots))


def snapshot_of(stage: Stage, recipe: Recipe) -> int:
    """After how many epochs of a recipe the stage's models are taken; the best one's is the last.

    An original has the budget 0, as nothing is unlearned, but is trained all the same.
    """
    whole = recipe.keep == "best" or stage.method == "original"
    return recipe.epochs if whole else stage.epochs


@contextlib.contextmanager
def missing_of(store: Store, stages: list[Stage],
               all_at_once: bool = False) -> Iterator[tuple[list[Stage], list[Stage]]]:
    """The stages that the store lacks, held against other processes.

    Args:
      store: of the stages.
      stages: each once.
      all_at_once: wait for other processes until all that are missing are held.

    Yields:
      Those held, and those that other processes are computing. Where there is any of the first,
      nobody is waited for: several processes that want the same M_O and an M_R each train the
      M_Rs side by side.
    """
    with contextlib.ExitStack() as locks:
        held, busy = [], []
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


def _run_population(shares: list[Share], recipe: Recipe) -> None:
    """Trains the members of the shares' stages, all missing, and stores each stage."""
    study = shares[0].study
    missing = [stage for share in shares for stage in share.stages]
    owners = [_members_of(share) for share in shares]
    members = [member for own in owners for member in own]
    layout = make_layout(study.config.parallel, len(members))
    logging.info("%s: %d members (%d seeds x %s%s), up to %d epochs of %d to %d images, %s",
                 recipe.name, len(members), len(study.seeds),
                 ", ".join({s.forget_name or "original": None for s in missing}),
                 "".join(f"; {share.name}" for share in shares if share.name), recipe.epochs,
                 *_fewest_and_most(recipe, members),
                 dict(layout.mesh.shape))
    saver = CheckpointSaver(study.store, recipe, missing, study.config.train.checkpoint_seconds)
    made = [_prepare(share, own, recipe, layout) for share, own in zip(shares, owners)]
    prepared, before = join_prepared([p for p, _, _ in made]), [b for _, b, _ in made]
    failed = np.concatenate([f for _, _, f in made])
    failed |= ~_finite_members(prepared.variables, len(members))
    context = prepared.context
    if shares[0].dials:
        context = (context, {name: np.array([share.dials[name] for share, own in zip(
            shares, owners) for _ in own], np.float32) for name in shares[0].dials})
    trained = train_population(recipe, study.model, layout, before[0].resident, members,
                               prepared.variables, saver, study.bar, context)
    status = "resumed" if saver.resumed else "computed"
    images_before, flops_before, steps_before = (
        np.concatenate([getattr(b, name) for b in before]) for name in ("images", "flops", "steps"))
    for share in shares:
        for stage in share.stages:
            snapshot = trained.snapshots[snapshot_of(stage, recipe)]
            mine = [m for m, member in enumerate(members)
                    if (member.variant, member.forget_set) == (share.name, stage.forget_name)]
            snapshot = dataclasses.replace(
                snapshot, failed=snapshot.failed | failed,
                images=snapshot.images + images_before, flops=snapshot.flops + flops_before,
                steps=snapshot.steps + steps_before,
                seconds=snapshot.seconds + sum(b.seconds for b in before))
            metadata = _store_stage(share.study, stage, snapshot, mine, members, layout,
                                    trained.history, prepared.touched, share.name)
            share.study.run.record_stage(
                stage.name, stage.forget_name, stage.key, status,
                float(np.sum(metadata["seconds"])), int(np.sum(metadata["images"])), len(mine),
                stage.epochs, stage.from_seed)
    saver.finish()
    study.run.record_start(recipe.name,
                           trained.compile_seconds + sum(b.compile_seconds for b in before),
                           trained.first_step_seconds)
    images = sum(row["images"] for row in {(r["seed"], r["forget_set"], r.get("variant")): r
                                           for r in trained.history}.values())
    seconds = max(s.seconds for s in trained.snapshots.values())
    logging.info("%s: %d images in %.1f s (%.0f images/s), and %.1f s of compilation%s",
                 recipe.name, images, seconds, images / max(seconds, 1e-9),
                 trained.compile_seconds, "" if trained.first_step_seconds is None else
                 f"; the first step ended after {trained.first_step_seconds:.1f} s")


def _members_of(share: Share) -> list[Member]:
    """The members of a share's stages: seeds times forget sets."""
    forget_sets = {s.forget_name: s.forget_set for s in share.stages}
    return [dataclasses.replace(make_member(share.study, seed, f), variant=share.name,
                                learning_rate=share.learning_rate if share.name else None)
            for f in forget_sets.values() for seed in share.study.seeds]


def _prepare(share: Share, members: list[Member], recipe: Recipe,
             layout: Layout) -> tuple[Prepared, Preparation, np.ndarray]:
    """What the method of a share makes of its members, what that took, and who had failed."""
    study = share.study
    own = _for_as_many(layout, len(members))
    variables, failed = share.start(share.stages, own)
    before = Preparation(recipe.name, study.model, own, study.resident, members, variables,
                         study.loss, recipe.batch_size)
    return share.prepare(before) if share.prepare else Prepared(variables), before, failed


def _for_as_many(layout: Layout, members: int) -> Layout:
    """The same devices as the whole population, and no more members in a call than there are."""
    return dataclasses.replace(layout, members_per_device=min(
        layout.members_per_device, -(-members // layout.mesh.shape[MEMBER])))


def _warn_of_norms(study: Study, stage: Stage, metadata: dict[str, Any]) -> None:
    """Of M_O and M_R; of the many unlearned models their checkpoints tell."""
    if stage.method not in ("original", "retrain"):
        return
    config, good = study.config, ~np.asarray(metadata["failed"], bool)
    rows = [len(make_member(study, seed, stage.forget_set).retain) for seed in metadata["seeds"]]
    steps = recalibration.steps_of(config, rows, metadata["epochs_trained"])[good]
    planned = recalibration.share_left(config, len(study.splits.rows.source))
    if "norms" in metadata:
        unit = study.dataset.label_unit if study.loss.name == "mae" else ""
        share = max(recalibration.shares_left(config, steps), default=planned)
        text = recalibration.in_words(float(share), unit, metadata["norms"])
    else:
        # With 'off' and few planned steps it was said before training, if not of an early epoch.
        early = (np.asarray(metadata["epochs_trained"])[good] < config.train.epochs).any()
        unsaid = early or planned <= recalibration.LITTLE
        text = recalibration.kept_in_words(config, steps) if unsaid else ""
    if text:
        study.run.warn(f"{stage.name} {stage.forget_name}".strip() + f": {text}")


def join_prepared(parts: list[Prepared]) -> Prepared:
    """What several shares prepared, as one population's."""
    if len(parts) == 1:
        return parts[0]

    def join(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x]), *trees)

    return Prepared(join([p.variables for p in parts]), join([p.context for p in parts]),
                    join([dict(p.touched) for p in parts]))


def _store_stage(study: Study, stage: Stage, snapshot: Snapshot, mine: list[int],
                 members: list[Member], layout: Layout, history: list[dict[str, Any]],
                 touched: Mapping[str, np.ndarray], variant: str = "") -> dict[str, Any]:
    metadata = stage_metadata(study, stage, snapshot, mine)
    rows = [{"stage": stage.method, **{k: v for k, v in row.items() if k != "variant"}}
            for row in history
            if row["forget_set"] == stage.forget_name and row.get("variant", "") == variant
            and (stage.method in ("original", "retrain") or row["epoch"] <= stage.epochs)]
    variables = jax.tree.map(lambda x: np.asarray(x)[np.array(mine)], snapshot.variables)
    variables = settled(study, stage, [members[m] for m in mine], layout, variables, metadata)
    with study.store.write(stage.method, stage.key, stage.parts) as directory:
        checkpoints.save(directory / "checkpoint", variables, metadata)
        (directory / "history.json").write_text(json.dumps(rows))
        (directory / "touched.json").write_text(json.dumps(_touched_rows(study, touched, mine)))
    return metadata


def settled(study: Study, stage: Stage, members: list[Member], layout: Layout,
            variables: Variables, metadata: dict[str, Any]) -> Variables:
    """Trained models as they are stored: where they are to, with their data's batch statistics.

    Args:
      study: says whether (`train.recalibrate_norms`).
      stage, members, variables: `[M, ...]` of a stage; a member without samples stays.
      layout: of the population.
      metadata: of the stage; gets what that changed, as `norms`.
    """
    which = np.flatnonzero([len(member.retain) for member in members])
    samples = len(study.splits.rows.source)
    if not len(which) or not recalibration.recalibrates(study.config, samples):
        _warn_of_norms(study, stage, metadata)
        return variables
    before = Preparation("norms", study.model, _for_as_many(layout, len(which)), study.resident,
                         [members[m] for m in which],
                         jax.tree.map(lambda x: x[which], variables), study.loss,
                         study.config.train.batch_size)
    after, found = recalibration.recalibrated(before, np.asarray(metadata["failed"])[which])
    metadata["norms"] = found
    _warn_of_norms(study, stage, metadata)

    def filled(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
        whole = np.array(whole)
        whole[which] = part
        return whole

    return {**variables, "batch_stats": jax.tree.map(filled, variables["batch_stats"],
                                                     after["batch_stats"])}


def stage_metadata(study: Study, stage: Stage, snapshot: Snapshot,
                   mine: list[int]) -> dict[str, Any]:
    """What a stage's checkpoint says of its members, those at the positions `mine`."""
    # Members run side by side; a member's share of the clock is its share of the images.
    share = snapshot.images / max(snapshot.images.sum(), 1)
    return {
        "stage": stage.method, "forget_set": stage.forget_name, "epochs": stage.epochs,
        "seeds": study.seeds, "config_name": study.config_name,
        "config": study.config.to_dict(), "data_fingerprint": study.dataset.fingerprint,
        "device": workdir.device(), "class_names": study.dataset.class_names,
        "label_unit": study.dataset.label_unit,
        "step": snapshot.steps[mine], "epochs_trained": snapshot.epochs[mine],
        "metric": {"validation_loss": snapshot.validation_loss[mine]},
        "failed": snapshot.failed[mine], "images": snapshot.images[mine],
        "seconds": snapshot.seconds * share[mine], "flops": snapshot.flops[mine],
    }


def _touched_rows(study: Study, touched: Mapping[str, np.ndarray],
                  mine: list[int]) -> list[dict[str, Any]]:
    """Per layer and seed: how many channels or weights, of how many, and the first of them."""
    return [{"seed": seed, "layer": layer, "touched": int(mask[m].sum()), "of": mask[m].size,
             "which": np.flatnonzero(mask[m])[:_MOST_NAMED].tolist()}
            for layer, mask in touched.items() for seed, m in zip(study.seeds, mine)]


def _fewest_and_most(recipe: Recipe, members: list[Member]) -> tuple[int, int]:
    """Images of the smallest and of the largest first epoch."""
    images = [recipe.images(m, recipe.passes(0)) for m in members]
    return min(images), max(images)


def _finite_members(variables: Variables, count: int) -> np.ndarray:
    """Which members `[M]` have only finite variables."""
    finite = np.ones(count, bool)
    for leaf in jax.tree.leaves(variables):
        finite &= np.isfinite(np.asarray(leaf)).reshape(count, -1).all(1)
    return finite


def record_reused(study: Study, stage: Stage) -> None:
    """Notes a stage that the store had."""
    path = stage.directory(study.store) / "checkpoint"
    logging.info("%s %s: reused from %s", stage.name, stage.forget_name, path)
    metadata, _ = checkpoints.describe(path)
    _warn_of_norms(study, stage, metadata)
    study.run.record_stage(stage.name, stage.forget_name, stage.key, "reused", 0.0,
                           int(np.sum(metadata["images"])), len(metadata["seeds"]), stage.epochs,
                           stage.from_seed)


def make_member(study: Study, seed: int, forget_set: ForgetSet | None) -> Member:
    """What the model of a seed and forget set walks over; None: the original."""
    splits, index = study.splits, study.index
    if forget_set is None:
        return Member(seed, "", index(splits.rows), splits.validation, np.zeros(0, np.int32))
    return Member(seed, forget_set.name, index(splits.retain_rows(forget_set)),
                  splits.retain_validation(forget_set), index(splits.forget_rows(forget_set)))
