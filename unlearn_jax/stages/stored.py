"""Trained models as the store keeps them: checkpoint, history, and the touched weights."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from unlearn_jax.engine import recalibration
from unlearn_jax.engine.layout import MEMBER, Layout
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Snapshot
from unlearn_jax.members import Member
from unlearn_jax.models import Variables
from unlearn_jax.stages import workdir
from unlearn_jax.stages.graph import RunContext, Stage, forget_parts, make_member
from unlearn_jax.storage import checkpoints, traces

_MOST_NAMED = 1000  # indices of touched channels or weights that are written down, per layer


def record_traces(study: RunContext, original: Stage) -> None:
    """Notes in the store which samples the models will see, for a later deletion."""
    ids, splits = study.dataset.ids, study.splits
    traces.record_samples(study.store, original.key, original.parts, [
        ids[rows].tolist() for rows in (splits.train, splits.validation, splits.test)])
    for f in splits.forget_sets:
        traces.record_forget_set(study.store, forget_parts(study, f),
                                 ids[splits.forget(f)].tolist())


def store_stage(study: RunContext, stage: Stage, snapshot: Snapshot, mine: list[int],
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


def settled(study: RunContext, stage: Stage, members: list[Member], layout: Layout,
            variables: Variables, metadata: dict[str, Any]) -> Variables:
    """The variables to store; with batch statistics of the members' data if the config says so.

    Args:
      study: its config decides (`train.recalibrate_norms`).
      stage, members, variables: `[M, ...]` of a stage; a member without samples is unchanged.
      layout: the devices of the population.
      metadata: the stage's metadata; `norms`, which describes the change, is added to it.
    """
    which = np.flatnonzero([len(member.retain) for member in members])
    samples = len(study.splits.rows.source)
    if not len(which) or not recalibration.recalibrates(study.config, samples):
        _warn_of_norms(study, stage, metadata)
        return variables
    before = Preparation("norms", study.model, for_as_many(layout, len(which)), study.resident,
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


def stage_metadata(study: RunContext, stage: Stage, snapshot: Snapshot,
                   mine: list[int]) -> dict[str, Any]:
    """The metadata of a stage's checkpoint; its members are at the positions `mine`."""
    # Members train at the same time. A member's share of the time is its share of the images.
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


def _touched_rows(study: RunContext, touched: Mapping[str, np.ndarray],
                  mine: list[int]) -> list[dict[str, Any]]:
    """For each layer and seed: touched channels or weights, their number and the first of them."""
    return [{"seed": seed, "layer": layer, "touched": int(mask[m].sum()), "of": mask[m].size,
             "which": np.flatnonzero(mask[m])[:_MOST_NAMED].tolist()}
            for layer, mask in touched.items() for seed, m in zip(study.seeds, mine)]


def record_reused(study: RunContext, stage: Stage) -> None:
    """Notes in the run that the store had a stage."""
    path = stage.directory(study.store) / "checkpoint"
    logging.info("%s %s: reused from %s", stage.name, stage.forget_name, path)
    metadata, _ = checkpoints.describe(path)
    _warn_of_norms(study, stage, metadata)
    study.run.record_stage(stage.name, stage.forget_name, stage.key, "reused", 0.0,
                           int(np.sum(metadata["images"])), len(metadata["seeds"]), stage.epochs,
                           stage.from_seed)


def _warn_of_norms(study: RunContext, stage: Stage, metadata: dict[str, Any]) -> None:
    """Warns about M_O and M_R trained here; the checkpoints of unlearned models hold it."""
    if stage.method not in ("original", "retrain") or stage.outside:
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
        # With 'off' and few planned steps the warning was given before training, unless an early
        # epoch is kept.
        early = (np.asarray(metadata["epochs_trained"])[good] < config.train.epochs).any()
        unsaid = early or planned <= recalibration.LITTLE
        text = recalibration.kept_in_words(config, steps) if unsaid else ""
    if text:
        study.run.warn(f"{stage.name} {stage.forget_name}".strip() + f": {text}")


def for_as_many(layout: Layout, members: int) -> Layout:
    """The layout of the whole population, for calls of at most as many members."""
    return dataclasses.replace(layout, members_per_device=min(
        layout.members_per_device, -(-members // layout.mesh.shape[MEMBER])))
