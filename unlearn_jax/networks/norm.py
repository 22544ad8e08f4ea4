"""Batch norm over all axes but the last, with its gradient written out.

The forward pass is that of Flax' `BatchNorm`: statistics in float32, the variance as the mean of
squares minus the squared mean. With automatic differentiation, XLA makes three passes over a layer
for the gradient, some of them in float32. Written out, the gradient takes two, both over arrays of
the layer's own type: the sums of the output's gradient, and then

    dx = scale / std * (dy - mean(dy) - (x - mean) / var * mean(dy (x - mean)))

(Ioffe and Szegedy 2015, arXiv:1502.03167, section 3, simplified). It has reverse-mode derivatives
of first order only, as `conv.member_conv` does.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from unlearn_jax import native
from unlearn_jax.system import target

_FEW_ROWS = 8192  # pixels times samples


def written_out() -> bool:
    """Whether the written-out gradient is faster on the current target (BENCHMARKS.md).

    On a GPU it moves fewer bytes; on a CPU `native.sums` computes each pair of sums in one pass.
    """
    return target.platform() == "gpu" or target.current().has_native()


class BatchNorm(nn.Module):
    """Replaces Flax' `BatchNorm` while a network trains; variables and their names are the same.

    Attributes:
      momentum: share of the old running statistics that a call keeps.
      epsilon: added to the variance.
    """

    momentum: float
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return normalise(self, x)


def normalise(module: nn.Module, x: jax.Array) -> jax.Array:
    """The training call of a `BatchNorm`, this one or Flax'; also updates the running statistics.

    Args:
      module: the norm in its compact call, with `momentum` and `epsilon`.
      x: `[..., C]`.
    """
    features = x.shape[-1:]
    scale = module.param("scale", nn.initializers.ones, features, jnp.float32)
    bias = module.param("bias", nn.initializers.zeros, features, jnp.float32)
    mean = module.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
    var = module.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
    threads = target.current().threads if target.current().has_native() else 0
    y, batch_mean, batch_var = batch_norm(x, scale, bias, module.epsilon, threads)
    if not module.is_initializing():
        mean.value = module.momentum * mean.value + (1 - module.momentum) * batch_mean
        var.value = module.momentum * var.value + (1 - module.momentum) * batch_var
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float,
               threads: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises a batch by its own statistics.

    Args:
      x: `[..., C]`, float32 or bfloat16.
      scale, bias: `[C]` float32.
      epsilon: added to the variance.
      threads: threads of `native.sums`, on a CPU; 0: XLA computes all.

    Returns:
      The normalised batch in the type of x, and its mean and variance `[C]` in float32.
    """
    return _forward(x, scale, bias, epsilon, threads)[0]


def _forward(x, scale, bias, epsilon, threads):
    wide, count = x.astype(jnp.float32), x.size // x.shape[-1]
    sums: jax.Array | list[jax.Array]
    if threads:
        sums = native.sums(wide, wide, jnp.zeros_like(scale), threads)
    else:
        sums = _sums((wide, jnp.square(wide)), range(x.ndim - 1))
    mean, of_squares = (total / count for total in sums)
    var = jnp.maximum(0.0, of_squares - jnp.square(mean))
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (_centred(x, mean) * _wide(inverse * scale, x) + _wide(bias, x)).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, inverse)


def _backward(epsilon, threads, residuals, gradients):
    del epsilon
    x, scale, mean, inverse = residuals
    dy, d_mean, d_var = gradients
    dy, centred = dy.astype(jnp.float32), _centred(x, mean)
    if threads:
        d_bias, d_scale = native.sums(dy, x.astype(jnp.float32), mean, threads)
    else:
        d_bias, d_scale = _sums_of_samples(dy, dy * centred)
    d_scale *= inverse
    count, factor = x.size // x.shape[-1], inverse * scale
    # Factors of a channel are combined first, so that each element takes one multiplication.
    slope = (factor * inverse * d_scale - 2 * d_var) / count
    offset = (factor * d_bias - d_mean) / count
    dx = _wide(factor, x) * dy - centred * _wide(slope, x) - _wide(offset, x)
    return dx.astype(x.dtype), d_scale, d_bias


batch_norm.defvjp(_forward, _backward)


def _sums_of_samples(*arrays: jax.Array) -> list[jax.Array]:
    """Sums `[C]` of arrays `[B, ..., C]`; a small layer is first summed per sample.

    A single sum over a small layer would leave most of a GPU idle, and XLA would compute its terms
    in a separate kernel and store them in float32. XLA divides sums of large layers by itself.
    """
    outer = arrays[0].ndim - 1
    if arrays[0].size // arrays[0].shape[-1] > _FEW_ROWS:
        return _sums(arrays, range(outer))
    # The barrier keeps XLA from merging the two sums.
    return _sums(jax.lax.optimization_barrier(tuple(_sums(arrays, range(1, outer)))), (0,))


def _sums(arrays: Sequence[jax.Array], axes: Sequence[int]) -> list[jax.Array]:
    """The sums of each array over axes, in one pass over all arrays."""
    return jax.lax.reduce(tuple(arrays), (np.float32(0),) * len(arrays),
                          lambda a, b: tuple(x + y for x, y in zip(a, b)), tuple(axes))


def _centred(x: jax.Array, mean: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) - _wide(mean, x)


def _wide(per_channel: jax.Array, x: jax.Array) -> jax.Array:
    """`[C]` with the axes of x."""
    return per_channel.reshape((1,) * (x.ndim - 1) + per_channel.shape)
