"""The importance of each weight for a loss: the mean over samples of squared gradients.

    I(theta) = 1/n * sum_i (d loss_i / d theta)^2

This is the diagonal of the empirical Fisher information of n samples. The network is in prediction
mode: running statistics, no dropout. Each sample's gradient is squared by itself, so neither the
order of the data nor the batch size matters. Much public code squares a batch's mean gradient
instead, which depends on both (`batch_importance`): gradients that samples share count more there,
and gradients that cancel between samples count less.

The loss is the one that training minimises (`Loss.per_sample` over `Loss.unit`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models import Model
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import Batch, Loss, weighted_mean

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

# Number of samples with gradients computed at once. More would not speed up a CPU, and its program
# grows with the number.
_CPU_SAMPLES = 4
# On other devices, as many as keep the gradients of all members on a device within these bytes.
_GRADIENT_BYTES = 2e9

# The weights `[B]` of a batch's samples in a mean.
Part = Callable[[Batch], jax.Array]


def every_sample(batch: Batch) -> jax.Array:
    """Weights `[B]` that count every sample of a walk once."""
    return batch.weights


def forgotten(batch: Batch) -> jax.Array:
    """Weights `[B]` that count the samples of D_f."""
    return jnp.where(batch.forget, batch.weights, 0.0)


def retained(batch: Batch) -> jax.Array:
    """Weights `[B]` that count the samples of D_r."""
    return jnp.where(batch.forget, 0.0, batch.weights)


def importance(before: "Preparation", over: str,
               parts: tuple[Part, ...] = (every_sample,)) -> tuple[Any, ...]:
    """The importance of every weight for parts of the data.

    Args:
      before: the population; importance is that of its variables.
      over: the name of a walk that `Preparation.total` accepts.
      parts: parts of the walk, each with a mean of its own.

    Returns:
      For each part a tree `[M, ...]` like the parameters, in squared units of the loss per squared
      weight; 0 for frozen parameters, and for a part without samples.

    Raises:
      InputError: a member has no sample in the walk.
    """
    squares = _squares_of_samples(before.model, before.loss)
    return means(before, over, squares, parts, sample_batch_size(before), lasting=True)


@made_once
def _squares_of_samples(model: Model, loss: Loss) -> Callable[[Batch, Any], Any]:
    gradients = sample_gradients(model, loss)
    return lambda batch, variables: jax.tree.map(jnp.square, gradients(batch, variables))


def batch_importance(before: "Preparation", over: str) -> Any:
    """The mean over batches of squared mean gradients, which much public code calls importance.

        I_B(theta) = 1/B * sum_b (d mean_(i in b) loss_i / d theta)^2

    Batches hold `before.batch_size` samples in an order drawn from the member's seed. The last
    batch may hold fewer and counts like the others, as in that code.

    Args:
      before: the population; importance is that of its variables.
      over: the name of a walk that `Preparation.total` accepts.

    Returns:
      A tree `[M, ...]` as from `importance`.

    Raises:
      InputError: a member has no sample in the walk.
    """
    squares = _squares_of_batches(before.model, before.loss)
    counts_M, sums_M = before.total(over, squares, before.variables, order="importance",
                                    lasting=True)
    return jax.tree.map(lambda x: x / counts_M.reshape(-1, *[1] * (x.ndim - 1)), sums_M)


@made_once
def _squares_of_batches(model: Model, loss: Loss) -> Callable[[Batch, Any], Any]:
    def squares(batch: Batch, variables: Any) -> Any:
        def mean_loss(params: Any) -> jax.Array:
            params = jax.tree.map(lambda p, wants: p if wants else jax.lax.stop_gradient(p),
                                  params, model.trainable(params))
            outputs, _ = model.apply({**variables, "params": params}, batch.images, train=False)
            losses = loss.per_sample(outputs, batch.labels) / loss.unit
            return weighted_mean(losses, batch.weights)

        # A member with fewer batches than another gets empty ones with a mean of 0.
        return (jnp.any(batch.weights > 0).astype(jnp.float32),
                jax.tree.map(jnp.square, jax.grad(mean_loss)(variables["params"])))

    return squares


def means(before: "Preparation", over: str, values: Callable[[Batch, Any], Any],
          parts: tuple[Part, ...], batch_size: int = 0, lasting: bool = False) -> tuple[Any, ...]:
    """Means of per-sample values over parts of a walk.

    Args:
      before: the population.
      over: the name of a walk that `Preparation.total` accepts.
      values: `(batch, variables) -> tree of [B, ...]`, of one member.
      parts: parts of the walk, each with a mean of its own.
      batch_size: samples per call; 0: the usual.
      lasting: `values` comes from a function that is `made_once`: it is traced once in a process.

    Returns:
      For each part a tree `[M, ...]`; 0 for a part without samples.

    Raises:
      InputError: a member has no sample in the walk.
    """
    sums = (_lasting_sums if lasting else _sums)(values, parts)
    counts_MP, sums_MP = before.total(over, sums, before.variables, batch_size=batch_size,
                                      lasting=lasting)
    counts_MP = np.maximum(counts_MP, 1.0)
    return tuple(
        jax.tree.map(lambda x, p=p: x[:, p] / counts_MP[:, p].reshape(-1, *[1] * (x.ndim - 2)),
                     sums_MP)
        for p in range(len(parts)))


def _sums(values: Callable[[Batch, Any], Any], parts: tuple[Part, ...]) -> Callable[..., Any]:
    def sums(batch: Batch, variables: Any) -> Any:
        weights_PB = jnp.stack([part(batch) for part in parts])
        return jnp.sum(weights_PB, axis=1), jax.tree.map(
            lambda x: jnp.tensordot(weights_PB, x.astype(jnp.float32), axes=1),
            values(batch, variables))

    return sums


_lasting_sums = made_once(_sums)


def sample_gradients(model: Model, loss: Loss,
                     wanted: Callable[[Any], Any] | None = None) -> Callable[[Batch, Any], Any]:
    """The gradient of each sample's loss by itself, over the loss's unit.

    Args:
      model: the network.
      loss: loss of a sample.
      wanted: a function of the parameters; returns a tree like them with False where no gradient
        is needed. None: the parameters that train.

    Returns:
      `(batch, variables) -> tree of [B, ...]` of one member; 0 where no gradient is needed.
    """
    wanted = wanted or model.trainable

    def gradients(batch: Batch, variables: Any) -> Any:
        def sample_loss(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
            params = jax.tree.map(lambda p, wants: p if wants else jax.lax.stop_gradient(p),
                                  params, wanted(params))
            outputs, _ = model.apply({**variables, "params": params}, image[None], train=False)
            return loss.per_sample(outputs, label[None])[0] / loss.unit

        # Samples inside, members outside: the kernels of a member's samples are the same.
        each = jax.vmap(jax.grad(sample_loss), in_axes=(None, 0, 0))
        return each(variables["params"], batch.images, batch.labels)

    return gradients


def sample_batch_size(before: "Preparation") -> int:
    """Samples of one call with a gradient for each sample: a multiple of the batch axis."""
    mesh, devices = before.layout.mesh, before.layout.batch_devices
    if mesh.devices.flat[0].platform == "cpu":
        count = _CPU_SAMPLES
    else:
        everyone = sum(x.nbytes for x in jax.tree.leaves(before.variables["params"]))
        on_device = everyone / len(before.members) * before.layout.members_per_device
        count = int(_GRADIENT_BYTES * devices / on_device)
    return max(min(count, before.batch_size) // devices, 1) * devices
