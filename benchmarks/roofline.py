"""How far from the machine's limits each phase of a step is:  python -m benchmarks.roofline

Limits are measured here: the fastest of some matrix products, and a large copy. Phases are
programs that hold one thing more each (input, forward, input gradients, weight gradients,
optimiser); a phase's time is the difference of medians. FLOPs are those of the program as
written, before the compiler changes it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, workload
from benchmarks.workload import Workload
from unlearn_jax.models import preprocess
from unlearn_jax.train import Batch, init_state


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[1], n=10)
    args = parser.parse_args()
    work = workload.make_workload(args, 1)
    ceilings = limits(args.n)
    programs = phases(work)
    seconds = measure.in_turns({name: run for name, (run, _) in programs.items()}, args.n, 2)
    rows, last, last_flops = [], 0.0, 0.0
    for name, (_, flops) in programs.items():
        total = float(np.median(seconds[name]))
        spent, done = total - last, flops - last_flops
        rows.append({"phase": name, "ms": 1e3 * spent, "GFLOP": done / 1e9,
                     "GFLOP/s": done / 1e9 / max(spent, 1e-9),
                     "% of matmul": 100 * done / max(spent, 1e-9) / ceilings["flops_per_s"],
                     "until here": measure.spread(1e3 * seconds[name])})
        last, last_flops = total, flops
    print(f"limits: matmul {ceilings['flops_per_s'] / 1e9:.0f} GFLOP/s, "
          f"copy {ceilings['bytes_per_s'] / 1e9:.1f} GB/s (read and write counted)")
    measure.finish(args, rows, ceilings=ceilings)


def limits(n: int) -> dict[str, float]:
    """The fastest float32 matrix product and the fastest copy that this device does."""
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


def phases(work: Workload) -> dict[str, tuple[Callable[[], None], float]]:
    """Programs that grow by a phase each, and the FLOPs of each."""
    recipe, model = work.recipe(), work.model
    state = init_state(model, recipe.optimizer, model.init(jax.random.key(0)))
    params, statistics = state.variables["params"], state.variables["batch_stats"]
    rows = jnp.arange(work.batch)

    def loss(params, images, rows):
        outputs, _ = model.apply({"params": params, "batch_stats": statistics}, images, train=True)
        return jnp.abs(outputs - work.resident.labels[rows]).mean()

    def inputs(params, rows):
        return preprocess(work.resident.images[rows], "unit")

    def forward(params, rows):
        return loss(params, work.resident.images[rows], rows)

    def input_gradients(params, rows):
        images = work.resident.images[rows].astype(jnp.float32)
        return jax.grad(loss, 1)(params, images, rows)

    def all_gradients(params, rows):
        images = work.resident.images[rows].astype(jnp.float32)
        return jax.grad(loss, (0, 1))(params, images, rows)

    def step(params, rows):
        batch = Batch(work.resident.images[rows], work.resident.labels[rows], rows,
                      jnp.zeros(len(rows), bool), jnp.ones(len(rows)), jnp.int32(0))
        return recipe.step(jax.random.key(0), state, batch, jnp.float32(1e-3))[0]

    found = {}
    for name, fun in (("input", inputs), ("forward", forward),
                      ("input gradients", input_gradients), ("weight gradients", all_gradients),
                      ("optimiser", step)):
        lowered = jax.jit(fun).lower(params, rows)
        compiled = lowered.compile()
        found[name] = (lambda c=compiled: jax.block_until_ready(c(params, rows)),
                       float(lowered.cost_analysis().get("flops", 0.0)))
    return found


if __name__ == "__main__":
    main()
