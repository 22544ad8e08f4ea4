"""Initial weights from one draw: on a CPU, XLA takes about a second to compile each draw.

`Normal` is an initialiser for Flax' layers. By itself it draws as all initialisers do. Within
`one_draw`, all of them take their numbers from a single draw.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# `(shape) -> numbers` that replaces the draws of `Normal`.
_Take = Callable[[Sequence[int]], jax.Array]
_take: contextvars.ContextVar[_Take | None] = contextvars.ContextVar("draws", default=None)


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal numbers with mean 0.

    Attributes:
      deviation: standard deviation; 0: by the kernel's shape. Then the variance is
        2 / (h * w * channels out) for a convolution (He et al. 2015, fan out) and 1 / (features in)
        for a dense layer.
    """

    deviation: float = 0.0

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        deviation = self.deviation
        if not deviation:
            fan = math.prod(shape[:2]) * shape[3] / 2 if len(shape) == 4 else shape[0]
            deviation = 1 / math.sqrt(fan)
        take = _take.get()
        numbers = jax.random.normal(key, shape, dtype) if take is None else take(shape)
        return deviation * numbers.astype(dtype)


def one_draw(module: nn.Module, image_size: int, keys: dict[str, jax.Array]) -> Any:
    """Fresh variables of a network, as from `module.init`.

    Args:
      module: takes preprocessed images `[B, H, W, 3]` and `train`.
      image_size: pixels.
      keys: by stream; the draw uses 'params'.
    """
    numbers, start = jax.random.normal(keys["params"], (_count(module, image_size),)), 0

    def take(shape):
        nonlocal start
        start += math.prod(shape)
        return numbers[start - math.prod(shape):start].reshape(shape)

    with _taking(take):
        return module.init(keys, _images(image_size), False)


@functools.cache
def _count(module: nn.Module, image_size: int) -> int:
    """How many numbers the initialisers `Normal` of a network draw."""
    total = 0

    def take(shape):
        nonlocal total
        total += math.prod(shape)
        return jnp.zeros(shape)

    def init():
        with _taking(take):
            return module.init({name: jax.random.key(0) for name in ("params", "dropout")},
                               _images(image_size), False)

    jax.eval_shape(init)
    return total


def _images(size: int) -> jax.Array:
    return jnp.zeros((1, size, size, 3), jnp.float32)


@contextlib.contextmanager
def _taking(take: _Take) -> Iterator[None]:
    token = _take.set(take)
    try:
        yield
    finally:
        _take.reset(token)
