"""Metrics over [M, N] arrays against NumPy:  python -m benchmarks.metrics

First come the study's metrics of M models in one compiled pass (`errors.study_metrics`), and a
plain NumPy loop over the models with the same results. Then come bounds of the pass: its
exponentials, one per model, sample and alpha, and one reading of its arrays, both measured alone.
Last comes the forgetting quality of the 2023 challenge, with and without its interval.

CPU time is the sum over all threads: on a machine with other work it is more reliable than wall
time.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from unlearn_jax.metrics import challenge, errors

ALPHAS = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
WITHIN = 5.0


def main() -> None:
    """Prints the table; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in (("members", 64), ("samples", 100_000), ("models", 512),
                          ("forget", 500), ("replicates", 100), ("n", 10)):
        parser.add_argument(f"--{name}", type=int, default=default, help="workload")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    arrays = rng.gamma(2, 4, (4, args.members, args.samples)).astype(np.float32)
    wall, cpu = in_turns(study_runs(arrays), args.n, warmup=2)
    unlearned, retrained = rng.normal(size=(2, args.models, args.forget)).astype(np.float32)
    for name, replicates, n in (("forgetting quality", 0, args.n),
                                (f"with {args.replicates} replicates", args.replicates, 1)):
        more = in_turns({name: lambda r=replicates: challenge.forgetting_quality(
            unlearned, retrained, replicates=r)}, n, warmup=1)
        wall, cpu = wall | more[0], cpu | more[1]
    rows = [{"what": what, "ms": measure.spread(1e3 * wall[what]),
             "CPU ms": measure.spread(1e3 * cpu[what])} for what in wall]
    loop, ours, *limits = (float(np.median(cpu[what])) for what in (
        "NumPy loop", "one pass", "its exponentials", "one reading"))
    cores = os.cpu_count() or 1
    bound, reached = loop / (max(limits) / cores), loop / (ours / cores)
    print(f"{args.members} members, {args.samples} samples, {len(ALPHAS)} alphas on {cores} cores, "
          f"by CPU time: the pass can be {reached:.1f} times as fast as the NumPy loop; its "
          f"exponentials and its reading alone would be {bound:.1f} times")
    measure.finish(args, rows, bound=bound, reached=reached)


def in_turns(runs: dict[str, Callable], n: int, warmup: int) -> tuple[dict, dict]:
    """Wall seconds and CPU seconds `[n]` of each run, by name."""
    cpu: dict[str, list[float]] = {name: [] for name in runs}

    def timed(name: str) -> None:
        began = time.process_time()
        runs[name]()
        cpu[name].append(time.process_time() - began)

    wall = measure.in_turns({name: lambda name=name: timed(name) for name in runs}, n, warmup)
    return wall, {name: np.array(values[warmup:]) for name, values in cpu.items()}


def study_runs(arrays: np.ndarray) -> dict:
    """The timed runs, on errors `[4, M, N]`: test and forget, of M_R and the evaluated models."""
    on_device = [jnp.asarray(x) for x in arrays]
    alphas = jnp.array(ALPHAS)
    block = jnp.asarray(arrays[0][:, :max(1, errors.RUNNING // (len(ALPHAS) * arrays.shape[1]))])
    passes = -(-arrays.shape[2] // block.shape[1])

    @jax.jit
    def exponentials(x_Mk):
        def add(sums, scale):
            return sums + jnp.exp(-x_Mk[None] * (scale / alphas)[:, None, None]), None
        zeros = jnp.zeros((len(ALPHAS), *x_Mk.shape))
        return jax.lax.scan(add, zeros, jnp.arange(1.0, passes + 1), unroll=4)[0]

    # In place: new memory from the system would cost more than the copy itself.
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    copied = [jnp.asarray(arrays[:2])]

    def copy() -> None:
        copied[0] = add_one(copied[0]).block_until_ready()

    return {
        "NumPy loop": lambda: numpy_loop(*arrays),
        "one pass": lambda: jax.block_until_ready(
            errors.study_metrics(*on_device, alphas, WITHIN)),
        "its exponentials": lambda: exponentials(block).block_until_ready(),
        # Half of the arrays, read and written.
        "one reading": copy,
    }


def numpy_loop(reference_test_MN: np.ndarray, evaluated_test_MN: np.ndarray,
               reference_MN: np.ndarray, evaluated_MN: np.ndarray) -> errors.StudyMetrics:
    """The study's metrics in plain NumPy, one model at a time."""
    found = []
    for ideal, test, reference, forget in zip(reference_test_MN, evaluated_test_MN, reference_MN,
                                              evaluated_MN):
        distance = np.abs(reference - forget)
        forgetting = np.array([np.exp(-distance / alpha).mean() for alpha in ALPHAS])
        utility = ideal.mean() / test.mean()
        found.append((test.mean(), forget.mean(), (test <= WITHIN).mean(),
                      (forget <= WITHIN).mean(), utility, forgetting, utility * forgetting))
    return errors.StudyMetrics(*(np.stack(x, axis=-1) for x in zip(*found)))


if __name__ == "__main__":
    main()
