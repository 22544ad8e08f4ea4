"""The device that the code being traced will run on.

`layout.vmap_jit`, which has the devices, sets it during a trace. jax's default backend may be
another one: if a program is compiled for devices that are not there, or for the CPU of a machine
with a GPU.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from unlearn_jax import native


@dataclasses.dataclass(frozen=True)
class Target:
    """One of the devices that a program is compiled for.

    Attributes:
      platform: `cpu`, `gpu` or `tpu`.
      threads: number of threads that one of our native calls (`native`) may use; 0: no such calls,
        for example if the compiler divides an array over devices, since it cannot divide a call.
    """

    platform: str
    threads: int = 0

    def has_native(self, dtype: DTypeLike = jnp.float32) -> bool:
        """Whether our native calls are possible on arrays of this type."""
        return self.platform == "cpu" and self.threads > 0 and native.takes(dtype)


_current: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


def current() -> Target:
    """The layout's target, or jax's default backend if no layout is tracing."""
    return _current.get() or Target(jax.default_backend())


def platform() -> str:
    """The target's platform."""
    return current().platform


@contextlib.contextmanager
def tracing_for(platform: str, threads: int = 0) -> Iterator[None]:
    """Sets the target of the code that is traced inside.

    A function that `jit` has traced before does not change.
    """
    token = _current.set(Target(platform, threads))
    try:
        yield
    finally:
        _current.reset(token)
