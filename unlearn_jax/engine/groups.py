"""The members of each call: how they are grouped, and regrouped when some have stopped."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from unlearn_jax.system import arrays
from unlearn_jax.train import Carry, Inputs


@dataclasses.dataclass
class Group:
    """Members that one call of the program trains.

    Attributes:
      members: positions in the population, `[G]`; some may repeat, to fill the call.
      inputs: inputs of the steps, `[G, ...]`.
      validation: `[G, T, B]` batches of their validation sets.
      carry: state of the members, on the devices, `[G, ...]`.
    """

    members: np.ndarray
    inputs: Inputs
    validation: np.ndarray
    carry: Carry

    @property
    def slots(self) -> np.ndarray:
        """The position of each member in the call; a repeated member counts once."""
        return np.unique(self.members, return_index=True)[1]


def joined(groups: Sequence[Group], part: Callable[[Carry], Any]) -> Any:
    """A part of the carry of all members of these groups, in their order, copied to the host."""
    _, first = np.unique(np.concatenate([g.members for g in groups]), return_index=True)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[first],
                        *[arrays.fetch(part(g.carry)) for g in groups])


def regrouped(groups: Sequence[np.ndarray], done_M: np.ndarray) -> dict[int, np.ndarray]:
    """The groups to change, where the running members would fit into fewer groups.

    Args:
      groups: the members `[G]` of each group.
      done_M: bool, the members that have stopped.

    Returns:
      The new members `[G]` by group: first groups of running members, then groups that only keep
      the states of stopped members. Empty if no group would be saved.
    """
    size = len(groups[0])
    running = [np.unique(members[~done_M[members]]) for members in groups]
    loose = [g for g, alive in enumerate(running) if 0 < len(alive) < size]
    alive = np.concatenate([running[g] for g in loose] or [np.zeros(0, int)])
    if -(-len(alive) // size) == len(loose):
        return {}
    everybody = np.concatenate([groups[g] for g in loose])
    order = np.concatenate([alive, np.setdiff1d(everybody, alive)])
    slots = np.minimum(np.arange(len(loose) * size), len(order) - 1)
    return dict(zip(loose, order[slots].reshape(-1, size)))
