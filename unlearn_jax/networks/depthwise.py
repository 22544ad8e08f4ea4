"""Depthwise convolutions on a CPU, as sums of shifted images.

XLA's own depthwise convolution takes 20 to 90 times as long there (7x7, 24 to 96 channels; its
weight gradient 5 to 10 times as long). Each position of the kernel is one multiplication of a
shifted image, and XLA computes the sum of all in one pass. There is no convolution in it, so `vmap`
over members or samples needs no rule of its own. The price is time to compile: one to two seconds
for a 7x7 layer with its gradients, once for all members.

It has reverse-mode derivatives of first order only, as `conv.member_conv` does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Strides = tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]
# Positions of the kernel; the program grows with them.
MAX_POSITIONS = 81


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def depthwise(strides: Strides, padding: Padding, x: jax.Array, w: jax.Array) -> jax.Array:
    """A convolution of each channel with a kernel of its own, in the type of `x`.

    Args:
      strides: pixels.
      padding: `((top, bottom), (left, right))`, pixels.
      x: images `[B, H, W, C]`.
      w: kernel `[h, w, 1, C]`.

    Returns:
      `[B, H', W', C]`, summed in float32.
    """
    height, width = w.shape[:2]
    wide, kernel = _padded(x.astype(jnp.float32), padding), w.astype(jnp.float32)
    total = sum(_window(wide, i, j, strides, w.shape) * kernel[i, j].reshape(1, 1, 1, -1)
                for i in range(height) for j in range(width))
    return jnp.asarray(total).astype(x.dtype)


def _forward(strides, padding, x, w):
    return depthwise(strides, padding, x, w), (x, w)


def _backward(strides, padding, residuals, g):
    x, w = residuals
    height, width = w.shape[:2]
    # Every pixel of the input gets the gradients of the outputs that it is in: a convolution of the
    # gradient, with the strides as gaps between its pixels, with the mirrored kernel.
    gaps = [(k - 1 - low, size + low - 1 - (n - 1) * stride, stride - 1) for k, (low, _), size, n,
            stride in zip(w.shape[:2], padding, x.shape[1:3], g.shape[1:3], strides)]
    apart = lax.pad(g, np.zeros((), g.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    dx = depthwise((1, 1), ((0, 0), (0, 0)), apart, w[::-1, ::-1])
    wide = _padded(x.astype(jnp.float32), padding)
    g = g.astype(jnp.float32)
    down, right = (wide.shape[1 + d] - w.shape[d] + 1 for d in (0, 1))

    def row(_, i):
        """The sums of a row of the kernel, in one pass, first for each image."""
        rows = lax.dynamic_slice_in_dim(wide, i, down, axis=1)[:, ::strides[0]]
        terms = tuple(rows[:, :, j:j + right:strides[1]] * g for j in range(width))
        sums = lax.reduce(terms, (np.float32(0),) * width,
                          lambda a, b: tuple(u + v for u, v in zip(a, b)), (1, 2))
        return None, jnp.stack([jnp.sum(one, axis=0) for one in sums])

    # What a loop reads is computed once; without it XLA computes g again for every position.
    _, dw = lax.scan(row, None, jnp.arange(height))
    return dx.astype(x.dtype), dw.reshape(w.shape).astype(w.dtype)


depthwise.defvjp(_forward, _backward)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _window(wide: jax.Array, i: int, j: int, strides: Strides,
            kernel: tuple[int, ...]) -> jax.Array:
    """The padded images' pixels under a position of the kernel, `[B, H', W', C]`."""
    down, right = (wide.shape[1 + d] - kernel[d] for d in (0, 1))
    return wide[:, i:i + down + 1:strides[0], j:j + right + 1:strides[1]]
