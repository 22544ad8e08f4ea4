"""The content of a GPU's training program, without a GPU:  python -m benchmarks.gpu_program

Compiles the engine's training step (`Programs.step`) for a GPU that a file describes
(`benchmarks/h200.json`; `--device` takes another) and reads the compiled program. Needs
requirements-gpu.txt, but no driver and no GPU. Nothing runs, and only the compiler is timed.

Figures are per step of one member: kernels by kind, convolutions by the type they compute in,
bytes that kernels read and write, operations of convolutions and matrix products, and the copies
and transposes inside the loop over steps. `temp MB` is temporary memory per member; `outside MB` is
the traffic of a whole call outside the loop, for all members. `graphs` are the CUDA graphs that a
call launches, and `other launches` the commands beside them. `images/s bound` is the rate at the
device's ceilings: each kernel takes the longest of the times for its bytes, its operations and a
launch; kernels run one after the other, and no cache keeps data between kernels.
"""

import argparse
import collections
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hlo, measure
from benchmarks.described import (
    H200,
    Device,
    compile_for_gpu,
    described_mesh,
    launches,
    load_device,
)
from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident
from unlearn_jax.engine import memory
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.programs import Programs
from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member
from unlearn_jax.models import DEPTHS, STEMS, Model, build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.stages import workdir
from unlearn_jax.train import Inputs, init_carry, make_loss, make_train_step

# network: default (pixels, batch, stem), for an ImageNet network and a small one
_USUAL = {"resnet50": (224, 32, "imagenet")}
_SMALL = (32, 64, "small")
_IMAGES = 20_000  # resident images; their number changes no kernel


def main() -> None:
    """Prints the table; see `--help`."""
    args = _arguments()
    jax.config.update("jax_platforms", "cpu")  # an existing GPU is not used
    device = load_device(args.device)
    rows = []
    with described_mesh(device) as mesh:
        for members in args.members:
            layout = Layout(mesh, members, args.steps, cuda_graphs=args.graphs)
            programs, arguments = shaped_programs(*training(args), layout)
            row, text = describe(programs, arguments, device)
            rows.append({"network": args.network, "members": members, "pixels": args.pixels,
                         "batch": args.batch, "dtype": args.dtype, **row})
            if args.text:
                args.text.mkdir(parents=True, exist_ok=True)
                (args.text / f"{args.network}_{members}.hlo").write_text(text)
    measure.print_table([_printed(row) for row in rows])
    versions = workdir.versions()
    print(f"{device.name}, described; width {args.width}, {args.stem} stem, {args.steps} steps a "
          f"call; jax {versions['jax']}, jaxlib {versions['jaxlib']}")
    if args.json:
        settings = {key: str(value) if isinstance(value, Path) else value
                    for key, value in vars(args).items() if key not in ("json", "text")}
        args.json.write_text(json.dumps(
            {"device": device.name, "versions": versions, "settings": settings,
             "ceilings": {"bytes_per_s": device.bytes_per_s, "flops_per_s": device.flops_per_s,
                          "launch_s": device.launch_s}, "rows": rows}, indent=1) + "\n")


def training(args: argparse.Namespace) -> tuple[Recipe, Model]:
    """The training set by the flags."""
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name=args.network, stem=args.stem, width=args.width, dtype=args.dtype)
    model = build_model(cfg, args.pixels, 0)
    settings = OptimizerSettings(args.optimizer, 1e-3, "constant", 0.25, 0.0, 0.9)
    optimizer, loss = make_optimizer(settings), make_loss("mae", 40.0)
    return Recipe("benchmark", make_train_step(model, optimizer, loss), optimizer, settings, loss,
                  epochs=10, batch_size=args.batch, eval_batch_size=4 * args.batch,
                  keep="best"), model


def shaped_programs(recipe: Recipe, model: Model, layout: Layout,
                    context: Any = None) -> tuple[Programs, tuple]:
    """The programs of a recipe and the shapes that `step` is called with; nothing is allocated.

    Args:
      recipe, model, layout: the population's; a call takes `layout.steps_per_dispatch` steps.
      context: shapes of the method's context for one member.
    """
    rows = np.arange(recipe.batch_size * layout.steps_per_dispatch, dtype=np.int32)
    members = [Member(seed, "", rows, rows, rows[:0]) for seed in range(layout.members_per_device)]
    programs = Programs(recipe, model, DescribedFeed(layout, model.image_size), layout, members)

    def of_one(variables):
        zero = jnp.zeros((), jnp.int32)
        return init_carry(recipe.optimizer, variables, recipe.keep == "best"), Inputs(
            jax.random.key(0), jnp.zeros(()), zero, zero, jnp.zeros(_IMAGES, bool), context)

    carry, inputs = jax.eval_shape(jax.vmap(of_one), jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), model.shapes()))
    return programs, programs.step_arguments(carry, inputs)


class DescribedFeed(Feed):
    """A feed of images on a described device: shapes in place of arrays."""

    def __init__(self, layout: Layout, image_size: int):
        self.layout = layout
        where = jax.sharding.NamedSharding(layout.mesh, jax.sharding.PartitionSpec())
        self.data = self.resident = Resident(
            jax.ShapeDtypeStruct((_IMAGES, image_size, image_size, 3), np.uint8, sharding=where),
            jax.ShapeDtypeStruct((_IMAGES,), np.float32, sharding=where))


