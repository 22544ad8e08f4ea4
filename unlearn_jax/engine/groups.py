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
    """Regroups the members if those that still run fit into fewer groups.

    Args:
      groups: for each group the numbers `[G]` of the members that it holds.
      done_M: `[M]` bool, True for members that have stopped or failed.

    Returns:
      For each group that changes, by its number, the members `[G]` that it holds afterwards.
      Running members fill the first of these groups. The last ones hold stopped members alone and
      need no more training. Empty if as many groups as before would have to train.
    """
    size = len(groups[0])
    running = [np.unique(members[~done_M[members]]) for members in groups]
    loose = [g for g, alive in enumerate(running) if 0 < len(alive) < size]
    alive = np.concatenate([running[g] for g in loose] or [np.zeros(0, int)])
    if -(-len(alive) // size) == len(loose):
        return {}
    held = np.concatenate([groups[g] for g in loose])
    order = np.concatenate([alive, np.setdiff1d(held, alive)])
    slots = np.minimum(np.arange(len(loose) * size), len(order) - 1)
    return dict(zip(loose, order[slots].reshape(-1, size)))
