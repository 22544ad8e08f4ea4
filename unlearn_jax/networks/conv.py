"""Convolution with a batching rule for members and for samples.

`vmap` over convolution kernels gives one grouped convolution, which costs about ten times
a loop on CPU and is poor on GPU as well. `member_conv` carries its own batching rule:

- `vmap` over members (the kernel is mapped): one plain convolution per member in the same
  program, forward, for the input gradient and for the weight gradient alike.
- `vmap` over samples (the kernel is shared), as for per-sample gradients: one convolution of all
  samples, forward and for the input gradient. Weight gradients, one for each sample, are one
  batched matrix product.

The two nest in either order. The table `CHOICES` decides how a convolution is computed, by its
shape and by its device (`target.py`); `with convolutions("direct")` and the like override the
table.

It has reverse-mode derivatives of first order only (`jax.grad`, `jax.vjp`): no `jvp`, no
second derivative. It also works under `jit`, `shard_map`, `scan` and `remat`.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from unlearn_jax import native
from unlearn_jax.system import target
from unlearn_jax.system.target import Target

DIMENSION_NUMBERS = ("NHWC", "HWIO", "NHWC")
PHASES = ("forward", "input_grad", "weight_grad")

# `auto` uses CHOICES. For one member: XLA's convolution (`direct`); oneDNN's (`onednn`, on a CPU);
# gathered patches and one matrix product (`patches`); one matrix product per kernel position
# (`products`). For several members at once: `patches` with one batched product for all (`batched`);
# one after the other in a loop, each by CHOICES (`loop`).
SETTINGS = ("auto", "direct", "onednn", "patches", "products", "batched", "loop")


class Choice(NamedTuple):
    """The formulation for convolutions within these bounds in one phase.

    Attributes:
      phase: one of `PHASES`.
      formulation: one of `SETTINGS`.
      max_kernel: largest height and width of the kernel, pixels.
      min_stride: smallest stride, pixels.
      max_pixels: largest height times width of the output.
      min_channels: least number of channels of the images.
    """

    phase: str
    formulation: str
    max_kernel: float = math.inf
    min_stride: int = 1
    max_pixels: float = math.inf
    min_channels: int = 1


# By platform; the first that fits is taken, or `direct` if none does. `onednn` fits if
# `Target.has_native` is true. Measured on single layers, on two CPU cores
# (`python -m benchmarks.formulations` times them all), and then in a whole step, where the gain of
# a layer can vanish.
# - oneDNN is the fastest nearly everywhere (3x3 without strides: 0.3 to 0.9 of the time of the
#   next). The input gradient of a 1x1 convolution with strides is an exception: gathering and one
#   product take half of its time.
# Without oneDNN:
# - Up to four output pixels XLA's CPU convolution is far slower than gathering the patches and
#   multiplying matrices (2x2 pixels, 128 channels: 6 against 109 GFLOP/s); above, the copies for
#   the patches cost more than they save.
# - Input gradients gain up to 16 pixels (4x4, 128 channels, 3x3: 0.70 of the time), and wherever
#   XLA has to dilate the output's gradient by the stride (3x3, stride 2: 0.80 to 0.87).
# - XLA's weight gradient moves the batch axes of the images and of the output's gradient last.
#   If strides or a 1x1 kernel leave little other work, one matrix product per kernel position is
#   faster (16 to 32 channels, 32x32 pixels, stride 2: 83 against 33 GFLOP/s), unless there are
#   hardly any channels to multiply.
CHOICES = {
    "cpu": (
        Choice("input_grad", "patches", max_kernel=1, min_stride=2),
        *(Choice(phase, "onednn") for phase in PHASES),
        Choice("forward", "patches", max_pixels=4),
        Choice("input_grad", "patches", max_pixels=16),
        Choice("input_grad", "patches", min_stride=2),
        Choice("weight_grad", "products", min_stride=2, min_channels=8),
        Choice("weight_grad", "products", max_kernel=1, min_channels=8),
    ),
}

# The most members whose convolutions are written out in the program; a loop runs over groups of so
# many. The time to compile grows with this number, and beyond 16 a GPU's step hardly gains.
MAX_UNROLLED = 16

# Per-sample gradients: with up to this many images per sample, all samples are one batched product;
# with more, each sample is a separate convolution.
_MAX_SAMPLE_IMAGES = 8

Padding = tuple[tuple[int, int], tuple[int, int]]


_setting = contextvars.ContextVar("convolutions", default="auto")

@contextlib.contextmanager
def convolutions(setting: str) -> Iterator[None]:
    """Computes the convolutions that are traced inside by one of `SETTINGS`.

    A function that `jit` has traced before does not change.

    Raises:
      ValueError: the setting is unknown.
    """
    if setting not in SETTINGS:
        raise ValueError(f"convolutions takes one of {', '.join(SETTINGS)}, not {setting!r}")
    token = _setting.set(setting)
    try:
        yield
    finally:
        _setting.reset(token)


def convolution_setting() -> str:
    """The setting of `convolutions` that holds here."""
    return _setting.get()


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
      ValueError: dilation, groups, another layout, a precision, or other element types.
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
    if lhs.dtype != rhs.dtype:
        raise ValueError(f"member_conv takes images and a kernel of one type, not {lhs.dtype} and "
                         f"{rhs.dtype}")
    down, right = (int(s) for s in window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (down, right), padding)
    rows, columns = ((int(low), int(high)) for low, high in padding)
    how = Convolution((down, right), (rows, columns), convolution_setting(), target.current())
    return _conv(how, lhs, rhs)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution without its arrays, with its setting and target.

    Attributes:
      strides, padding: pixels.
      setting: one of `SETTINGS`.
      target: the device that it runs on.
    """

    strides: tuple[int, int]
    padding: Padding
    setting: str
    target: Target

    def formulation(self, phase: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...],
                    dtype: jnp.dtype) -> str:
        """The formulation that the setting means: one of `SETTINGS`, but not `auto`.

        `onednn` means the same as `auto` where oneDNN cannot compute.

        Args:
          phase: one of `PHASES`.
          x_shape, w_shape: images `[B, H, W, C]` and kernel `[h, w, C, O]`.
          dtype: element type of both.
        """
        has_onednn = x_shape[0] > 0 and self.target.has_native(dtype)
        if self.setting != "auto" and (self.setting != "onednn" or has_onednn):
            return self.setting
        pixels = math.prod(_output_size(x_shape, w_shape, self.strides, self.padding))
        for choice in CHOICES.get(self.target.platform, ()):
            if (choice.phase == phase and max(w_shape[:2]) <= choice.max_kernel
                    and max(self.strides) >= choice.min_stride and pixels <= choice.max_pixels
                    and x_shape[3] >= choice.min_channels
                    and (has_onednn or choice.formulation != "onednn")):
                return choice.formulation
        return "direct"


