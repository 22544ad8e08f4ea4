"""Floating-point operations of one member's code: the same on every machine and in every layout.

XLA counts them for a program before its compiler changes it, but not for devices behind a plugin,
such as CUDA's. It counts the body of a loop, such as one over members, once. So one member's code
is lowered for the CPU, wherever the code will run: a CPU is also there beside a GPU. Nothing is
compiled.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from unlearn_jax.networks.conv import convolutions
from unlearn_jax.system.target import tracing_for


def count(fun: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of a call, as `fun` is written; a loop's body counts once.

    A convolution counts as one, without the products with padding, however it is computed
    (`conv.CHOICES`).

    Args:
      fun: a function of one member.
      args: arrays, numbers or their shapes.

    Returns:
      NaN where jax has no CPU, with a warning.
    """
    cpu = _cpu()
    if cpu is None:
        return float("nan")
    shapes = jax.eval_shape(lambda *args: args, *args)  # wherever the arrays lie
    with jax.default_device(cpu), convolutions("direct"), tracing_for("cpu"):
        # A new function: jit would reuse an earlier trace of the same function.
        analysis = jax.jit(lambda *args: fun(*args)).lower(*shapes).cost_analysis()
    if analysis is None:
        _warn("jax does not count those of a CPU")
        return float("nan")
    return max(analysis.get("flops", 0.0), 0.0)


def countable() -> bool:
    """Whether jax has a CPU to count for."""
    return _cpu() is not None


def _cpu() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as e:
        _warn(f"{e}; JAX_PLATFORMS=cuda,cpu has both")
        return None


@functools.cache
def _warn(reason: str) -> None:
    """Warns once in a process."""
    logging.warning("floating-point operations are not counted and reported as nan: %s", reason)
