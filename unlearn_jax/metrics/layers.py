"""Where in the network two models differ: distances of weights and likeness of features."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


@jax.jit
def layer_distances(evaluated: Tree, reference: Tree) -> dict[str, jax.Array]:
    """L2 distance `[M]` between the weights of two models, for each layer.

    A layer is what its arrays share a path with: kernel and bias of `stem/conv` are one vector.

    Args:
      evaluated, reference: variables with a leading member axis, as nested dicts; of the same
        structure and shapes.

    Raises:
      ValueError: trees that differ in structure or shapes, or without a member axis.
    """
    squares: dict[str, jax.Array] = {}
    for path, a, b in _pairs(evaluated, reference):
        if a.shape != b.shape:
            raise ValueError(f"{path} has shape {a.shape} and in the reference {b.shape}; they "
                             "must be the same")
        layer = path.rpartition("/")[0] or path
        square = jnp.sum((a - b)**2, axis=tuple(range(1, a.ndim)))
        squares[layer] = squares.get(layer, 0) + square
    return {layer: jnp.sqrt(square) for layer, square in squares.items()}


@jax.jit
def independent_distances(models: Tree) -> dict[str, jax.Array]:
    """Mean L2 distance `[M]` of each model's weights from those of the other M - 1, by layer.

    Models of different seeds begin with different weights and number their channels differently,
    so this is how far apart two are that have nothing but their task in common. NaN with M = 1.

    Args:
      models: variables with a leading member axis, as for `layer_distances`.

    Raises:
      ValueError: a leaf without a member axis.
    """
    squares: dict[str, jax.Array] = {}
    for path, a, _ in _pairs(models, models):
        layer = path.rpartition("/")[0] or path
        flat = a.reshape(len(a), -1)
        norms = jnp.sum(flat**2, axis=1)
        square = norms[:, None] + norms[None] - 2 * _product(flat, flat.T)
        squares[layer] = squares.get(layer, 0) + square
    found = {}
    for layer, square in squares.items():
        count = len(square)
        # A model's distance from itself is no more than what rounding leaves of it.
        apart = jnp.sqrt(jnp.maximum(square, 0)) * (1 - jnp.eye(count))
        found[layer] = apart.sum(1) / (count - 1) if count > 1 else jnp.full(count, jnp.nan)
    return found


@jax.jit
def linear_cka(evaluated: Tree, reference: Tree) -> dict[str, jax.Array]:
    """Linear CKA `[M]` between features of the same N samples, for each entry of the trees.

    1: the same up to rotation and scale. With fewer samples than features it tends to 1 for any
    two models, so N should be the larger. NaN where features do not vary.

    Args:
      evaluated, reference: features `[M, N, ...]`, as nested dicts of the same structure; the
        axes after N are taken for features and may differ between the two.

    Raises:
      ValueError: trees that differ in structure, in M or in N.

    Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited".
    """
    found = {}
    for path, a, b in _pairs(evaluated, reference):
        if min(a.ndim, b.ndim) < 2 or a.shape[:2] != b.shape[:2]:
            raise ValueError(f"features {path} have shape {a.shape} and in the reference "
                             f"{b.shape}; both must be [M, N, ...] of the same members and samples")
        found[path] = jax.vmap(_cka)(*(x.reshape(*x.shape[:2], -1) for x in (a, b)))
    return found


def _cka(a_ND: jax.Array, b_NE: jax.Array) -> jax.Array:
    a_ND, b_NE = a_ND - a_ND.mean(0)[None], b_NE - b_NE.mean(0)[None]
    # Both forms are the same number; the smaller matrices are the cheaper.
    if len(a_ND) < max(a_ND.shape[1], b_NE.shape[1]):
        a_NN, b_NN = _product(a_ND, a_ND.T), _product(b_NE, b_NE.T)
        return jnp.sum(a_NN * b_NN) / (jnp.linalg.norm(a_NN) * jnp.linalg.norm(b_NN))
    within = jnp.linalg.norm(_product(a_ND.T, a_ND)) * jnp.linalg.norm(_product(b_NE.T, b_NE))
    return jnp.sum(_product(a_ND.T, b_NE)**2) / within


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """In full precision on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _pairs(evaluated: Tree, reference: Tree):
    """(path, array, array of the reference) for each leaf."""
    if jax.tree.structure(evaluated) != jax.tree.structure(reference):
        raise ValueError(f"the trees must have the same structure, not "
                         f"{jax.tree.structure(evaluated)} and {jax.tree.structure(reference)}")
    leaves = jax.tree_util.tree_leaves_with_path(evaluated)
    for (path, a), b in zip(leaves, jax.tree.leaves(reference), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError(f"{name} has no member axis")
        yield name, a, b
