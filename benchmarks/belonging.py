"""Rates of warnings about right and wrong weights:  python -m benchmarks.belonging

Small nets are trained on one kind of images: synthetic faces (age, a regression) or scikit-learn's
digits (ten classes). Their weights are then used as pretrained ones (`stages/belonging.py`), on
unseen images of the same kind and on images of the other kind. They are used as trained, and
wrongly, with one change that tensors do not show (pool, strides, preprocess). A cell gives the
number of nets, out of n, with a warning, and in brackets the number of warnings that name the exact
change. There should be no warning about right weights, on any images, and one about wrong weights.

The thresholds were chosen on the seeds from 0; `--first` takes others. All variants keep 0.9 of
their running statistics at a step here, so that few steps settle them like long training.
"""

import argparse
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, workload
from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.models import DEPTHS, VARIANTS, Model, Variables, build_model
from unlearn_jax.networks.pretrained import PREPROCESS_OF
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.stages.belonging import SAMPLES, alternatives, doubt_of
from unlearn_jax.system.cpu import divide_cores, keep_freed_memory
from unlearn_jax.train import make_loss, make_train_step

KINDS = ("faces", "digits")
POOL = 1700  # images of each kind; scikit-learn has 1,797 digits


@dataclasses.dataclass(frozen=True)
class Images:
    """A kind of images: uint8 `[POOL, H, W, 3]`, their labels, and the classes, 0 for ages."""

    images: np.ndarray
    labels: np.ndarray
    classes: int


def main() -> None:
    """Prints the table; see `--help`."""
    keep_freed_memory()
    divide_cores()
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=[*DEPTHS], default=["resnet10", "resnet50"],
                        help="networks, with the stem of published ones")
    parser.add_argument("--variant", nargs="+", choices=[*VARIANTS], default=[*VARIANTS],
                        help="each with the preprocess that belongs to it")
    parser.add_argument("--n", type=int, default=6, help="nets of each network, variant and kind")
    parser.add_argument("--first", type=int, default=100, help="seed of the first net")
    parser.add_argument("--width", type=int, default=8, help="of the nets")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--train", type=int, default=768, help="images that a net is trained on")
    parser.add_argument("--epochs", type=int, default=8, help="of training, batches of 32")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rows = []
    for network in args.network:
        for variant in args.variant:
            for kind in KINDS:
                rows += _rows(args, network, variant, kind)
                print(f"{network}, {variant}, {kind}: done", file=sys.stderr, flush=True)
    measure.finish(args, rows)


def _rows(args: argparse.Namespace, network: str, variant: str, kind: str) -> list[dict[str, Any]]:
    """A row for each kind of images that the nets are used on."""
    model, nets = trained(args, network, variant, kind)
    used = {"right": model} | {_changed(words): other
                               for words, other in alternatives(model).items()}
    rows = []
    for where in (kind, *(k for k in KINDS if k != kind)):
        cells = {}
        for changed, other in used.items():
            said = [doubt_of(other, variables, images) for variables, images in nets(where)]
            true = [f"network with {words}:" for words, m in alternatives(other).items()
                    if m == model]
            named = sum(any(words in text for words in true) for text in said)
            cells[changed] = f"{sum(map(bool, said))}" + (f" ({named})" if true else "")
        rows.append({"network": network, "variant": variant, "trained on": kind,
                     "used on": where} | cells)
    return rows


def trained(args: argparse.Namespace, network: str, variant: str, kind: str,
            ) -> tuple[Model, Callable[[str], Iterator[tuple[Variables, np.ndarray]]]]:
    """Trains `args.n` nets, each on a draw of its own.

    Returns:
      Their network; and a function that yields, for a kind of images, each net's variables and
      `SAMPLES` images that the net was not trained on.
    """
    kinds = {k: load(k, args.image_size) for k in KINDS}
    own, seeds = kinds[kind], range(args.first, args.first + args.n)
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name=network, variant=variant, stem="imagenet", width=args.width,
                   preprocess=PREPROCESS_OF[variant])
    model = build_model(cfg, args.image_size, own.classes)
    settling = dataclasses.replace(model.module.variant, norm_momentum=0.9)
    model = dataclasses.replace(model, module=model.module.clone(variant=settling))
    order = {seed: np.random.default_rng(seed).permutation(POOL).astype(np.int32)
             for seed in seeds}
    none = np.zeros(0, np.int32)
    members = [Member(seed, "", order[seed][SAMPLES:][:args.train], none, none) for seed in seeds]
    settings = OptimizerSettings("adam", 3e-3, "onecycle", 0.25, 0.0, 0.9)
    optimizer = make_optimizer(settings)
    loss = make_loss("cross_entropy", 1.0) if own.classes else make_loss("mae", cfg.output_scale)
    recipe = Recipe("belonging", make_train_step(model, optimizer, loss), optimizer, settings, loss,
                    epochs=args.epochs, batch_size=32, eval_batch_size=32, keep="last",
                    snapshots=(args.epochs,))
    layout = workload.layout_for(len(members))
    resident = Resident(jnp.asarray(own.images), jnp.asarray(own.labels))
    found = train_population(recipe, model, layout, resident, members,
                             init_members(model, layout, [*seeds]))
    variables = found.snapshots[args.epochs].variables

    def nets(where: str) -> Iterator[tuple[Variables, np.ndarray]]:
        for m, seed in enumerate(seeds):
            own_variables = jax.tree.map(lambda x, m=m: np.asarray(x[m]), variables)
            yield own_variables, kinds[where].images[order[seed][:SAMPLES]]

    return model, nets


@functools.cache
def load(kind: str, image_size: int) -> Images:
    """Loads faces with ages from 1 to 100, or digits with their ten classes."""
    if kind == "faces":
        faces = load_synthetic(POOL, image_size, 7, 2.0)
        return Images(faces.images, faces.labels, 0)
    cfg = default_config().data
    with cfg.unlocked():
        cfg.update(source="digits", task="classification", image_size=image_size)
    with tempfile.TemporaryDirectory() as folder:
        digits = data.load(cfg, Path(folder))
    return Images(digits.images[:POOL], digits.labels[:POOL].astype(np.int32), 10)


def _changed(words: str) -> str:
    """A change of the network by its name only, the same in both directions."""
    return " and ".join(part for part in ("strides", "pool") if part in words) or words


if __name__ == "__main__":
    main()
