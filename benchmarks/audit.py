"""Models per hour for audits that need hundreds:  python -m benchmarks.audit --members 64

Likelihood-ratio attacks and the 2023 challenge's score train hundreds of small models. Each
model takes `steps` steps of `batch` images; compilation is separate (`start_s`), because it happens
once. `--torch` adds PyTorch, one model after the other (needs requirements-bench.txt).
"""

import time

import jax

from benchmarks import measure, workload


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[64], width=8, steps=20, n=3)
    parser.add_argument("--torch", action="store_true", help="also measure PyTorch, eager")
    args = parser.parse_args()
    rows = []
    for members in args.members:
        work = workload.make_workload(args, members)
        began = time.perf_counter()
        run = workload.engine_run(work, workload.layout_for(members))
        facts = {"ours": {"start_s": time.perf_counter() - began}}

        def ours(run=run) -> None:
            run.train_epoch()
            jax.block_until_ready([group.carry for group in run.groups])

        runs = {"ours": ours}
        if args.torch:
            from benchmarks.versus_torch import check_twins, torch_steps
            device = "cuda" if jax.default_backend() == "gpu" else "cpu"
            check_twins(work, device)
            runs["torch-eager"] = torch_steps(work, device, "float32", False)
        seconds = measure.in_turns(runs, args.n, warmup=1)
        rows += [{"impl": impl, "members": members,
                  "models_per_hour": measure.spread(members * 3600 / seconds[impl]),
                  "images_per_s": measure.spread(work.images / seconds[impl]),
                  **facts.get(impl, {})} for impl in runs]
    measure.finish(args, rows, packages=("torch",) if args.torch else ())


if __name__ == "__main__":
    main()
