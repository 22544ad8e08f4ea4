"""Running statistics of batch norms: the training set's, instead of those of the last steps.

A step keeps the share `norm_momentum` of the old running statistics. After n steps the share
momentum^n of the initial statistics is left (79 % after 24 steps at 0.99). A model then predicts
with statistics that are not its own, and longer training looks better for that reason alone.
`recalibrated` takes the mean over the training set instead, as stochastic weight averaging does
(Izmailov et al. 2018, arXiv:1803.05407, section 3.2).

One decision holds for M_O, M_R and unlearned models, and it is made before any of them is trained.
The mean is over the samples that a model was trained on (for unlearned models: D_r). The pass is no
training: like predictions, it counts in no budget.

Models that start from an M_O from outside keep its statistics, unless the config says 'on'.

The decision depends on the steps planned for M_O. Kept models may have taken fewer: the best epoch
may be early, D_r has fewer batches than D_o, a shard far fewer. The share left in them is computed
after training (`kept_in_words`) and reported if it is more than `LITTLE`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.models import Model, Variables, slowest_norm
from unlearn_jax.system.made_once import made_once
from unlearn_jax.system.tree_paths import path_of
from unlearn_jax.train import Batch, Loss, weighted_mean

# Share of the initial running statistics that training may leave without a warning.
LITTLE = 0.01


def share_left(config: ml_collections.ConfigDict, rows: int) -> float:
    """The share of the initial running statistics that M_O's planned training leaves.

    Args:
      config: the whole config.
      rows: training samples, copies included.
    """
    return float(shares_left(config, steps_of(config, [rows], [config.train.epochs]))[0])


def shares_left(config: ml_collections.ConfigDict, steps: np.ndarray) -> np.ndarray:
    """The share `[M]` of the initial running statistics that `steps` `[M]` training steps leave."""
    momentum = slowest_norm(config.model, config.data.image_size)
    return momentum ** np.asarray(steps, np.float64)


def steps_of(config: ml_collections.ConfigDict, rows: Sequence[int],
             epochs: Sequence[int]) -> np.ndarray:
    """Training steps `[M]` of `epochs` `[M]` epochs on `rows` `[M]` rows, copies included."""
    return np.array([math.ceil(n / config.train.batch_size) * e
                     for n, e in zip(rows, epochs, strict=True)])


def recalibrates(config: ml_collections.ConfigDict, rows: int) -> bool:
    """Whether models get the training set's statistics (`train.recalibrate_norms`).

    Args:
      config, rows: as for `share_left`.
    """
    setting = config.train.recalibrate_norms
    if setting == "auto" and config.original.path:
        return False  # the statistics of an M_O from outside are those of its own training
    if not slowest_norm(config.model, config.data.image_size):
        return False
    return setting == "on" or setting == "auto" and share_left(config, rows) > LITTLE


def batch_statistics(model: Model, variables: Variables, images_BHWC: jax.Array) -> Any:
    """The tree of running statistics, set to those of one batch; frozen norms keep their own.

    Args:
      model: the network.
      variables: variables of one member.
      images_BHWC: grey levels.
    """
    # The statistics start from zero, so that a step gives (1 - momentum) times the batch's, and
    # nothing has to be subtracted.
    start = jax.tree_util.tree_map_with_path(
        lambda path, x: x if _is_frozen(model, path) else jnp.zeros_like(x),
        variables["batch_stats"])
    # Dropout comes after all norms, so any key will do.
    _, stepped = model.apply({"params": variables["params"], "batch_stats": start}, images_BHWC,
                             train=True, key=jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x if _is_frozen(model, path)
        else x / (1 - model.norm_momentum(path_of(path[:-1]))), stepped)


def _is_frozen(model: Model, path: tuple) -> bool:
    """Whether a leaf of the running statistics belongs to a frozen norm."""
    return path_of(path[:-1]) in model.module.frozen_norms


def recalibrated(before: Preparation, failed: np.ndarray) -> tuple[Variables, dict[str, Any]]:
    """Trained models with the statistics of their training sets, and the effect of that.

    Args:
      before: the members with their trained variables; the statistics are means over the batches
        of D_r (for M_O: of D_o), copies included.
      failed: `[M]` bool, members that are left unchanged.

    Returns:
      Variables `[M, ...]`; and a dict whose `before` and `after` are the `[M]` mean losses on half
      of the validation samples, NaN where a member has none.
    """
    sums, counts = before.total("retain", _weighted_statistics(before.model), before.variables,
                                lasting=True)
    keep = np.asarray(failed)

    def settled(path: tuple, total: np.ndarray, old: np.ndarray) -> np.ndarray:
        if _is_frozen(before.model, path):
            return old
        across = (-1,) + (1,) * (old.ndim - 1)
        mean = (np.asarray(total) / np.asarray(counts).reshape(across)).astype(old.dtype)
        return np.where(keep.reshape(across), old, mean)

    after = {**before.variables, "batch_stats": jax.tree_util.tree_map_with_path(
        settled, sums, jax.tree.map(np.asarray, before.variables["batch_stats"]))}
    losses = np.full((2, len(before.members)), np.nan)
    if all(len(member.validation) for member in before.members):
        found = np.asarray(before.total("validation", _summed_losses(before.model, before.loss),
                                        before.variables, after, lasting=True), np.float64)
        losses = (found[:, :2] / found[:, 2:]).T
    return after, {"before": losses[0], "after": losses[1]}


@made_once
def _weighted_statistics(model: Model) -> Callable[[Batch, Variables], Any]:
    def weighted(batch: Batch, variables: Variables) -> Any:
        # A padded batch is full of samples, but those at its end are repetitions.
        count = jnp.sum(batch.weights)
        found = batch_statistics(model, variables, batch.images)
        return jax.tree.map(lambda x: x * count, found), count

    return weighted


@made_once
def _summed_losses(model: Model, loss: Loss) -> Callable[..., jax.Array]:
    """A function from a batch and two models' variables to both losses and the weight, sums."""
    def losses(batch: Batch, *both: Variables) -> jax.Array:
        values = (model.apply(v, batch.images, train=False)[0] for v in both)
        return jnp.stack([weighted_mean(loss.per_sample(x, batch.labels), batch.weights)
                          * jnp.sum(batch.weights) for x in values] + [jnp.sum(batch.weights)])

    return losses


