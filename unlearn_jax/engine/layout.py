"""The layout of members and batches: the device mesh, and the one place that adds `vmap`, `jit`."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from unlearn_jax import native
from unlearn_jax.errors import InputError
from unlearn_jax.networks.conv import convolution_setting, convolutions
from unlearn_jax.system import arrays, processes
from unlearn_jax.system.made_once import made_once
from unlearn_jax.system.target import Target, tracing_for

MEMBER, BATCH = "member", "batch"

# XLA's CPU backend can spend longer on compiling than a short run takes. Level 1 saves a quarter
# of that (13.4 s to 9.4 s of CPU time for three narrow ResNets in one program, on jax 0.10) and
# leaves the time of a step as it was.
_CPU_COMPILER_OPTIONS = {"xla_backend_optimization_level": 1}

# What goes into CUDA graphs: XLA's own choice, and also convolutions and loops. So a call of many
# steps is one launch of one graph, instead of hundreds of launches for each step.
_GRAPHS = "xla_gpu_enable_command_buffer"
_GPU_COMPILER_OPTIONS = {_GRAPHS: "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,"
                                  "DYNAMIC_SLICE_FUSION,CONVOLUTION,WHILE"}

# Members of a call on a GPU, unless the config sets the number. Each member's convolutions are
# separate kernels. More than 16 members would share only a few more of the hundreds of kernels of a
# step, and the time to compile grows with each member (BENCHMARKS.md).
_MOST_MEMBERS = 16


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh of (member, batch) devices, and how much work the host hands out at once.

    Members never exchange data: programs are mapped over the member axis with `shard_map` and hold
    no collective. The compiler handles the batch axis: it sees batch-sharded indices and sums
    gradients by itself.

    A population larger than one call of the program is processed in groups, all by the same
    program.

    The devices may belong to several processes, equally many to each; all make the same calls.

    Attributes:
      mesh: axes `member` and `batch`.
      members_per_device: members of one call on each device.
      steps_per_dispatch: training steps in one call of the compiled program, at most.
      adapts: the config leaves `members_per_device` open, so it may be lowered until a call fits.
      cuda_graphs: on a GPU a call is one CUDA graph, as far as XLA can; else XLA's own choice.
    """

    mesh: Mesh
    members_per_device: int
    steps_per_dispatch: int
    adapts: bool = False
    cuda_graphs: bool = True

    @property
    def batch_devices(self) -> int:
        """Devices that share the batch of each member."""
        return self.mesh.shape[BATCH]

    def groups(self, num_members: int) -> np.ndarray:
        """The members of each call, `[groups, members of a call]`.

        The last group repeats the last member until it is full.
        """
        size = self.mesh.shape[MEMBER] * self.members_per_device
        count = -(-num_members // size) * size
        return np.minimum(np.arange(count), num_members - 1).reshape(-1, size)

    def over_groups(self, tree_M: Any, num_members: int) -> Iterator[tuple[np.ndarray, Any]]:
        """The members of each call, and their part of arrays `[M, ...]` on the devices."""
        for group in self.groups(num_members):
            yield group, self.shard_members(jax.tree.map(lambda x, g=group: x[g], tree_M))

    @property
    def target(self) -> Target:
        """What programs run on; each device has an equal part of this process's cores."""
        platform = self.mesh.devices.flat[0].platform
        if platform != "cpu" or self.mesh.shape[BATCH] > 1:
            return Target(platform)
        cores = len(os.sched_getaffinity(0)) // len(self.mesh.local_devices)
        return Target(platform, max(1, cores))

    @property
    def of_batches(self) -> NamedSharding:
        """The sharding of arrays `[M, K, B, ...]` of batches: divided over both axes."""
        return NamedSharding(self.mesh, P(MEMBER, None, BATCH))

    def shapes_of_members(self, tree: Any, count: int) -> Any:
        """The shapes of arrays `[any, ...]` for `count` members, as `shard_members` lays them."""
        where = NamedSharding(self.mesh, P(MEMBER))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype,
                                                           sharding=where), tree)

    def shard_members(self, tree: Any) -> Any:
        """Puts arrays `[M, ...]` onto the devices, M divided over the member axis."""
        return arrays.put(tree, NamedSharding(self.mesh, P(MEMBER)))

    def replicate(self, tree: Any) -> Any:
        """Puts arrays that every member reads onto the devices, one copy on each."""
        return arrays.put(tree, NamedSharding(self.mesh, P()))

    def shard_batches(self, tree: Any) -> Any:
        """Puts arrays `[M, K, B, ...]` of K batches per member, divided over both axes."""
        return arrays.put(tree, self.of_batches)

    def vmap_jit(self, fun: Callable, in_axes: tuple[int | None, ...],
                 donate: tuple[int, ...] = (), lasting: bool = False,
                 has_axis: bool = False) -> "Program":
        """One compiled program that runs single-member code for all members.

        Args:
          fun: takes one member's arguments and returns a tree of arrays.
          in_axes: 0 where an argument has a leading member axis, None where members share it.
          donate: positions of arguments whose memory the results may reuse.
          lasting: `fun` comes from a function that is `made_once`, so what JAX has traced and
            compiled of it is kept for the next program of it. How convolutions are computed is
            decided here (`convolutions`), and not when the program is compiled.
          has_axis: `fun` takes and returns arrays with the member axis, and maps over it itself.

        Returns:
          The program; every result has a leading member axis.
        """
        make = _lasting if lasting else _mapped
        target = self.target
        options = self._compiler_options(target.platform)
        return Program(make(self.mesh, target, fun, in_axes, donate,
                            tuple(options.items()), convolution_setting(), has_axis))

    def _compiler_options(self, platform: str) -> dict[str, Any]:
        options = _CPU_COMPILER_OPTIONS if platform == "cpu" else \
            _GPU_COMPILER_OPTIONS if platform == "gpu" and self.cuda_graphs else {}
        # The user's own XLA flags have precedence.
        told = os.environ.get("XLA_FLAGS", "")
        return {name: value for name, value in options.items() if f"--{name}" not in told}


