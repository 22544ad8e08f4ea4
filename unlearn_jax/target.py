"""Which platform the code that is traced now will run on.

`layout.over_members` says so while it traces, as it knows the devices. jax's default backend is
another one where a program is compiled for devices that are not there, or for the CPU of a machine
with a GPU.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_platform = contextvars.ContextVar("platform", default="")


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: the layout's, or jax's default where no layout traces."""
    return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(name: str) -> Iterator[None]:
    """What is traced inside will run on this platform.

    A function that `jit` has traced before stays as it is.
    """
    token = _platform.set(name)
    try:
        yield
    finally:
        _platform.reset(token)