def in_words(share: float, unit: str, metadata: dict[str, Any] | None) -> str:
    """A note for readers on a stage's running statistics.

    Args:
      share: from `share_left`, or the largest of `shares_left`.
      unit: unit of the loss.
      metadata: from `recalibrated`; None: the statistics are those of the last steps.
    """
    left = (f"training leaves {100 * share:.2g} % of the running statistics that batch norms began "
            "with")
    if metadata is None:
        return (f"{left}, with which all models predict (train.recalibrate_norms='off'); longer "
                "training then looks better for that reason alone")
    old, new = (np.asarray(metadata[name], np.float64) for name in ("before", "after"))
    text = f"{left}; models predict with those of their training sets instead"
    if not np.isfinite(old + new).any():
        return text
    good = np.isfinite(old + new)
    after = f"{new[good].mean():.3g} {unit}".strip()
    return (f"{text}: on half of the validation samples the mean loss is {after} instead of "
            f"{old[good].mean():.3g}")


def kept_in_words(config: ml_collections.ConfigDict, steps: np.ndarray) -> str:
    """A note for readers on kept models with much of the initial statistics; '' if there are none.

    Args:
      config: the whole config.
      steps: `[M]` steps that led to the kept variables.
    """
    shares = shares_left(config, steps)
    few = steps[shares > LITTLE]
    if not len(few):
        return ""
    span = " to ".join(str(n) for n in sorted({few.min(), few.max()}))
    return (f"{len(few)} of {len(steps)} models were kept after {span} steps. They predict with up "
            f"to {100 * shares.max():.2g} % of the running statistics that batch norms began with; "
            "longer training then looks better for that reason alone "
            "(train.recalibrate_norms='on' takes those of the training sets)")
