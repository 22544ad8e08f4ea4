"""layers.csv: how far every model's weights are from those of M_O and of M_R, by layer."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from unlearn_jax.metrics.layers import independent_distances, layer_distances
from unlearn_jax.stages.graph import RunContext, Stage
from unlearn_jax.storage import checkpoints

LAYERS = "layers.csv"
LAYER_COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", "to_original", "to_retrain",
                 "norm", "floor")
_PARTS = ("stem", "stage", "projection", "head", "output")  # from the images to the outputs
_PREFIX = "params/"


def write_layers(study: RunContext, original: Stage, retrained: Sequence[Stage],
                 unlearned: Sequence[Stage]) -> None:
    """Writes layers.csv: L2 distances of weights, without running statistics.

    `to_original` is the distance to the M_O that a model started from; for M_O and M_R, to the M_O
    of the same seed. `to_retrain` is the distance to the M_R of the same seed, `norm` the distance
    to zero, and `floor` the mean distance of M_R to the M_Rs of the other seeds. The values of a
    failed member are NaN. A run without M_R has neither `to_retrain` nor `floor`.
    """
    first = _weights(study, original)
    depth, rows = functools.partial(_depth, study.model.layers), []
    for forget_set in study.splits.forget_sets:
        retrain = next((s for s in retrained if s.forget_name == forget_set.name), None)
        reference = _weights(study, retrain) if retrain else {}
        floor = independent_distances(reference)
        if retrain and retrain.outside and len(retrain.parts["outside"]) == 1:  # one M_R
            floor = {layer: np.full_like(values, np.nan) for layer, values in floor.items()}
        for stage in (original, *([retrain] if retrain else []), *unlearned):
            if stage.forget_name not in ("", forget_set.name):
                continue
            mine = first if stage is original else \
                reference if stage is retrain else _weights(study, stage)
            zero = jax.tree.map(np.zeros_like, mine)
            before = {path: x[stage.started(study.seeds)] for path, x in first.items()}
            found = {"to_original": layer_distances(mine, before),
                     "norm": layer_distances(mine, zero)}
            if retrain:
                found |= {"to_retrain": layer_distances(mine, reference), "floor": floor}
            rows += [{"method": stage.name, "forget_set": forget_set.name,
                      "epochs": stage.epochs, "seed": seed, "layer": layer.removeprefix(_PREFIX),
                      **{column: float(of[layer][m]) for column, of in found.items()}}
                     for layer in sorted(found["norm"], key=depth)
                     for m, seed in enumerate(study.seeds)]
    columns = LAYER_COLUMNS if retrained else \
        tuple(c for c in LAYER_COLUMNS if c not in ("to_retrain", "floor"))
    study.run.write_table(LAYERS, rows, columns)


def _weights(study: RunContext, stage: Stage) -> dict[str, np.ndarray]:
    """Parameters `[M, ...]` by path."""
    path = stage.directory(study.store) / "checkpoint"
    metadata, leaves = checkpoints.describe(path)
    found = checkpoints.restore_leaves(path, [n for n in leaves if n.startswith(_PREFIX)])
    failed = np.array(metadata["failed"])
    if failed.any():
        for array in found.values():
            array[failed] = np.nan
    return found


def _depth(order: tuple[str, ...], layer: str) -> tuple[int, str]:
    name = layer.removeprefix(_PREFIX)
    if order:
        return order.index(name) if name in order else -1, name
    return next((i for i, part in enumerate(_PARTS) if name.startswith(part)), len(_PARTS)), name
