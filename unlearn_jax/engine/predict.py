"""Outputs of all members on samples: the link between training and metrics."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.resident import Batches, Resident, Streamed
from unlearn_jax.engine.batches import Feed, Queue
from unlearn_jax.engine.layout import Layout, Program
from unlearn_jax.engine.memory import call_bytes, fit_members_per_call, halve_on_oom, tree_bytes
from unlearn_jax.members import in_batches, stack_batches
from unlearn_jax.models import Model, Variables
from unlearn_jax.system import arrays
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import Loss, decode_rows, find_images

T = TypeVar("T")


class Predictor:
    """A program from models and samples to arrays, for as many members per call as have room.

    The first call finds this number. Later calls neither try again what did not fit nor compile
    again.

    Args:
      fun: `(variables, resident, batches [1, B], *shared) -> tree` of one member.
      layout: the first to be tried.
      name: name of the work, for messages.
      shared: number of arguments that all members read.
      lasting: as for `Layout.vmap_jit`.

    Attributes:
      layout: the layout that had room.
    """

    def __init__(self, fun: Callable[..., Any], layout: Layout, name: str, shared: int = 0,
                 lasting: bool = False):
        self.layout, self.name = layout, name
        self._program = layout.vmap_jit(fun, (0, None, 0) + (None,) * shared, lasting=lasting)
        self._spent, self._fitted = 0.0, False

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return self._spent + self._program.compile_seconds

    def over_groups(self, variables_M: Variables, feed: Feed, batch_size: int,
                    work: Callable[[np.ndarray, Callable[[Batches], Any]], T],
                    *shared: Any) -> list[T]:
        """Yields the result of `work` for each group of members.

        Args:
          variables_M: `[M, ...]`.
          feed: the data.
          batch_size: samples per member and call, the same each time.
          work: takes the members of a group and a function from batches `[G, 1, B]` to the tree
            `[G, ...]` on the devices; it begins again if a call runs out of memory.
          shared: the arguments that all members read; their shapes are the same each time.

        Raises:
          InputError: not even one member fits into the device's memory.
        """
        members = jax.tree.leaves(variables_M)[0].shape[0]

        def fit(here: Layout) -> Layout:
            return fit_members_per_call(here, members, self.name, lambda tried: self._needs(
                tried, variables_M, feed, batch_size, shared))

        def call(variables: Variables, batches: Batches) -> Any:
            return self._program(variables, feed.resident, batches, *shared)

        def every(here: Layout) -> list[T]:
            self._adopt(here)
            return [work(group, functools.partial(call, variables))
                    for group, variables in here.over_groups(variables_M, members)]

        if not self._fitted:
            halve_on_oom(fit, self.layout, self.name, batch_size)
            self._fitted = True
        return halve_on_oom(every, self.layout, self.name, batch_size)

    def _adopt(self, layout: Layout) -> None:
        """Takes another layout, whose program is not yet compiled."""
        if layout is not self.layout:
            self._spent += self._program.compile_seconds
            self.layout, self._program = layout, self._program.again()

    def _needs(self, layout: Layout, variables_M: Variables, feed: Feed, batch_size: int,
               shared: tuple) -> int:
        self._adopt(layout)
        size = layout.groups(1).shape[1]
        batches = feed.shapes(size, 1, batch_size)
        self._program.compile(layout.shapes_of_members(variables_M, size), feed.resident, batches,
                              *shared)
        return (call_bytes(self._program) - tree_bytes(feed.resident)
                + feed.waiting_bytes(batches))


def make_predictor(model: Model, layout: Layout) -> Predictor:
    """A predictor of the models' outputs `[M, B]` or `[M, B, C]`."""

    return Predictor(_outputs(model), layout, "prediction", lasting=True)


@made_once
def _outputs(model: Model) -> Callable[[Variables, Resident, Batches], jax.Array]:
    def outputs(variables: Variables, resident: Resident, batches: Batches) -> jax.Array:
        values, _ = model.apply(variables, find_images(resident, batches[0]), train=False)
        return values

    return outputs


def predict(predictor: Predictor, variables_M: Variables, resident: Resident | Streamed,
            rows: Sequence[np.ndarray], batch_size: int) -> list[np.ndarray]:
    """Outputs of each member on its own samples.

    Args:
      predictor: from `make_predictor`.
      variables_M: `[M, ...]`.
      resident: images; `Feed.data` has them on all devices of the layout already.
      rows: for each member, resident rows `[n_m]`.
      batch_size: samples per member and call, the same for all that the predictor predicts.

    Returns:
      For each member, `[n_m]` label units or logits `[n_m, C]`, float32.

    Raises:
      ValueError: the member counts differ, or there is nothing to predict.
      InputError: not even one member fits into the device's memory.
    """
    members = jax.tree.leaves(variables_M)[0].shape[0]
    if members != len(rows):
        raise ValueError(f"variables of {members} members, rows of {len(rows)}")
    if not any(len(r) for r in rows):
        raise ValueError("no member has a sample to predict")
    batches = [in_batches(r, batch_size) for r in rows]
    feed = Feed(predictor.layout, resident)

    def work(group: np.ndarray, run: Callable[[Batches], jax.Array]) -> np.ndarray:
        queue, calls = Queue(), []
        for call in feed(stack_batches([batches[m] for m in group])):
            calls.append(run(call))
            queue.add(calls[-1])
        outputs_GTB = np.stack(arrays.fetch(calls), axis=1)
        return outputs_GTB.reshape(len(group), -1, *outputs_GTB.shape[3:])

    groups = predictor.over_groups(variables_M, feed, batch_size, work)
    # The last group repeats the last member.
    return [outputs[:len(r)] for r, outputs in zip(rows, itertools.chain(*groups))]


def make_validator(model: Model, loss: Loss, layout: Layout) -> Program:
    """The program `(sums_M, variables_M, resident, batches [M, 1, B]) -> sums_M`.

    The sums are (loss, samples).
    """
    return layout.vmap_jit(_added_loss(model, loss), in_axes=(0, 0, None, 0), lasting=True)


@made_once
def _added_loss(model: Model, loss: Loss) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def add(sums, variables: Variables, resident: Resident, batches: Batches):
        rows, weights = decode_rows(batches.rows[0])
        outputs, _ = model.apply(variables, find_images(resident, batches[0]), train=False)
        losses = loss.per_sample(outputs, resident.labels[rows])
        return sums[0] + jnp.sum(losses * weights), sums[1] + jnp.sum(weights)

    return add
