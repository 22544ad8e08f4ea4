"""Convolutions of any kind for `nn.Conv`; plain ones go to `conv.member_conv`.

`conv.member_conv` computes the plain case: two dimensions, no groups, no dilation, and on a CPU
`depthwise.py` the one with a kernel for each channel. All others are grouped, dilated, or of one or
three dimensions. XLA computes them, with a batching rule of this module: `vmap` over members (the
kernel is mapped) gives one convolution for each member in the same program; `vmap` over samples
(the kernel is shared) is JAX's own.

Only reverse-mode derivatives of first order exist, as for `conv.member_conv`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from unlearn_jax.networks.conv import DIMENSION_NUMBERS, MAX_UNROLLED, member_conv
from unlearn_jax.networks.depthwise import MAX_POSITIONS, depthwise
from unlearn_jax.system import target


def any_conv(lhs: jax.Array, rhs: jax.Array, window_strides: Sequence[int],
             padding: str | Sequence[tuple[int, int]],
             lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
             dimension_numbers: Any = None, feature_group_count: int = 1,
             precision: lax.PrecisionLike = None, out_sharding: None = None) -> jax.Array:
    """Replaces `lax.conv_general_dilated` in any `nn.Conv`, and in `nnx.Conv` if it is given there.

    Args:
      lhs: images `[B, ..., C]`.
      rhs: kernel `[..., C / groups, O]`.
      window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
      precision: as in `lax`.
      out_sharding: `nnx.Conv` passes it; only None is supported.

    Returns:
      `[B, ..., O]`.

    Raises:
      ValueError: an `out_sharding`.
    """
    if out_sharding is not None:
        raise ValueError(f"any_conv supports no out_sharding: {out_sharding}")
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if lhs.ndim == 4 and not dilated and feature_group_count == 1 and precision is None:
        return member_conv(lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if (lhs.ndim == 4 and not dilated and precision is None and target.platform() == "cpu"
            and feature_group_count == lhs.shape[-1] == rhs.shape[-1]
            and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, DIMENSION_NUMBERS)
            and math.prod(rhs.shape[:2]) <= MAX_POSITIONS):
        down, right = window_strides
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (down, right), padding)
        rows, columns = ((int(low), int(high)) for low, high in padding)
        return depthwise((down, right), (rows, columns), lhs, rhs)
    pads = padding if isinstance(padding, str) else tuple((int(a), int(b)) for a, b in padding)
    ones = (1,) * (lhs.ndim - 2)
    return _conv(_Geometry(tuple(window_strides), pads, tuple(lhs_dilation or ones),
                           tuple(rhs_dilation or ones), numbers, feature_group_count, precision),
                 lhs, rhs)


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """A convolution without its arrays; the attributes are the arguments of `any_conv`."""

    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    numbers: Any
    groups: int
    precision: lax.PrecisionLike

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """The convolution of one member."""
        return lax.conv_general_dilated(
            x, w, self.strides, self.padding, self.lhs_dilation, self.rhs_dilation, self.numbers,
            self.groups, precision=self.precision)

    def input_gradient(self, x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        """The gradient with respect to `x`, whose values do not matter, only its shape."""
        return jax.linear_transpose(lambda x: self.forward(x, w), x)(g)[0]

    def weight_gradient(self, x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        """The gradient with respect to `w`, whose values do not matter, only its shape."""
        return jax.linear_transpose(lambda w: self.forward(x, w), w)(g)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(how: _Geometry, x: jax.Array, w: jax.Array) -> jax.Array:
    return per_member(how.forward)(x, w)


def _conv_fwd(how, x, w):
    return _conv(how, x, w), (x, w)


def _conv_bwd(how, residuals, g):
    return tuple(per_member(f)(*residuals, g) for f in (how.input_gradient, how.weight_gradient))


_conv.defvjp(_conv_fwd, _conv_bwd)


def per_member(fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`fun(x, w, ...)` with a batching rule: one call for each member where `w` is mapped.

    If `w` is shared, as by samples, JAX maps `fun`. The two nest in either order.
    """

    @custom_vmap
    def call(*args):
        return fun(*args)

    @call.def_vmap
    def rule(axis_size, in_batched, *args):
        if not in_batched[1]:
            axes = tuple(0 if batched else None for batched in in_batched)
            return per_member(jax.vmap(fun, axes))(*args), True
        mapped = tuple(a for a, batched in zip(args, in_batched) if batched)

        def member(mapped):
            rest = iter(mapped)
            return call(*(next(rest) if batched else a for a, batched in zip(args, in_batched)))

        if axis_size > MAX_UNROLLED:
            return lax.map(member, mapped, batch_size=MAX_UNROLLED), True
        return jnp.stack([member([a[m] for a in mapped]) for m in range(axis_size)]), True

    return call