def _mapped(mesh: Mesh, target: Target, fun: Callable, in_axes: tuple[int | None, ...],
            donate: tuple[int, ...], options: tuple[tuple[str, Any], ...],
            convolution: str, has_axis: bool) -> jax.stages.Wrapped:
    """The jitted function of `Layout.vmap_jit`, with all that its trace depends on."""
    specs = tuple(P() if axis is None else P(MEMBER) for axis in in_axes)

    @functools.wraps(fun)
    def members(*args: Any) -> Any:
        with tracing_for(target.platform, target.threads), convolutions(convolution):
            return (fun if has_axis else jax.vmap(fun, in_axes=in_axes))(*args)

    mapped = jax.shard_map(members, mesh=mesh, in_specs=specs, out_specs=P(MEMBER),
                           axis_names={MEMBER}, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=dict(options) or None)


_lasting = made_once(_mapped)


class Program:
    """A jitted function of fixed shapes that times its own compilation.

    Attributes:
      compile_seconds: seconds spent compiling so far, which do not count as running.
    """

    def __init__(self, jitted: jax.stages.Wrapped):
        self._jitted = jitted
        self._compiled: jax.stages.Compiled | None = None
        self.compile_seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        self.compile(*args)
        return self.compiled(*args)

    def again(self) -> "Program":
        """The same program, not yet compiled, for arguments of other shapes."""
        return Program(self._jitted)

    def compile(self, *args: Any) -> None:
        """Compiles for arguments of these shapes, unless that has been done; runs nothing."""
        if self._compiled is None:
            began = time.monotonic()
            self._compiled = self.lower(*args).compile()
            self.compile_seconds = time.monotonic() - began
            processes.wait("compilation")  # an early process must not wait in a collective

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """The program lowered for arguments of these shapes, as input of XLA's compiler."""
        return self._jitted.lower(*args)

    @property
    def compiled(self) -> jax.stages.Compiled:
        """The compiled program: its text, its memory.

        Raises:
          RuntimeError: it has not been called yet.
        """
        if self._compiled is None:
            raise RuntimeError("the program is compiled at its first call")
        return self._compiled


