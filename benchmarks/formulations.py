"""A network's convolutions, one by one, in all formulations:  python -m benchmarks.formulations

The table `CHOICES` of `unlearn_jax/networks/conv.py` was made from its figures. Each row is one
phase of one convolution for M members in one formulation, compiled alone; in a whole network,
neighbouring operations may be fused into it. The last lines name the choices of the table that are
slower than the fastest by more than a tenth.
"""

import dataclasses
import functools
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, workload
from unlearn_jax import native
from unlearn_jax.models import Model
from unlearn_jax.networks import conv, resnet
from unlearn_jax.system.target import Target


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution of the network: strides, padding, and the shapes of images and kernel."""

    strides: tuple[int, int]
    padding: conv.Padding
    x: tuple[int, ...]
    w: tuple[int, ...]

    def __str__(self) -> str:
        (_, height, width, channels), (h, w, _, features) = self.x, self.w
        return f"{height}x{width}x{channels} {h}x{w}/{self.strides[0]} {features}"

    @property
    def flops(self) -> float:
        """Multiplications and additions of one member, the same in each phase."""
        y = jax.eval_shape(self.forward, *map(jnp.zeros, (self.x, self.w)))
        return 2.0 * y.size * np.prod(self.w[:3])

    def computed(self, setting: str, target: Target) -> conv.Convolution:
        """The convolution in one of `conv.SETTINGS`, on the target."""
        return conv.Convolution(self.strides, self.padding, setting, target)

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """The convolution itself, for one member."""
        return conv.member_conv(x, w, self.strides, self.padding)


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[1])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--settings", nargs="+", choices=conv.SETTINGS[1:],
                        default=["direct", "onednn", "patches", "products"], help="what to measure")
    args = parser.parse_args()
    if native.unavailable():
        print(f"no oneDNN: {native.unavailable()}")
        args.settings = [setting for setting in args.settings if setting != "onednn"]
    work = workload.make_workload(args, 1)
    rows, misses = [], []
    for members in args.members:
        for geometry in geometries(work.model, args.batch):
            for phase in conv.PHASES:
                layout = workload.layout_for(members, per_device=members)
                chosen = geometry.computed("auto", layout.target).formulation(
                    phase, geometry.x, geometry.w, jnp.dtype(args.dtype))
                runs = {s: program(geometry, phase, s, members, args.dtype) for s in args.settings}
                seconds = measure.in_turns(runs, args.n, warmup=1)
                medians = {s: float(np.median(seconds[s])) for s in args.settings}
                best = min(medians, key=medians.get)
                if chosen in medians and medians[chosen] > 1.1 * medians[best]:
                    misses.append(f"{geometry}, {phase}, {members} members: {best} takes "
                                  f"{medians[best] / medians[chosen]:.2f} of {chosen}'s time")
                rows += [{"convolution": str(geometry), "phase": phase, "members": members,
                          "impl": setting, "auto": "*" if setting == chosen else "",
                          "ms": measure.spread(1e3 * seconds[setting]),
                          "GFLOP/s": members * geometry.flops / medians[setting] / 1e9}
                         for setting in args.settings]
    measure.finish(args, rows, misses=misses)
    print("\n".join(misses) or "the table is nowhere off by more than a tenth")


def geometries(model: Model, batch: int) -> list[Geometry]:
    """The different convolutions of a network, in its order."""
    found = {}

    def record(x, w, strides, padding, **kwargs):
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding)
        padding = tuple((int(low), int(high)) for low, high in padding)
        found[Geometry(tuple(strides), padding, x.shape, w.shape)] = None
        return conv.member_conv(x, w, strides, padding, **kwargs)

    size = model.image_size
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    variables = model.shapes()  # this is a pass of one image, which must not be recorded
    with mock.patch.object(resnet, "member_conv", record):
        jax.eval_shape(lambda v, x: model.module.apply(v, x, train=False), variables, images)
    return list(found)


def program(geometry: Geometry, phase: str, setting: str, members: int,
            dtype: str) -> Callable[[], None]:
    """Runs one phase for M members, compiled as in the engine."""
    rng = np.random.default_rng(0)
    y = jax.eval_shape(geometry.forward, *map(jnp.zeros, (geometry.x, geometry.w)))
    shapes = (geometry.x, geometry.w) + ((y.shape,) if phase != "forward" else ())
    arrays = [jnp.asarray(rng.normal(size=(members, *shape)), dtype) for shape in shapes]
    layout = workload.layout_for(members, per_device=members)
    function = conv.phase_function(phase, geometry.computed(setting, layout.target))
    mapped = functools.partial(layout.vmap_jit(function, (0,) * len(arrays)), *arrays)
    return lambda: jax.block_until_ready(mapped())


if __name__ == "__main__":
    main()