def compute(phase: str, formulation: str, how: Convolution, x: jax.Array, w: jax.Array,
            g: jax.Array | None = None) -> jax.Array:
    """One phase of one member's convolution.

    Args:
      phase: one of `PHASES`.
      formulation: `direct`, `onednn`, `patches` or `products`.
      how: strides, padding and threads.
      x: images `[B, H, W, C]`; for the input gradient only their shape matters.
      w: kernel `[h, w, C, O]`; for the weight gradient only its shape matters.
      g: gradient of the output `[B, H', W', O]`.
    """
    if formulation == "onednn":
        return _by_onednn(phase, how, x, w, g)
    conv = functools.partial(_FORWARD[formulation], how.strides, how.padding)
    if phase == "forward":
        return conv(x, w)
    if phase == "input_grad":
        return jax.linear_transpose(lambda x: conv(x, w), x)(g)[0]
    if formulation == "products":
        return _products_weight_grad(how.strides, how.padding, x, w, g)
    return jax.linear_transpose(lambda w: conv(x, w), w)(g)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(how: Convolution, x: jax.Array, w: jax.Array) -> jax.Array:
    return phase_function("forward", how)(x, w)


def _conv_fwd(how, x, w):
    return _conv(how, x, w), (x, w)


def _conv_bwd(how, residuals, g):
    x, w = residuals
    return tuple(phase_function(phase, how)(x, w, g) for phase in ("input_grad", "weight_grad"))


_conv.defvjp(_conv_fwd, _conv_bwd)


@functools.cache
def phase_function(phase: str, how: Convolution) -> Callable:
    """The function of one phase for one geometry, with the batching rule.

    Returns:
      A function of `(x, w)`, or of `(x, w, g)` for a gradient, with the result of `compute`.
    """

    @custom_vmap
    def fun(x, w, *g):
        shapes = x.shape, w.shape, x.dtype
        chosen = how.formulation(phase, *shapes)
        if chosen == "loop":
            chosen = dataclasses.replace(how, setting="auto").formulation(phase, *shapes)
        if chosen == "batched":
            chosen = "patches"
        return compute(phase, chosen, how, x, w, *g)

    @fun.def_vmap
    def rule(axis_size, in_batched, x, w, *g):
        if in_batched[1]:
            chosen = how.formulation(phase, x.shape[in_batched[0]:], w.shape[1:], x.dtype)
            return _over_members(fun, chosen, phase, how, axis_size, in_batched, (x, w, *g)), True
        x, *g = _filled(axis_size, (in_batched[0], *in_batched[2:]), (x, *g))
        if phase != "weight_grad":
            return _folded(fun, x, w, *g), True
        if x.shape[1] > _MAX_SAMPLE_IMAGES:
            return jnp.stack([fun(x[s], w, g[0][s]) for s in range(axis_size)]), True
        return _sample_weight_grads(how)(x, w, *g), True

    return fun


