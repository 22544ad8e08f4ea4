"""Compilation for a described GPU that is not present: XLA compiles for it, and nothing can run.

It needs jax's CUDA plug-in (requirements-gpu.txt), but no driver and no GPU. XLA makes these
programs without trying kernels: the fastest of cuDNN's and cuBLAS' algorithms can only be measured
on the GPU itself.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from jax._src import compilation_cache, xla_bridge
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from unlearn_jax.engine.layout import BATCH, MEMBER
from unlearn_jax.errors import InputError

H200 = Path(__file__).with_name("h200.json")

# Trying algorithms out needs the GPU.
_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_dump_hlo_as_text": True}


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU as a file describes it.

    Attributes:
      name: name in words.
      source: source of the ceilings.
      bytes_per_s: rate of its memory.
      flops_per_s: rate of matrix products, by the type of their factors (`bf16`, `f32`).
      launch_s: shortest time of a kernel, in seconds.
      target_config: description for XLA, a `GpuTargetConfigProto` in text format.
    """

    name: str
    source: str
    bytes_per_s: float
    flops_per_s: dict[str, float]
    launch_s: float
    target_config: str


def load_device(path: Path) -> Device:
    """The device that a JSON file such as `h200.json` describes.

    Raises:
      InputError: there is no such file, or it lacks a key, or it has an unknown key.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise InputError(f"--device: {path} is no description of a device: {e}") from e
    wanted = {field.name for field in dataclasses.fields(Device)}
    if not isinstance(content, dict) or content.keys() != wanted:
        raise InputError(f"--device: {path} must have the keys {', '.join(sorted(wanted))}; it has "
                         f"{', '.join(sorted(content))}")
    return Device(**content | {"target_config": "\n".join(content["target_config"])})


def missing() -> str:
    """The reason why nothing can be compiled for a GPU here; '' if it can."""
    return "" if _plugin() else "jax's CUDA plug-in is not installed (requirements-gpu.txt)"


def _plugin() -> str:
    """The module of jax's CUDA plug-in; '' if there is none."""
    for name in ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12"):
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(name):
                return name
    return ""


@contextlib.contextmanager
def described_mesh(device: Device) -> Iterator[Mesh]:
    """A mesh of one described device; programs lowered and compiled inside are for a GPU.

    Raises:
      InputError: the plug-in is missing, or it does not understand the description.
    """
    if reason := missing():
        raise InputError(f"programs for a GPU cannot be compiled: {reason}")
    jax.devices("cpu")  # jax finds its plug-ins
    if "cuda" not in xla_bridge._topology_factories:
        # Without a driver the plug-in has refused; compilation needs no driver.
        with mock.patch.dict(os.environ, JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1"):
            importlib.import_module(_plugin()).initialize()
    usual = xla_bridge.canonicalize_platform

    def canonical(platform: str) -> str:
        # jax takes 'gpu' for CUDA if there is such a GPU.
        return "cuda" if platform in ("gpu", "cuda") else usual(platform)

    with mock.patch.object(xla_bridge, "canonicalize_platform", canonical):
        try:
            topology = topologies.get_topology_desc(
                device.name, "cuda", target_config=device.target_config, topology="1x1x1")
        except jax.errors.JaxRuntimeError as e:
            raise InputError(f"{device.name}: XLA does not take its target_config: {e}") from e
        yield Mesh(np.array(topology.devices).reshape(1, 1), (MEMBER, BATCH),
                   axis_types=(AxisType.Auto,) * 2)


def compile_for_gpu(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """The compiled program, and the sequence of the host's launches for a call, as XLA dumps it.

    No cache is used, because a cached program is not dumped (and could not be loaded). If XLA's
    passes over the sequence change nothing, it dumps only the sequence before them.
    """
    with mock.patch.object(compilation_cache, "is_cache_used", lambda backend: False), \
            tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options=_OPTIONS | {"xla_dump_to": folder})
        (before,) = Path(folder).glob("*.thunk_sequence.txt")
        after = before.with_name(before.name.replace(
            "thunk_sequence", "thunk_sequence_after_thunk_passes"))
        return compiled, (after if after.exists() else before).read_text()


def launches(sequence: str) -> tuple[int, int]:
    """Counts the host's launches: CUDA graphs, and other commands.

    Args:
      sequence: from `compile_for_gpu`.

    Returns:
      Numbers of graphs and of single commands in a call. A loop's body counts once; the loop
      itself, if the host runs it, is a command.
    """
    graphs = singles = 0
    graph_indent: int | None = None
    for line in sequence.splitlines():
        found = re.match(r"( *)\d+: (k\w+)", line)
        if not found:
            continue
        indent, kind = len(found.group(1)), found.group(2)
        if graph_indent is not None and indent > graph_indent:
            continue  # part of the graph
        graph_indent = indent if kind == "kCommandBuffer" else None
        graphs += kind == "kCommandBuffer"
        singles += kind != "kCommandBuffer"
    return graphs, singles