def describe(programs: Programs, arguments: tuple, device: Device) -> tuple[dict[str, Any], str]:
    """The figures of a compiled training step, as a row of the JSON file, and the program's text.

    Args:
      programs, arguments: from `shaped_programs`.
      device: holds the ceilings.
    """
    began = time.monotonic()
    compiled, sequence = compile_for_gpu(programs.step.lower(*arguments))
    seconds = time.monotonic() - began
    found, text = compiled.memory_analysis(), compiled.as_text()
    graphs, others = launches(sequence)
    size, steps = programs.size, programs.chunk
    donated = found.alias_size_in_bytes >= memory.tree_bytes(arguments[0])
    return {**figures(hlo.kernels(text), size * steps, programs.recipe.batch_size, device),
            "temp_mb_per_member": found.temp_size_in_bytes / size / 1e6, "donated": donated,
            "graphs": graphs, "other_launches": others, "compile_s": seconds}, text


def figures(kernels: list[hlo.Kernel], member_steps: int, batch: int,
            device: Device) -> dict[str, Any]:
    """The figures of a program's kernels, per step of one member.

    Args:
      kernels: kernels of a call.
      member_steps: members times steps of a call.
      batch: images per member and step.
      device: holds the ceilings.
    """
    inner = [k for k in kernels if k.in_loop] or kernels
    by_kind = collections.Counter({kind: 0.0 for kind in hlo.KINDS})
    by_dtype: collections.Counter[str] = collections.Counter()
    seconds = 0.0
    for k in kernels:
        by_kind[k.kind] += k.times / member_steps
        if k.kind == "convolution":
            by_dtype[k.dtype] += k.times / member_steps
        peak = device.flops_per_s.get(k.dtype, device.flops_per_s["f32"])
        seconds += k.times * max((k.read + k.written) / device.bytes_per_s, k.flops / peak,
                                 device.launch_s)

    def moved(some: list[hlo.Kernel]) -> float:
        return sum(k.times * (k.read + k.written) for k in some) / 1e6

    return {
        "kernels": sum(by_kind.values()), "kernels_by_kind": dict(by_kind),
        "convolutions": by_kind["convolution"], "convolutions_by_dtype": dict(by_dtype),
        "float32_convolutions": by_dtype["f32"], "megabytes": moved(kernels) / member_steps,
        "gflop": sum(k.times * k.flops for k in kernels) / member_steps / 1e9,
        "copies_in_loop": sum(k.times for k in inner if k.kind == "copy") / member_steps,
        "transposes_in_loop": sum(k.times for k in inner
                                  if k.kind == "transpose") / member_steps,
        "megabytes_outside_loop": moved([k for k in kernels if not k.in_loop]),
        "images_per_s_bound": member_steps * batch / seconds}


def _printed(row: dict[str, Any]) -> dict[str, Any]:
    kinds = ", ".join(f"{value:.3g} {kind}" for kind, value in row["kernels_by_kind"].items()
                      if value >= 0.005)
    types = ", ".join(f"{value:.3g} {dtype}"
                      for dtype, value in row["convolutions_by_dtype"].items())
    return {"network": f"{row['network']}, {row['pixels']} px, batch {row['batch']}",
            "members": row["members"], "kernels": row["kernels"], "of them": kinds,
            "convolutions": types, "MB": f"{row['megabytes']:.0f}", "GFLOP": row["gflop"],
            "temp MB": row["temp_mb_per_member"], "donated": row["donated"],
            "copies in loop": row["copies_in_loop"],
            "transposes in loop": row["transposes_in_loop"],
            "outside MB": f"{row['megabytes_outside_loop']:.0f}", "graphs": row["graphs"],
            "other launches": row["other_launches"], "compile s": row["compile_s"],
            "images/s bound": f"{row['images_per_s_bound']:.0f}"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=DEPTHS, default="resnet18")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8, 16],
                        help="in a call, a table row each")
    parser.add_argument("--batch", type=int, help="images of a member and step (resnet50: "
                        f"{_USUAL['resnet50'][1]}, others {_SMALL[1]})")
    parser.add_argument("--pixels", type=int, help="image size (resnet50: "
                        f"{_USUAL['resnet50'][0]}, others {_SMALL[0]})")
    parser.add_argument("--stem", choices=STEMS, help="(resnet50: imagenet, others small)")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--steps", type=int, default=32, help="in a call")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True,
                        help="as config.parallel.cuda_graphs")
    parser.add_argument("--device", type=Path, default=H200, help="a file like h200.json")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--text", type=Path, help="also write the compiled programs here")
    args = parser.parse_args()
    pixels, batch, stem = _USUAL.get(args.network, _SMALL)
    args.pixels, args.batch = args.pixels or pixels, args.batch or batch
    args.stem = args.stem or stem
    for name in ("members", "batch", "pixels", "width", "steps"):
        if np.min(getattr(args, name)) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    return args


if __name__ == "__main__":
    main()
