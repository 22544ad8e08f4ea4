"""Convolution with a batching rule for members.

`vmap` over convolution kernels gives one grouped convolution, which costs about ten times
a loop on CPU and is poor on GPU as well. `member_conv` carries its own batching rule: under
`vmap` over members it emits one plain convolution per member in the same program, forward,
for the input gradient and for the weight gradient alike.

It has reverse-mode derivatives of first order only (`jax.grad`, `jax.vjp`): no `jvp`, no
second derivative. It also works under `jit`, `shard_map`, `scan` and `remat`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")

# Measured by benchmarks/versus_torch.py and on single layers, two cores, jax 0.10 and 0.12.
# Up to this many output pixels XLA's CPU convolution is far slower than gathering the
# patches and multiplying matrices (2x2 pixels, 128 channels: 6 against 109 GFLOP/s); above
# it the copies for the patches cost more than they save.
_CPU_PATCHES_MAX_PIXELS = 4
# XLA's weight gradient moves the batch axis last, of the images and of the output's gradient.
# Where strides or a 1x1 kernel leave little else to do, one matrix product per kernel position
# is faster (16 to 32 channels, 32x32 pixels, stride 2: 83 against 33 GFLOP/s; ResNet18 as a whole
# 2 to 18 %), unless there are hardly any channels to multiply.
_CPU_PRODUCTS_MIN_CHANNELS = 8

Padding = tuple[tuple[int, int], tuple[int, int]]


def member_conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers=None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type=None,
) -> jax.Array:
    """Two-dimensional convolution, a drop-in for `lax.conv_general_dilated` in `nn.Conv`.

    Args:
      lhs: images `[B, H, W, C]`.
      rhs: kernel `[h, w, C, O]`.
      window_strides: two strides, pixels.
      padding: `'SAME'`, `'VALID'` or `((top, bottom), (left, right))`, pixels.
      lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, batch_group_count,
      precision, preferred_element_type: as in `lax`; only the plain case is supported.

    Returns:
      `[B, H', W', O]`.

    Raises:
      ValueError: for dilation, groups, another layout, precision or element type.
    """
    if any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ()))):
        raise ValueError("member_conv supports no dilation: "
                         f"lhs_dilation={lhs_dilation}, rhs_dilation={rhs_dilation}")
    if feature_group_count != 1 or batch_group_count != 1:
        raise ValueError("member_conv supports no groups: feature_group_count="
                         f"{feature_group_count}, batch_group_count={batch_group_count}")
    if precision is not None or preferred_element_type not in (None, lhs.dtype):
        raise ValueError("member_conv computes in the type of its inputs: precision="
                         f"{precision}, preferred_element_type={preferred_element_type}")
    expected = lax.conv_dimension_numbers(lhs.shape, rhs.shape, DIMENSION_NUMBERS)
    if dimension_numbers is not None and lax.conv_dimension_numbers(
            lhs.shape, rhs.shape, dimension_numbers) != expected:
        raise ValueError(f"member_conv takes NHWC, HWIO -> NHWC, not {dimension_numbers}")
    strides = tuple(int(s) for s in window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    return _conv(strides, padding, lhs, rhs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(strides: tuple[int, int], padding: Padding, x: jax.Array, w: jax.Array) -> jax.Array:
    return _kernels(strides, padding)[0](x, w)


def _conv_fwd(strides, padding, x, w):
    return _conv(strides, padding, x, w), (x, w)


def _conv_bwd(strides, padding, residuals, g):
    x, w = residuals
    _, input_grad, weight_grad = _kernels(strides, padding)
    return input_grad(x, w, g), weight_grad(x, w, g)


_conv.defvjp(_conv_fwd, _conv_bwd)


@functools.cache
def _kernels(strides: tuple[int, int], padding: Padding) -> tuple[Callable, Callable, Callable]:
    """Forward, input gradient and weight gradient for one geometry, each with the batching rule."""

    def forward(x, w):
        return _formulation(x, w, strides, padding)(x, w)

    # The residual that a gradient does not depend on only gives its shape; XLA drops it.
    def input_grad(x, w, g):
        return jax.vjp(lambda x: _formulation(x, w, strides, padding)(x, w), x)[1](g)[0]

    def weight_grad(x, w, g):
        few_steps = strides != (1, 1) or w.shape[:2] == (1, 1)
        if _on_cpu() and few_steps and x.shape[3] >= _CPU_PRODUCTS_MIN_CHANNELS:
            return _products_weight_grad(strides, padding, x, w, g)
        return jax.vjp(lambda w: _direct(strides, padding, x, w), w)[1](g)[0]

    return _per_member(forward), _per_member(input_grad), _per_member(weight_grad)


def _per_member(fun: Callable) -> Callable:
    """`fun`, which under `vmap` is called once per member in the same program."""
    fun = custom_vmap(fun)

    @fun.def_vmap
    def rule(axis_size, in_batched, *args):
        members = [fun(*(a[m] if batched else a for a, batched in zip(args, in_batched)))
                   for m in range(axis_size)]
        return jnp.stack(members), True

    return fun


def _formulation(x: jax.Array, w: jax.Array, strides, padding) -> Callable:
    """The faster of the two formulations for these shapes on this backend."""
    height, width = _output_size(x.shape, w.shape, strides, padding)
    if _on_cpu() and height * width <= _CPU_PATCHES_MAX_PIXELS:
        return functools.partial(_patches_matmul, strides, padding)
    return functools.partial(_direct, strides, padding)


def _direct(strides, padding, x, w):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSION_NUMBERS)


def _patches_matmul(strides, padding, x, w):
    patches = jnp.concatenate(_windows(strides, padding, x, w), axis=-1)
    return patches @ w.reshape(-1, w.shape[3])


def _products_weight_grad(strides, padding, x, w, g):
    """One product of channels and features, over batch and pixels, per kernel position."""
    over_pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    products = [lax.dot_general(window, g, over_pixels, preferred_element_type=jnp.float32)
                for window in _windows(strides, padding, x, w)]
    return jnp.stack(products).reshape(w.shape).astype(w.dtype)


def _windows(strides, padding, x, w) -> list[jax.Array]:
    """For each kernel position, the pixels that it meets: `[B, H', W', C]`."""
    height, width = _output_size(x.shape, w.shape, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return [x[:, i:i + strides[0] * (height - 1) + 1:strides[0],
              j:j + strides[1] * (width - 1) + 1:strides[1]]
            for i in range(w.shape[0]) for j in range(w.shape[1])]


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _output_size(x_shape, w_shape, strides, padding) -> tuple[int, int]:
    height, width = ((x_shape[1 + d] + sum(padding[d]) - w_shape[d]) // strides[d] + 1
                     for d in (0, 1))
    return height, width
