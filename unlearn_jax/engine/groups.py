"""The members of each call: who is together, and who moves when others have stopped."""

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
      inputs: of the steps, `[G, ...]`.
      validation: `[G, T, B]` batches of their validation sets.
      carry: on the devices, `[G, ...]`.
    """

    members: np.ndarray
    inputs: Inputs
    validation: np.ndarray
    carry: Carry

    @property
    def slots(self) -> np.ndarray:
        """Where each of the members stands, once."""
        return np.unique(self.members, return_index=True)[1]


def joined(groups: Sequence[Group], part: Callable[[Carry], Any]) -> Any:
    """Part of the carry of all members of these groups, in their order, on the host, copied."""
    _, first = np.unique(np.concatenate([g.members for g in groups]), return_index=True)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[first],
                        *[arrays.fetch(part(g.carry)) for g in groups])


def regrouped(groups: Sequence[np.ndarray], done_M: np.ndarray) -> dict[int, np.ndarray]:
    """Where those who still run would fit into fewer groups: the groups that change.

    Args:
      groups: the members `[G]` of each group.
      done_M: who has stopped.

    Returns:
      By group, its new members `[G]`: first the groups of those who run, then those of the others,
      whose states are kept there. Empty where no group would be saved.
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
