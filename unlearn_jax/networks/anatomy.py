"""The parts of a Flax network, found by tracing it once, without computing anything.

Methods and explanations need the feature maps, the channels and the order of the layers of a
network. A map is an output `[B, s, s, C]`, or a sequence of tokens `[B, s * s, C]`, possibly with a
class token in front.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

_LAYERS = (nn.Conv, nn.Dense)  # the last axis of their outputs and kernels is channels


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """The parts of a network, by path 'a/b'.

    Attributes:
      stages: modules whose outputs are the network's feature maps, first to last: the last at each
        resolution, or the blocks of a transformer.
      channels: layers with channels, `(layer, norm)`: convolutions, and dense layers within maps.
        Channels are measured after the norm that follows the layer; '' means that none does.
      lead: number of tokens before those of the map, by module; absent: a map `[B, s, s, C]`.
      layers: modules that own parameters, in the order of their first calls.
      momenta: batch norms and the share of the old statistics that a step keeps; NaN where a
        module of another kind has running statistics.
    """

    stages: tuple[str, ...]
    channels: tuple[tuple[str, str], ...]
    lead: tuple[tuple[str, int | None], ...]
    layers: tuple[str, ...]
    momenta: tuple[tuple[str, float], ...]

    def sources(self) -> dict[str, str]:
        """The module to read the output of, for each layer with channels and each stage."""
        return {**{layer: norm or layer for layer, norm in self.channels},
                **{stage: stage for stage in self.stages}}


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a module; keeps input and output, so that no other object gets their identity."""

    path: str
    module: nn.Module
    inputs: Any
    output: Any
    compound: bool

    @property
    def map_lead(self) -> int | None:
        """Number of tokens before a map; -1: the output itself is a map; None: it is no map."""
        shape: tuple[int, ...] = getattr(self.output, "shape", ())
        if isinstance(self.module, nn.DenseGeneral):  # nn.Dense is no nn.DenseGeneral
            return None
        if len(shape) == 4 and shape[1] == shape[2] > 0:
            return -1
        if len(shape) == 3 and shape[1] > 1:
            lead = shape[1] - math.isqrt(shape[1])**2
            return lead if lead in (0, 1) else None
        return None


@functools.cache
def anatomy(module: nn.Module, image_size: int) -> Anatomy:
    """The parts of a network.

    Args:
      module: takes preprocessed images `[B, H, W, 3]` and `train`.
      image_size: pixels.
    """
    calls: list[_Call] = []

    def note(call, args, kwargs, context):
        before = len(calls)
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            calls.append(_Call("/".join(context.module.path), context.module, args, output,
                               len(calls) > before))
        return output

    def trace(images: jax.Array) -> Any:
        with nn.intercept_methods(note):
            return module.init({name: jax.random.key(0) for name in ("params", "dropout")},
                               images, False)

    shapes = jax.eval_shape(
        trace, jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32))
    owned = {path.rpartition("/")[0]
             for path in traverse_util.flatten_dict(shapes["params"], sep="/")}
    paths = [call.path for call in calls]
    once = [call for call in calls if paths.count(call.path) == 1]
    stages = _stages(once)
    channels = _channels(once, traverse_util.flatten_dict(shapes["params"], sep="/"))
    read = {norm or layer for layer, norm in channels} | set(stages)
    lead = {c.path: c.map_lead for c in once if c.path in read and c.map_lead != -1}
    momenta = {path: float("nan") for path in sorted({
        path.rpartition("/")[0]
        for path in traverse_util.flatten_dict(shapes.get("batch_stats", {}), sep="/")})}
    momenta |= {c.path: c.module.momentum for c in calls
                if c.path in momenta and isinstance(c.module, nn.BatchNorm)}
    return Anatomy(stages, channels, tuple(lead.items()),
                   tuple(dict.fromkeys(path for path in paths if path in owned)),
                   tuple(momenta.items()))


def _stages(calls: list[_Call]) -> tuple[str, ...]:
    """The last map at each resolution, or the blocks that give tokens."""
    maps = {call.output.shape[1]: call.path for call in calls
            if call.map_lead == -1 and not isinstance(call.module, nn.Dropout)}
    if len(maps) > 1:
        maps.pop(1, None)  # an output of one pixel is no map
    tokens = [call for call in calls if call.map_lead in (0, 1) and call.compound]
    if not tokens:
        return tuple(maps.values())
    depths = [call.path.count("/") for call in tokens]
    # An encoder that holds all blocks is the only module at its depth.
    depth = next((d for d in sorted(set(depths)) if depths.count(d) > 1), min(depths))
    blocks = [call for call in tokens if call.path.count("/") == depth]
    # After the last block the network may use the class token alone: the other tokens then have no
    # gradient.
    return tuple(call.path for call in (blocks[:-1] if blocks[-1].map_lead else blocks))


def _channels(calls: list[_Call], params: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Layers with channels, and for each the norm that takes its output unchanged."""
    norms = {id(call.inputs[0]): call.path for call in calls
             if call.inputs and f"{call.path}/scale" in params and not call.compound}
    return tuple((call.path, norms.get(id(call.output), "")) for call in calls
                 if isinstance(call.module, _LAYERS) and call.map_lead is not None
                 and f"{call.path}/kernel" in params)


def as_map(x: jax.Array, lead: int | None) -> jax.Array:
    """An output as a map `[B, s, s, C]`.

    Args:
      x: `[B, s, s, C]` or tokens `[B, lead + s * s, C]`.
      lead: number of tokens before the map; None: x is a map.
    """
    if lead is None:
        return x
    side = math.isqrt(x.shape[1] - lead)
    return x[:, lead:].reshape(len(x), side, side, x.shape[-1])


def add_map(x: jax.Array, shift_BHWC: jax.Array, lead: int | None) -> jax.Array:
    """An output with a shift added to its map; the other arguments are as for `as_map`."""
    shift = shift_BHWC.astype(x.dtype)
    if lead is None:
        return x + shift
    return x.at[:, lead:].add(shift.reshape(len(x), -1, x.shape[-1]))