def make_layout(cfg: ml_collections.ConfigDict, num_members: int) -> Layout:
    """The layout for a population.

    Args:
      cfg: the section `parallel` of the config.
      num_members: members to be trained.

    Raises:
      InputError: the backend is missing, there are too few devices, or several processes cannot
        give as many of them each.
    """
    devices_PD = _by_process(find_devices(cfg.backend))
    count, kind = devices_PD.size, devices_PD[0, 0].platform
    available = count // cfg.batch
    if available == 0:
        raise InputError(f"config.parallel.batch is {cfg.batch} but there are only {count} {kind} "
                         "devices")
    if cfg.members > available:
        raise InputError(f"config.parallel.members is {cfg.members}, times batch={cfg.batch}; "
                         f"there are only {count} {kind} devices")
    # Every process takes part with equally many devices; one without members repeats others'.
    step = len(devices_PD) // math.gcd(len(devices_PD), cfg.batch)
    members = cfg.members or min(-(-_devices_for(num_members, available) // step) * step,
                                 available // step * step)
    if not members or members % step:
        raise InputError(
            f"config.parallel.members={cfg.members} times batch={cfg.batch} is no number of "
            f"devices that {len(devices_PD)} processes of {devices_PD.shape[1]} {kind} devices "
            "can give in equal parts")
    grid = devices_PD[:, :members * cfg.batch // len(devices_PD)].reshape(members, cfg.batch)
    per_device = cfg.members_per_device or members_of_a_call(kind, -(-num_members // members))
    mesh = Mesh(grid, (MEMBER, BATCH), axis_types=(AxisType.Auto,) * 2)
    layout = Layout(mesh, per_device, 1, adapts=not cfg.members_per_device,
                    cuda_graphs=cfg.cuda_graphs)
    steps = _steps(cfg.convolution, layout.target)
    return dataclasses.replace(layout, steps_per_dispatch=cfg.steps_per_dispatch or steps)


def _steps(convolution: str, target: Target) -> int:
    """Training steps of a call, where the config leaves the number open.

    Raises:
      InputError: `convolution` is oneDNN, which cannot compute on this target.
    """
    missing = native.unavailable() if target.platform == "cpu" else "this is no CPU"
    missing = missing or ("" if target.threads else "config.parallel.batch divides the batch")
    if convolution == "onednn" and missing:
        raise InputError("config.parallel.convolution is 'onednn', which cannot compute here: "
                         f"{missing}. Allowed: auto and the others of conv.py")
    if target.platform != "cpu":
        return 32
    if convolution == "auto" and missing:
        _warn_of_slow_convolutions(missing)
    # Inside a loop a training step with XLA's own convolutions is tens of times slower
    # (BENCHMARKS.md; jax issue 12868).
    return 8 if not missing and convolution in ("auto", "onednn") else 1


@functools.cache
def _warn_of_slow_convolutions(reason: str) -> None:
    """Warns once in a process."""
    logging.warning("convolutions are computed by XLA, at about half the speed of oneDNN: %s",
                    reason)


def members_of_a_call(platform: str, members: int) -> int:
    """How many members of a device one call takes, unless the config sets the number.

    On a CPU it is one: one member keeps all cores busy, and several in one program gain nothing but
    take several times as long to compile. Elsewhere it is up to 16, in calls of equal size: 20
    members take two calls of ten.
    """
    if platform == "cpu":
        return 1
    calls = -(-members // _MOST_MEMBERS)
    return -(-members // calls)


def find_devices(backend: str) -> list[jax.Device]:
    """The devices of a backend; `''` takes whatever jax prefers.

    Raises:
      InputError: this machine has no such device, or jax was installed without it.
    """
    try:
        return jax.devices(backend or None)
    except RuntimeError as e:
        found = ", ".join(sorted({d.platform for d in jax.devices()}))
        raise InputError(
            f"config.parallel.backend is {backend!r} but jax finds no such device (found: "
            f"{found}). Install jax for it (BUILD.md) or leave the key empty.") from e


def _by_process(devices: list[jax.Device]) -> np.ndarray:
    """The devices `[P, D]` of P processes."""
    own: dict[int, list[jax.Device]] = {}
    for device in devices:
        own.setdefault(device.process_index, []).append(device)
    if len(set(map(len, own.values()))) > 1:
        raise InputError(
            f"the processes have {', '.join(str(len(own[p])) for p in sorted(own))} devices; each "
            "must have as many: set CUDA_VISIBLE_DEVICES, or config.parallel.cpu_devices")
    return np.array([own[p] for p in sorted(own)])


def _devices_for(num_members: int, available: int) -> int:
    """The number of devices that help: six members take two rounds on four devices or on three."""
    rounds = -(-num_members // available)
    return -(-num_members // rounds)
