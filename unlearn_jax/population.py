"""A population: its members, what they share, and what training leaves of them.

A member is one model, a (seed, forget set) pair. `engine.py` trains them.
"""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearn_jax.layout import Layout
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings
from unlearn_jax.predict import in_batches
from unlearn_jax.train import Loss, Step


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of the population.

    Attributes:
      seed: decides initialisation, order of samples, dropout and random labels.
      forget_set: what it is to forget; `''` for the original model.
      rows: `[n]` int32, the resident rows an epoch walks over.
      validation: `[v]` int32, the resident rows of its validation set.
      forget: `[f]` int32, the resident rows flagged as its forget set.
    """

    seed: int
    forget_set: str
    rows: np.ndarray
    validation: np.ndarray
    forget: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Of all the above: by it a later run knows the member again."""
        digest = hashlib.blake2b(f"{self.seed}|{self.forget_set}".encode(), digest_size=16)
        for part in (self.rows, self.validation, self.forget):
            digest.update(f"|{len(part)}|".encode() + part.astype("<i4").tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        return f"seed {self.seed}" + (f", forget set {self.forget_set}" if self.forget_set else "")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What all members of a training run have in common.

    Attributes:
      name: of the stage; part of every member's random streams.
      step: the single-member step.
      optimizer: its optimiser.
      settings: learning rate and schedule.
      loss: of the validation.
      epochs: how many at most.
      batch_size: samples per member and step.
      eval_batch_size: samples per member and validation step.
      patience: epochs without a better validation loss before a member stops; 0: never.
      keep: `best` keeps each member's state of lowest validation loss, `last` its last one.
      snapshots: with `keep='last'`, the numbers of epochs after which variables are kept.
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


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The members after some number of epochs.

    Attributes:
      variables: `[M, ...]`, on the host.
      epochs: `[M]` epochs behind these variables.
      steps: `[M]` steps taken, best or not.
      images: `[M]` samples trained on to get here, best or not.
      failed: `[M]` bool; the variables are those before the step that failed, or, with
        `keep='best'`, the best before it.
      validation_loss: `[M]` in the loss's unit; NaN before the first epoch.
      seconds: wall seconds of the whole population to get here, without compilation.
    """

    variables: Variables
    epochs: np.ndarray
    steps: np.ndarray
    images: np.ndarray
    failed: np.ndarray
    validation_loss: np.ndarray
    seconds: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training run leaves.

    Attributes:
      snapshots: by number of epochs; with `keep='best'` one, at `recipe.epochs`.
      history: one dict per member and epoch, with the columns of history.csv but `stage`.
      compile_seconds: spent compiling.
    """

    snapshots: dict[int, Snapshot]
    history: list[dict[str, Any]]
    compile_seconds: float


class Saver:
    """Where a half-finished run is kept; this one keeps nothing.

    `stages/models.py` has the one that writes checkpoints.
    """

    def due(self) -> bool:
        """Whether it is time to save."""
        return False

    def save(self, epoch: int, tree: Any, metadata: dict[str, Any]) -> None:
        """Keeps the state after `epoch` epochs."""

    def load(self, template: Callable[[dict[str, Any]], Any]) -> tuple[Any, dict] | None:
        """The tree and metadata saved last, or None.

        `template(metadata)` is the tree's form; it raises CheckpointError for a save that is of
        no use to this run.
        """
        return None


def init_members(model: Model, layout: Layout, seeds: list[int]) -> Variables:
    """Fresh variables `[M, ...]`; members of one seed start from the same weights."""
    keys = jnp.stack([jax.random.fold_in(jax.random.key(s), 0) for s in seeds])
    init = layout.over_members(model.init, in_axes=(0,))
    groups = [init(layout.put_members(keys[group])) for group in layout.groups(len(seeds))]
    return join(groups, len(seeds))


def epoch_batches(member: Member, name: str, epoch: int, batch_size: int) -> np.ndarray:
    """A member's batches `[T, B]` of one epoch: a function of its seed, stage, epoch and rows."""
    rng = np.random.default_rng([member.seed, zlib.crc32(name.encode()), epoch])
    return in_batches(rng.permutation(member.rows), batch_size)


def join(groups: list[Any], count: int) -> Any:
    """Trees `[G, ...]` of the groups as one `[count, ...]` on the host, copied."""
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(x) for x in parts])[:count],
                        *groups)
