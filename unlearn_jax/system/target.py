"""What the code that is traced now will run on.

`layout.over_members` says so while it traces, as it knows the devices. jax's default backend is
another one where a program is compiled for devices that are not there, or for the CPU of a machine
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
      threads: that one of our own calls (`native`) may use there; 0: no such calls, for example
        where the compiler divides an array over devices, as it cannot divide a call.
    """

    platform: str
    threads: int = 0

    def has_native(self, dtype: DTypeLike = jnp.float32) -> bool:
        """Whether our own calls may be made, on arrays of this type."""
        return self.platform == "cpu" and self.threads > 0 and native.takes(dtype)


_current: contextvars.ContextVar[Target | None] = contextvars.ContextVar("target", default=None)


def current() -> Target:
    """The layout's target, or jax's default backend where no layout traces."""
    return _current.get() or Target(jax.default_backend())


def platform() -> str:
    """The target's platform."""
    return current().platform


@contextlib.contextmanager
def tracing_for(platform: str, threads: int = 0) -> Iterator[None]:
    """What is traced inside will run on this target.

    A function that `jit` has traced before stays as it is.
    """
    token = _current.set(Target(platform, threads))
    try:
        yield
    finally:
        _current.reset(token)
