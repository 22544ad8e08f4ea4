"""Batch normalisation with a gradient written out, so that fewer passes over memory are made.

Differentiating Flax' `nn.BatchNorm` keeps the images' deviations from the mean beside the images
themselves, and walks over both several times. `batch_norm` keeps only its input: its gradient is
one pass for the sums and one for the result (Ioffe and Szegedy 2015, arXiv:1502.03167, section 3).
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class BatchNorm(nn.Module):
    """The same numbers, parameters and statistics as `nn.BatchNorm` over all axes but the last.

    Attributes:
      use_running_average: normalise by the running statistics and leave them alone.
      momentum: share of the old running statistics that a step keeps.
      epsilon: added to the variance.
      dtype: of the result; statistics and arithmetic are float32.
    """

    use_running_average: bool
    momentum: float
    epsilon: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        if self.use_running_average:
            return _normalized(x, mean.value, var.value, scale, bias, self.epsilon, self.dtype)
        y, batch_mean, batch_var = batch_norm(x, scale, bias, self.epsilon, self.dtype)
        if not self.is_initializing():
            keep = self.momentum
            mean.value = keep * mean.value + (1 - keep) * lax.stop_gradient(batch_mean)
            var.value = keep * var.value + (1 - keep) * lax.stop_gradient(batch_var)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float,
               dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the statistics of the batch.

    Args:
      x: `[B, H, W, C]`.
      scale, bias: `[C]` float32.
      epsilon: added to the variance.
      dtype: of the result.

    Returns:
      The result `[B, H, W, C]`, and the mean and the biased variance, `[C]` float32. The latter
      two are for running statistics: no gradient flows through them.
    """
    return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x, scale, bias, epsilon, dtype):
    wide = x.astype(jnp.float32)
    over = tuple(range(x.ndim - 1))
    mean = wide.mean(over)
    var = jnp.maximum(jnp.square(wide).mean(over) - jnp.square(mean), 0.0)
    return (_normalized(x, mean, var, scale, bias, epsilon, dtype), mean, var), \
        (x, mean, lax.rsqrt(var + epsilon), scale)


def _backward(epsilon, dtype, residuals, cotangents):
    x, mean, inverse, scale = residuals
    g = cotangents[0].astype(jnp.float32)
    wide = x.astype(jnp.float32)
    over = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centred = wide - _wide(mean, x)
    bias_grad = g.sum(over)
    moment = (g * centred).sum(over) * jnp.square(inverse)
    x_grad = _wide(scale * inverse, x) * (
        g - _wide(bias_grad / count, x) - centred * _wide(moment / count, x))
    return x_grad.astype(x.dtype), moment / inverse, bias_grad


batch_norm.defvjp(lambda x, scale, bias, epsilon, dtype: _forward(x, scale, bias, epsilon, dtype),
                  _backward)


def _normalized(x, mean, var, scale, bias, epsilon, dtype):
    factor = lax.rsqrt(var + epsilon) * scale
    return ((x - _wide(mean, x)) * _wide(factor, x) + _wide(bias, x)).astype(dtype)


def _wide(values_C: jax.Array, x: jax.Array) -> jax.Array:
    return values_C.reshape((1,) * (x.ndim - 1) + (-1,))
