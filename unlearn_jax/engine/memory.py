"""What fits into a device's memory: the images or not, and how many members of a call."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import ml_collections
from absl import logging

from unlearn_jax.engine.layout import MEMBER, Layout, Program
from unlearn_jax.errors import InputError
from unlearn_jax.system import processes

T = TypeVar("T")

# Share of a device's memory that images may take: models and their activations need the rest.
_IMAGES_SHARE = 0.5
# Share of the free memory that a population is planned to take: the rest is for small arrays, gaps.
_USABLE = 0.9
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # XLA's words, at compilation or at run time


def total_bytes(device: jax.Device) -> float:
    """Bytes that jax may use on a device; infinite where it reports no limit, as on a CPU."""
    return (device.memory_stats() or {}).get("bytes_limit", math.inf)


def free_bytes(device: jax.Device) -> float:
    """Bytes that jax may use on a device and that are free now."""
    return total_bytes(device) - (device.memory_stats() or {}).get("bytes_in_use", 0)


def image_bytes(cfg: ml_collections.ConfigDict, device: jax.Device) -> float:
    """The most bytes of images that lie on the device; more are streamed from the host.

    Args:
      cfg: the section `parallel` of the config.
      device: one of the training devices.
    """
    return {"device": math.inf, "stream": -1.0,
            "auto": _IMAGES_SHARE * total_bytes(device)}[cfg.resident]


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or of their shapes, random keys included."""
    def size(x: Any) -> int:
        keys = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return math.prod(x.shape) * (8 if keys else x.dtype.itemsize)

    return sum(size(x) for x in jax.tree.leaves(tree))


def call_bytes(program: Program) -> int:
    """Bytes on each device while a compiled program runs, its arguments included."""
    found = program.compiled.memory_analysis()
    assert found is not None, "XLA analyses the memory of what it compiles for CPUs and GPUs"
    return (found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
            - found.alias_size_in_bytes + found.generated_code_size_in_bytes)


def fit_members_per_call(layout: Layout, count: int, name: str, needs: Callable[[Layout], int],
                         held: int = 0) -> Layout:
    """The layout with as many members per call as the devices have room for.

    The compiler reports the bytes of a call, which grow with its members. If they are too many, the
    call is compiled for fewer members, until it fits. Calls have equal sizes: if five of six
    members fit, there are two calls of three.

    Args:
      layout: unchanged where the config sets the members of a call (`adapts` is false).
      count: members of the population.
      name: name of the population, for the log.
      needs: compiles for a layout; returns the bytes of a call on each device, without those that
        are in use already and without `held`.
      held: bytes that each member keeps on its device from the first call to the last.
    """
    free = processes.lowest("memory", min(free_bytes(d) for d in layout.mesh.local_devices))
    mine = -(-count // layout.mesh.shape[MEMBER])
    while True:
        members = layout.members_per_device
        need = -processes.lowest("a call", -needs(layout))  # the same in all processes
        room = _USABLE * free - held * (-(-mine // members) * members)
        if need <= room or members == 1 or not layout.adapts:
            return layout
        most = max(1, min(members - 1, int(room * members // need)))
        fewer = -(-mine // -(-mine // most))
        logging.info("%s: %d members at once would take %.2f GB of the %.2f GB that are free; "
                     "compiling for %d", name, members,
                     (need + _USABLE * free - room) / 1e9, free / 1e9, fewer)
        layout = dataclasses.replace(layout, members_per_device=fewer)


def halve_on_oom(work: Callable[[Layout], T], layout: Layout, name: str,
                batch_size: int) -> T:
    """The result of `work`; if a call runs out of memory, with half as many members per call.

    Args:
      work: takes a layout; a repetition begins from its start.
      layout: the first to be tried.
      name: name of the work, for messages.
      batch_size: samples of each member in a call, for messages.

    Raises:
      InputError: not even one member fits on a device; or, with several processes, a call does not
        fit: the other processes have had room and cannot repeat it.
    """
    while True:
        try:
            return work(layout)
        except jax.errors.JaxRuntimeError as e:
            if _OUT_OF_MEMORY not in str(e):
                raise
            layout = _halved(layout, name, batch_size, e)


def _halved(layout: Layout, name: str, batch_size: int,
            error: jax.errors.JaxRuntimeError) -> Layout:
    if layout.members_per_device == 1:
        raise InputError(
            f"{name}: one member with a batch of {batch_size} does not fit into the "
            "device's memory. A smaller batch_size, model.dtype=bfloat16, or parallel.batch over "
            f"several devices takes less. ({str(error).splitlines()[0]})") from error
    half = -(-layout.members_per_device // 2)
    if processes.count() > 1:
        raise InputError(
            f"{name}: {layout.members_per_device} members at once do not fit into the memory of a "
            "device of this process, and several processes cannot go back. Try config.parallel."
            f"members_per_device={half}. ({str(error).splitlines()[0]})") from error
    logging.warning("%s: %d members at once do not fit into the device's memory; going on with %d",
                    name, layout.members_per_device, half)
    return dataclasses.replace(layout, members_per_device=half)