@functools.cache
def _sample_weight_grads(how: Convolution) -> Callable:
    """Weight gradients `[S, h, w, C, O]` of S samples that share a kernel, in one product.

    It takes images `[S, B, H, W, C]`, the kernel, and gradients of the output `[S, B, H', W', O]`.
    """

    @custom_vmap
    def fun(x, w, g):
        one = functools.partial(compute, "weight_grad", "patches", how)
        return jax.vmap(one, (0, None, 0))(x, w, g)

    @fun.def_vmap
    def rule(axis_size, in_batched, x, w, g):
        if in_batched[1]:
            return _unrolled(fun, axis_size, in_batched, (x, w, g)), True
        x, g = _filled(axis_size, (in_batched[0], in_batched[2]), (x, g))
        return _folded(fun, x, w, g), True

    return fun


def _over_members(fun, formulation, phase, how, axis_size, in_batched, args):
    """`fun` for each member, the kernels `[M, h, w, C, O]`."""
    if formulation == "batched":
        axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(functools.partial(compute, phase, "patches", how), axes)(*args)
    if formulation != "loop" and axis_size <= MAX_UNROLLED:
        return _unrolled(fun, axis_size, in_batched, args)
    mapped = tuple(a for a, batched in zip(args, in_batched) if batched)

    def member(mapped):
        rest = iter(mapped)
        return fun(*(next(rest) if batched else a for a, batched in zip(args, in_batched)))

    return lax.map(member, mapped, batch_size=None if formulation == "loop" else MAX_UNROLLED)


def _unrolled(fun, axis_size, in_batched, args):
    return jnp.stack([fun(*(a[m] if batched else a for a, batched in zip(args, in_batched)))
                      for m in range(axis_size)])


def _filled(axis_size, in_batched, arrays):
    """All arrays with a leading mapped axis."""
    return [a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
            for a, batched in zip(arrays, in_batched)]


def _folded(fun, x, w, *g):
    """Applies `fun` to arrays `[S, B, ...]` as if they were `[S * B, ...]`."""
    y = fun(x.reshape(-1, *x.shape[2:]), w, *(a.reshape(-1, *a.shape[2:]) for a in g))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _by_onednn(phase, how, x, w, g):
    """One phase by oneDNN; only the shape of an array that the phase does not read is used."""
    call = functools.partial(native.convolve, phase, how.strides, how.padding, how.target.threads)
    if phase == "forward":
        return call(x, w, (x.shape[0], *_output_size(x.shape, w.shape, how.strides, how.padding),
                           w.shape[3]))
    return call(g, w, x.shape) if phase == "input_grad" else call(x, g, w.shape)


def _direct(strides, padding, x, w):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSION_NUMBERS)


def _patches(strides, padding, x, w):
    patches = jnp.concatenate(_windows(strides, padding, x, w), axis=-1)
    return patches @ w.reshape(-1, w.shape[3])


def _products(strides, padding, x, w):
    kernels = w.reshape(-1, *w.shape[2:])
    products = [jnp.matmul(window, kernels[k], preferred_element_type=jnp.float32)
                for k, window in enumerate(_windows(strides, padding, x, w))]
    total: Any = sum(products)
    return total.astype(x.dtype)


_FORWARD = {"direct": _direct, "patches": _patches, "products": _products}


def _products_weight_grad(strides, padding, x, w, g):
    """One product of channels and features, over batch and pixels, per kernel position."""
    over_pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    products = [lax.dot_general(window, g, over_pixels, preferred_element_type=jnp.float32)
                for window in _windows(strides, padding, x, w)]
    return jnp.stack(products).reshape(w.shape).astype(w.dtype)


def _windows(strides, padding, x, w) -> list[jax.Array]:
    """The pixels that each kernel position covers, `[B, H', W', C]` per position."""
    height, width = _output_size(x.shape, w.shape, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return [x[:, i:i + strides[0] * (height - 1) + 1:strides[0],
              j:j + strides[1] * (width - 1) + 1:strides[1]]
            for i in range(w.shape[0]) for j in range(w.shape[1])]


def _output_size(x_shape, w_shape, strides, padding) -> tuple[int, int]:
    height, width = ((x_shape[1 + d] + sum(padding[d]) - w_shape[d]) // strides[d] + 1
                     for d in (0, 1))
    return height, width
