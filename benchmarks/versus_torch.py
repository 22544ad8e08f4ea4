"""Images per second beside PyTorch:  python -m benchmarks.versus_torch --members 1 8

Both use the same network, weights, batches, optimiser and steps: M members in our engine, and one
model after the other in PyTorch (eager, channels_last; on a GPU also bfloat16 autocast and
torch.compile). Outputs and gradients of both are compared first. Needs requirements-bench.txt.
"""

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import traverse_util

from benchmarks import measure, workload
from benchmarks.torch_resnet import to_torch_axes, torch_twin
from benchmarks.workload import Workload


def main() -> None:
    """Prints the table; see `--help`."""
    parser = measure.arguments(__doc__, members=[1, 8])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of our arithmetic; bfloat16 turns autocast on in PyTorch")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    args = parser.parse_args()
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    check_twins(workload.make_workload(args, 1), device)
    rows, ratios = [], {}
    for members in args.members:
        work = workload.make_workload(args, members)
        run = workload.engine_run(work, workload.layout_for(members))

        def ours(run=run) -> None:
            run.train_epoch()
            jax.block_until_ready([group.carry for group in run.groups])

        runs = {"ours": ours, "torch-eager": torch_steps(work, device, args.dtype, False)}
        if args.compile:
            runs["torch-compiled"] = torch_steps(work, device, args.dtype, True)
        speeds = {name: work.images / seconds
                  for name, seconds in measure.in_turns(runs, args.n, warmup=2).items()}
        best = max((name for name in speeds if name != "ours"),
                   key=lambda name: np.median(speeds[name]))
        ratios[str(members)] = measure.spread(speeds["ours"] / speeds[best])
        rows += [{"impl": name, "members": members, "images_per_s": measure.spread(speed),
                  "ours / this": measure.spread(speeds["ours"] / speed)}
                 for name, speed in speeds.items()]
    measure.finish(args, rows, packages=("torch",), ratio=ratios)


def torch_steps(work: Workload, device: str, dtype: str, compiled: bool) -> Callable[[], None]:
    """`steps` steps of Adam for each of M models, one model after the other."""
    images, labels = (torch.from_numpy(np.array(x)).to(device)
                      for x in (work.resident.images, work.resident.labels))
    nets = [torch_twin(work.model, work.model.init(jax.random.key(m))).to(device)
            for m in range(work.members)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=work.learning_rate,
                                   fused=device == "cuda") for net in nets]
    forward = [torch.compile(net) if compiled else net for net in nets]

    def run() -> None:
        for net, optimizer in zip(forward, optimizers):
            for k in range(work.steps):
                batch = slice(k * work.batch, (k + 1) * work.batch)
                optimizer.zero_grad(set_to_none=True)
                with autocast(device, dtype):
                    outputs = net(images[batch])
                loss = (outputs - labels[batch]).abs().mean() / 40.0
                loss.backward()
                optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def autocast(device: str, dtype: str):
    """PyTorch's mixed precision, if our network computes in bfloat16."""
    return torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" \
        else contextlib.nullcontext()


def check_twins(work: Workload, device: str) -> None:
    """Checks that both compute the same outputs and gradients on one batch.

    Raises:
      AssertionError: names the difference; the comparison is then void.
    """
    model = work.model
    variables = model.init(jax.random.key(0))
    images, labels = work.resident.images[:work.batch], work.resident.labels[:work.batch]

    def objective(params):
        outputs, _ = model.apply({**variables, "params": params}, images, train=True)
        return jnp.abs(outputs - labels).mean() / 40.0, outputs

    grads, outputs = jax.jit(jax.grad(objective, has_aux=True))(variables["params"])
    net = torch_twin(model, variables).to(device)
    theirs = net(torch.from_numpy(np.array(images)).to(device))
    ((theirs - torch.from_numpy(np.array(labels)).to(device)).abs().mean() / 40.0).backward()
    loose = model.module.dtype == "bfloat16" or device == "cuda"
    np.testing.assert_allclose(theirs.detach().cpu(), outputs, rtol=3e-2 if loose else 1e-4,
                               err_msg="outputs")
    for path, grad in traverse_util.flatten_dict(grads, sep="/").items():
        module, leaf = path.rsplit("/", 1)
        found = net.get_submodule(module.replace("/", "."))
        found = (found.bias if leaf == "bias" else found.weight).grad.cpu().numpy()
        mine = to_torch_axes(grad)
        distance = np.linalg.norm(found - mine) / max(np.linalg.norm(mine), 1e-8)
        # A rounding error that flips one ReLU moves a gradient by 1 %; a real difference by 100 %.
        assert distance < (0.2 if loose else 0.05), f"gradient of {path}: {distance:.2g} apart"


if __name__ == "__main__":
    main()
