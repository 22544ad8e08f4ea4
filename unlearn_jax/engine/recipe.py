"""A population's training: what its members share, and its results.

A member is one model, a (seed, forget set) pair. `engine/run.py` trains them.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearn_jax.engine.layout import Layout
from unlearn_jax.members import Member, Pass, Passes, over_retain
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings
from unlearn_jax.system import arrays
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import Loss, Step


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings that all members of a training run share.

    Attributes:
      name: name of the stage; part of every member's random streams.
      step: the single-member step.
      optimizer: its optimiser.
      settings: learning rate and schedule.
      loss: the validation loss.
      epochs: number of epochs, at most.
      batch_size: samples per member and step.
      eval_batch_size: samples per member and validation step.
      patience: epochs without a better validation loss before a member stops; 0: never.
      keep: `best` keeps each member's state of lowest validation loss, `last` its last one.
      snapshots: with `keep='last'`, the numbers of epochs after which variables are kept.
      passes: gives the passes of an epoch, counted from zero.
    """

    name: str
    step: Step
    optimizer: optax.GradientTransformation
    settings: OptimizerSettings
    loss: Loss
    epochs: int
    batch_size: int
    eval_batch_size: int
    patience: int = 0
    keep: str = "best"
    snapshots: tuple[int, ...] = ()
    passes: Passes = over_retain

    @functools.cached_property
    def kinds_of_epochs(self) -> dict[tuple[Pass, ...], int]:
        """The number of epochs by their passes; there are few kinds even of many epochs."""
        found: dict[tuple[Pass, ...], int] = {}
        for passes, run in itertools.groupby(map(self.passes, range(self.epochs))):
            found[passes] = found.get(passes, 0) + sum(1 for _ in run)
        return found

    def learning_rate(self, member: Member) -> float:
        """The member's peak rate."""
        own = member.learning_rate
        return self.settings.learning_rate if own is None else own

    def steps(self, member: Member, passes: tuple[Pass, ...]) -> int:
        """Steps that the member takes in an epoch of these passes."""
        return sum(p.batches(member, self.batch_size) for p in passes)

    def images(self, member: Member, passes: tuple[Pass, ...]) -> int:
        """Samples that the member sees in an epoch of these passes."""
        return sum(p.images(member, self.batch_size) for p in passes)

    def all_steps(self, member: Member) -> int:
        """Steps that the member takes in all epochs."""
        return sum(n * self.steps(member, passes) for passes, n in self.kinds_of_epochs.items())

    def longest_epoch(self, member: Member) -> int:
        """Steps of its longest epoch; 0 where there is no epoch."""
        return max((self.steps(member, passes) for passes in self.kinds_of_epochs), default=0)

    def all_images(self, member: Member) -> int:
        """Samples that the member sees in all epochs."""
        return sum(n * self.images(member, passes) for passes, n in self.kinds_of_epochs.items())


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The members after some number of epochs.

    Attributes:
      variables: `[M, ...]`, on the host.
      epochs: `[M]` epochs that led to these variables.
      steps: `[M]` steps taken until here, also those after the best epoch.
      images: `[M]` samples trained on until here, also those after the best epoch.
      flops: `[M]` floating-point operations of these steps (`flops.count`), without preparation and
        validation; NaN if not counted.
      failed: `[M]` bool; the variables are those before the step that failed, or, with
        `keep='best'`, the best before it.
      validation_loss: `[M]` in the loss's unit; NaN before the first epoch.
      seconds: wall seconds of the whole population until here, without compilation.
    """

    variables: Variables
    epochs: np.ndarray
    steps: np.ndarray
    images: np.ndarray
    flops: np.ndarray
    failed: np.ndarray
    validation_loss: np.ndarray
    seconds: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """The results of a training run.

    Attributes:
      snapshots: by number of epochs; with `keep='best'` a single one, at `recipe.epochs`.
      history: one dict per member and epoch, with the columns of history.csv but `stage`.
      compile_seconds: seconds spent compiling.
      first_step_seconds: from the beginning to the end of the first call that trains, with
        compilation; None if nothing was left to train.
    """

    snapshots: dict[int, Snapshot]
    history: list[dict[str, Any]]
    compile_seconds: float
    first_step_seconds: float | None = None


class Saver:
    """Keeps the state of an unfinished run; this base class keeps nothing.

    The subclass in `stages/models.py` writes checkpoints.
    """

    def due(self) -> bool:
        """Whether it is time to save."""
        return False

    def save(self, epoch: int, tree: Any, metadata: dict[str, Any]) -> None:
        """Keeps the state after `epoch` epochs."""

    def load(self, template: Callable[[dict[str, Any]], Any]) -> tuple[Any, dict] | None:
        """The tree and metadata saved last, or None.

        `template(metadata)` gives the expected form of the tree; it raises CheckpointError for a
        save that this run cannot use.
        """
        return None


def init_members(model: Model, layout: Layout, seeds: list[int]) -> Variables:
    """Fresh variables `[M, ...]`; members of one seed start from the same weights."""
    keys = jnp.stack([jax.random.fold_in(jax.random.key(s), 0) for s in seeds])
    init = layout.vmap_jit(_initialiser(model), in_axes=(0,), lasting=True)
    groups = [init(own) for _, own in layout.over_groups(keys, len(seeds))]
    return join(groups, len(seeds))


@made_once
def _initialiser(model: Model) -> Callable[[jax.Array], Variables]:
    return lambda key: model.init(key)


def member_keys(name: str, members: Sequence[Member]) -> jax.Array:
    """The random stream `[M]` of each member in the stage `name`."""
    seeds = np.array([m.seed for m in members])
    return _keys(seeds, np.uint32(zlib.crc32(name.encode())))


@jax.jit
def _keys(seeds_M: jax.Array, stream: jax.Array) -> jax.Array:
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(
        jax.random.key(seed), 1), stream))(seeds_M)


def epoch_batches(member: Member, name: str, epoch: int, batch_size: int,
                  passes: Passes = over_retain) -> tuple[np.ndarray, np.ndarray]:
    """A member's epoch. It depends only on seed, sets, stage, epoch and passes.

    Returns:
      rows `[T, B]` int32 as `in_batches` writes them, and the kind `[T]` int32 of each batch.

    Raises:
      ValueError: a paired pass with an odd batch size, or without samples to pair.
    """
    rng = np.random.default_rng([member.seed, zlib.crc32(name.encode()), epoch])
    batches, kinds = [], []
    for p in passes(epoch):
        order = p.draw(member, rng)
        if p.paired:
            found = _paired_batches(p, member, order, batch_size, rng)
        else:
            found = p.leading_batches(order, batch_size)
        batches.append(found)
        kinds.append(np.full(len(found), p.kind, np.int32))
    return np.concatenate(batches), np.concatenate(kinds)


def _paired_batches(p: Pass, member: Member, order: np.ndarray, batch_size: int,
                    rng: np.random.Generator) -> np.ndarray:
    if batch_size % 2:
        raise ValueError(f"a pass over {p.over!r} needs an even batch size, not {batch_size}")
    leads, partner = p.leading_batches(order, batch_size), member.forget
    if p.over == "forget+retain":
        partner = member.retain
    if not len(partner) and len(leads):
        raise ValueError(f"{member}: a pass over {p.over!r} finds no samples to pair")
    repeats = -(-leads.size // max(len(partner), 1))
    others = np.concatenate([rng.permutation(partner) for _ in range(repeats)] or [leads.ravel()])
    halves = [leads, others[:leads.size].reshape(leads.shape).astype(np.int32)]
    if p.over == "forget+retain":
        halves.reverse()
    return np.concatenate(halves, axis=1)


def join(groups: list[Any], count: int) -> Any:
    """The trees `[G, ...]` of the groups as one tree `[count, ...]`, copied to the host."""
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count],
                        *map(arrays.fetch, groups))
