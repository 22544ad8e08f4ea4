"""Leaves of a tree by path 'a/b/c', as models.py names parameters."""

from typing import Any

import jax
import numpy as np


def path_of(path: Any) -> str:
    """A path of `jax.tree_util` as 'a/b/c'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_path(tree_M: Any) -> dict[str, np.ndarray]:
    """A tree `[M, ...]` as `[M, n]` by path, for `Prepared.touched`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree_M)
    return {path_of(path): np.asarray(x).reshape(len(x), -1) for path, x in leaves}


def true_paths(tree: Any) -> set[str]:
    """The paths of the leaves that are true, for example of `Model.trainable`."""
    return {path_of(path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if leaf}
