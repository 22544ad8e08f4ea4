"""Moves arrays to the devices of one or several processes, and back to the host.

Every process has the same whole arrays on its host, before `put` and after `fetch`.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from unlearn_jax.system import processes


def put(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Puts arrays onto the devices of a sharding, which may belong to several processes.

    Args:
      tree: whole arrays, the same in every process; each process puts the part of its own devices.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: _spread(x, sharding), tree)


def fetch(tree: Any) -> Any:
    """Returns the whole arrays of a tree on the host in every process; all must take part."""
    if processes.count() == 1:
        return jax.device_get(tree)
    spread = [x for x in jax.tree.leaves(tree) if _is_spread(x)]
    if spread:
        # Early processes wait here, where a wait may be long, and not inside a collective.
        jax.block_until_ready(spread)
        processes.wait("an exchange of arrays")
    return jax.tree.map(_whole, tree)


def _is_spread(x: Any) -> bool:
    """Whether an array is divided over processes, so that none has all of it."""
    return isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)


def _whole(x: Any) -> Any:
    if _is_spread(x):
        return multihost_utils.process_allgather(x, tiled=True)  # leaf by leaf: little memory
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        x = x.addressable_data(0)
    return jax.device_get(x)


def _spread(x: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_spread(jax.random.key_data(x), sharding))
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    if isinstance(x, jax.Array) and sharding.is_fully_replicated and x.is_fully_addressable:
        # A device that already has the array, such as all images, keeps its copy.
        return jax.make_array_from_single_device_arrays(
            x.shape, sharding, [jax.device_put(x, d) for d in sharding.addressable_devices])
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
