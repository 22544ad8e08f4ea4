"""The differences of two models by layer: distances of their weights.

The sums are in float64, on the host: two models that started from the same weights differ by
little, and float32 loses small differences in sums of large squares.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

Tree = Any


def layer_distances(evaluated: Tree, reference: Tree) -> dict[str, np.ndarray]:
    """L2 distance `[M]` between the weights of two models, for each layer.

    The arrays of a layer share a path: kernel and bias of `stem/conv` are one vector.

    Args:
      evaluated, reference: variables with a leading member axis, as nested dicts; of the same
        structure and shapes.

    Raises:
      ValueError: trees that differ in structure or shapes, or without a member axis.
    """
    squares: dict[str, np.ndarray] = {}
    for path, a, b in _pairs(evaluated, reference):
        if a.shape != b.shape:
            raise ValueError(f"{path} has shape {a.shape} and in the reference {b.shape}; they "
                             "must be the same")
        layer = path.rpartition("/")[0] or path
        square = np.array([_square_distance(x, y) for x, y in zip(a, b)])
        squares[layer] = squares.get(layer, 0) + square
    return {layer: np.sqrt(square) for layer, square in squares.items()}


def independent_distances(models: Tree) -> dict[str, np.ndarray]:
    """Mean L2 distance `[M]` of each model's weights from those of the other M - 1, by layer.

    Models of different seeds start from different weights, and their channels have different
    orders. So this is the distance of two models that share only their task (and, with
    `model.pretrained`, the weights that all of them start from). NaN with M = 1.

    The weights of each pair are subtracted: |a|² + |b|² - 2ab would be a small difference of large
    numbers.

    Args:
      models: variables with a leading member axis, as for `layer_distances`.

    Raises:
      ValueError: a leaf without a member axis.
    """
    squares: dict[str, np.ndarray] = {}
    for path, a, _ in _pairs(models, models):
        layer = path.rpartition("/")[0] or path
        square = squares.setdefault(layer, np.zeros((len(a), len(a))))
        for i in range(len(a)):
            for j in range(i):
                square[i, j] += _square_distance(a[i], a[j])
    found = {}
    for layer, square in squares.items():
        count = len(square)
        apart = np.sqrt(square + square.T)
        found[layer] = apart.sum(1) / (count - 1) if count > 1 else np.full(count, np.nan)
    return found


def _square_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of squared differences of two arrays of one shape, in float64."""
    difference = np.subtract(a, b, dtype=np.float64).ravel()
    return float(difference @ difference)


def _pairs(evaluated: Tree, reference: Tree) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(path, array, array of the reference) for each leaf, on the host."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (evaluated, reference)]
    if structures[0] != structures[1]:
        raise ValueError("the trees must have the same structure, not "
                         f"{structures[0]} and {structures[1]}")
    leaves = jax.tree_util.tree_leaves_with_path(evaluated)
    for (path, a), b in zip(leaves, jax.tree.leaves(reference), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        a, b = np.asarray(a), np.asarray(b)
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError(f"{name} has no member axis")
        yield name, a, b
