"""The phases of a step compared with the machine's limits:  python -m benchmarks.roofline

Limits are measured here: the fastest of some matrix products, and a large copy. Phases are
programs that each add one part: the batch, the forward pass without norms, input gradients,
weight gradients, batch norms (forward and backward), the optimiser. A phase's time is the
difference of medians. FLOPs are those of the program as written, before the compiler changes it;
bytes are those that the compiled program's operations read and write, from memory or a cache.
XLA does not count the bytes of our own calls (`unlearn_jax/native`: convolutions, sums of norms).
"""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, workload
from benchmarks.workload import Workload
from unlearn_jax.engine import flops
from unlearn_jax.models import preprocess
from unlearn_jax.networks import resnet
from unlearn_jax.train import Batch, init_state


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[1], n=10)
    args = parser.parse_args()
    work = workload.make_workload(args, 1)
    ceilings = limits(args.n)
    programs = phases(work)
    seconds = measure.in_turns({name: run for name, (run, *_) in programs.items()}, args.n, 2)
    rows, last = [], np.zeros(3)
    for name, (_, operations, moved) in programs.items():
        until = np.array([np.median(seconds[name]), operations, moved])
        spent, done, moved = until - last
        rate = 1 / max(spent, 1e-9)
        rows.append({"phase": name, "ms": 1e3 * spent, "GFLOP": done / 1e9, "GB": moved / 1e9,
                     "GFLOP/s": done * rate / 1e9, "GB/s": moved * rate / 1e9,
                     "% of matmul": 100 * done * rate / ceilings["flops_per_s"],
                     "% of copy": 100 * moved * rate / ceilings["bytes_per_s"],
                     "until here": measure.spread(1e3 * seconds[name])})
        last = until
    print(f"limits: matmul {ceilings['flops_per_s'] / 1e9:.0f} GFLOP/s, "
          f"copy {ceilings['bytes_per_s'] / 1e9:.1f} GB/s (read and write counted)")
    measure.finish(args, rows, ceilings=ceilings)


def limits(n: int) -> dict[str, float]:
    """The rates of this device's fastest float32 matrix product and fastest copy."""
    best_flops = 0.0
    product = jax.jit(jnp.matmul)
    for size in (256, 512, 1024, 2048):
        a = jnp.ones((size, size))
        seconds = measure.in_turns({"x": lambda a=a: product(a, a).block_until_ready()}, n, 2)["x"]
        best_flops = max(best_flops, 2 * size**3 / float(np.median(seconds)))
    x = jnp.ones(2**26)  # 256 MiB, more than any cache
    copy = jax.jit(lambda x: x + 1)
    seconds = measure.in_turns({"x": lambda: copy(x).block_until_ready()}, n, 2)["x"]
    return {"flops_per_s": best_flops, "bytes_per_s": 2 * x.nbytes / float(np.median(seconds))}


def phases(work: Workload) -> dict[str, tuple[Callable[[], None], float, float]]:
    """Programs that each add a phase, with their FLOPs and bytes."""
    recipe, model = work.recipe(), work.model
    state = init_state(model, recipe.optimizer, model.init(jax.random.key(0)))
    rows, layout = jnp.arange(work.batch), workload.layout_for(1)
    states = jax.tree.map(lambda x: x[None], state)

    def loss(variables, images, rows, norms):
        with contextlib.nullcontext() if norms else without_norms():
            outputs, _ = model.module.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.abs(outputs - work.resident.labels[rows]).mean()

    def inputs(state, rows):
        return preprocess(work.resident.images[rows], "unit")

    def forward(state, rows):
        return loss(state.variables, work.resident.images[rows], rows, False)

    def input_gradients(state, rows):
        images = work.resident.images[rows].astype(jnp.float32)
        return jax.grad(loss, 1)(state.variables, images, rows, False)

    def weight_gradients(state, rows, norms=False):
        def of_params(params, images):
            return loss({**state.variables, "params": params}, images, rows, norms)

        images = work.resident.images[rows].astype(jnp.float32)
        return jax.grad(of_params, (0, 1))(state.variables["params"], images)

    def normalised(state, rows):
        return weight_gradients(state, rows, True)

    def step(state, rows):
        batch = Batch(work.resident.images[rows], work.resident.labels[rows], rows,
                      jnp.zeros(len(rows), bool), jnp.ones(len(rows)), jnp.int32(0))
        return recipe.step(jax.random.key(0), state, batch, jnp.float32(1e-3))[0]

    found = {}
    for name, fun in (("input", inputs), ("forward", forward),
                      ("input gradients", input_gradients), ("weight gradients", weight_gradients),
                      ("normalisation", normalised), ("optimiser", step)):
        program = layout.vmap_jit(fun, (0, None))
        program.compile(states, rows)
        found[name] = (lambda p=program: jax.block_until_ready(p(states, rows)),
                       flops.count(fun, state, rows),
                       float(program.compiled.cost_analysis().get("bytes accessed", 0.0)))
    return found


@contextlib.contextmanager
def without_norms() -> Iterator[None]:
    """Networks traced inside leave out the batch norms."""
    with mock.patch.object(resnet._Layers, "norm", lambda self, name, train: lambda x: x):
        yield


if __name__ == "__main__":
    main()
