"""Adapts the layers of a plain Flax network to members, without a change to the network.

Within `member_layers`, a call of

- `nn.Conv` computes its convolution by `other_conv.any_conv`, unless it sets another function;
- `nn.BatchNorm` with all parameters frozen normalises by its running statistics and keeps them;
- any other `nn.BatchNorm` in training uses the gradient of norm.py where that is faster.

Variables and their names are those of Flax, and so are the results, except for the last digits.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.networks import norm
from unlearn_jax.networks.other_conv import any_conv


@contextlib.contextmanager
def member_layers(frozen_norms: tuple[str, ...] = ()) -> Iterator[None]:
    """Adapts the calls of layers that are traced inside to members.

    Args:
      frozen_norms: paths 'a/b' of the batch norms that do not change.
    """
    with nn.intercept_methods(functools.partial(_intercept, frozen_norms)):
        yield


def _intercept(frozen_norms, call, args, kwargs, context):
    module = context.module
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    if isinstance(module, nn.Conv) and not (module.conv_general_dilated
                                            or module.conv_general_dilated_cls):
        with _changed(module, "conv_general_dilated", any_conv):
            return call(*args, **kwargs)
    if isinstance(module, nn.BatchNorm):
        return _batch_norm(module, "/".join(module.path) in frozen_norms, call, *args, **kwargs)
    return call(*args, **kwargs)


def _batch_norm(module: nn.BatchNorm, frozen: bool, call: Any, x: jax.Array,
                use_running_average: bool | None = None, *, mask: jax.Array | None = None) -> Any:
    if frozen:
        with _changed(module, "use_running_average", None):
            return call(x, True, mask=mask)
    running = module.use_running_average if use_running_average is None else use_running_average
    if (running is False and mask is None and not module.is_initializing()
            and norm.written_out() and _is_plain(module, x)):
        return norm.normalise(module, x)
    return call(x, use_running_average, mask=mask)


def _is_plain(module: nn.BatchNorm, x: jax.Array) -> bool:
    """Whether norm.py can replace it: statistics per channel, scale and bias in float32."""
    dtype = module.dtype or jnp.promote_types(x.dtype, jnp.float32)
    return (module.axis in (-1, x.ndim - 1) and module.axis_name is None and module.use_bias
            and module.use_scale and module.use_fast_variance
            and module.force_float32_reductions and module.param_dtype == jnp.float32
            and jnp.dtype(dtype) == x.dtype)


@contextlib.contextmanager
def _changed(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Changes an attribute of a layer during a call, which Flax' own setter forbids."""
    before = getattr(module, name)
    object.__setattr__(module, name, value)
    try:
        yield
    finally:
        object.__setattr__(module, name, before)
