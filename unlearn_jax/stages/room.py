"""Checks before any training that the disk has room for the files of a run."""

import functools
from collections.abc import Sequence

import jax
from absl import logging

from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine.memory import tree_bytes
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.stages.evaluate import predictions_key, split_rows
from unlearn_jax.stages.graph import RunContext, Stage
from unlearn_jax.system import disk, processes
from unlearn_jax.train import init_carry

_FLOAT = 4  # bytes of an output
_KEPT = 3  # checkpoints of a half-finished population, the one being written included


def require_room(studies: Sequence[tuple[RunContext, Sequence[Stage], int]], original: Stage,
                 retrained: Sequence[Stage]) -> None:
    """Refuses a run if the disks have no room for its models and predictions.

    Args:
      studies: runs that share a store. Beside each stand the stages that it makes beyond M_O and
        M_R, and the number of further models that it may train, whose stages are not known yet.
      original, retrained: stages that all these runs share.

    Raises:
      DiskFullError: says how much is needed and how much is free.
      DiskError: the store needs a directory where there is a file.
    """
    first = studies[0][0]
    store = first.store
    every = [original, *retrained, *(s for _, stages, _ in studies for s in stages)]
    for name in sorted({"predictions", "population", *(s.method for s in every)}):
        if (place := store.root / name).exists() and not place.is_dir():
            raise disk.DiskError(f"{place} is a file, and the store needs a directory there; "
                                 "remove it, or give another --store")
    variables = jax.eval_shape(first.model.init, jax.random.key(0))
    shared = [s for s in (original, *retrained) if not store.complete(s.method, s.key)]
    own = {s.key: s for _, stages, _ in studies for s in stages
           if not store.complete(s.method, s.key)}
    models = len(first.seeds) * (len(shared) + len(own)) + sum(more for _, _, more in studies)
    needed = {store.root: models * tree_bytes(variables)}
    for study, stages, _ in studies:
        directory = study.run.directory
        needed[directory] = needed.get(directory, 0)
        evaluated = [(original, f) for f in study.splits.forget_sets]
        evaluated += [(s, s.forget_set) for s in (*retrained, *stages) if s.forget_set]
        for stage, forget_set in evaluated:
            size = _outputs(study, forget_set)
            needed[directory] += size
            if not store.complete("predictions", predictions_key(study, stage, forget_set)):
                needed[store.root] += size
    processes.on_first_process("room on the disk", lambda: disk.require_room(needed))
    if shared:
        optimizer = make_optimizer(OptimizerSettings.from_config(first.config.train))
        carry = jax.eval_shape(functools.partial(
            init_carry, optimizer, select=first.config.train.keep == "best"), variables)
        progress = _KEPT * len(shared) * len(first.seeds) * tree_bytes(carry)
        try:
            disk.require_room({**needed, store.root: needed[store.root] + progress})
        except disk.DiskFullError as e:
            logging.warning("training may not be able to save its progress: %s", e)


def _outputs(study: RunContext, forget_set: ForgetSet) -> int:
    """Bytes of the predictions of a stage's models on a forget set's splits."""
    samples = sum(map(len, split_rows(study, forget_set).values()))
    return len(study.seeds) * samples * max(study.dataset.num_classes, 1) * _FLOAT
