"""States times samples to outputs: the seam between training and metrics."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax import spread
from unlearn_jax.data.resident import Batches, Resident, Streamed
from unlearn_jax.feed import Feed, Queue
from unlearn_jax.layout import Layout, Program
from unlearn_jax.memory import in_smaller_groups
from unlearn_jax.models import Model, Variables
from unlearn_jax.train import Loss, decode_rows, find_images


def in_batches(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows `[n]` as `[T, B]` int32.

    The last batch is filled up with the first rows again, written as their bitwise
    complement: a negative entry has weight zero, but batch norm sees a full and varied batch.
    """
    count = -(-len(rows) // batch_size)
    filler = ~np.resize(rows, count * batch_size - len(rows))
    return np.concatenate([rows, filler]).astype(np.int32).reshape(count, batch_size)


def stack_batches(batches_TB: Sequence[np.ndarray], multiple: int = 1) -> np.ndarray:
    """Members' batches `[T_m, B]` as `[M, T, B]`, shorter ones filled up with padding.

    Args:
      batches_TB: of each member.
      multiple: T, which is at least one, is rounded up to a multiple of this.
    """
    longest = max(1, *(len(b) for b in batches_TB))
    steps = -(-longest // multiple) * multiple
    stacked = np.full((len(batches_TB), steps, batches_TB[0].shape[1]), -1, np.int32)
    for slot, batches in zip(stacked, batches_TB):
        slot[:len(batches)] = batches
    return stacked


def make_predictor(model: Model, layout: Layout) -> Program:
    """The program `(variables_M, resident, batches [M, 1, B]) -> outputs [M, B]` or `[M, B, C]`."""

    def outputs(variables: Variables, resident: Resident, batches: Batches) -> jax.Array:
        values, _ = model.apply(variables, find_images(resident, batches[0]), train=False)
        return values

    return layout.over_members(outputs, in_axes=(0, None, 0))


def predict(predictor: Program, layout: Layout, variables_M: Variables,
            resident: Resident | Streamed, rows: Sequence[np.ndarray],
            batch_size: int) -> list[np.ndarray]:
    """Outputs of each member on its own samples.

    Args:
      predictor: from `make_predictor`.
      layout: the layout it was made with.
      variables_M: `[M, ...]`.
      resident: images; `Feed.data` has them on all devices of the layout already.
      rows: for each member, resident rows `[n_m]`.
      batch_size: samples per member and call.

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
    feed = Feed(layout, resident)

    def work(here: Layout) -> list[np.ndarray]:
        program, outputs = predictor if here is layout else predictor.again(), []
        for group in here.groups(members):
            variables = here.put_members(jax.tree.map(lambda x, g=group: x[g], variables_M))
            queue, calls = Queue(), []
            for call in feed(stack_batches([batches[m] for m in group])):
                calls.append(program(variables, feed.resident, call))
                queue.add(calls[-1])
            outputs_GTB = np.stack(spread.fetch(calls), axis=1)
            outputs += list(outputs_GTB.reshape(len(group), -1, *outputs_GTB.shape[3:]))
        return outputs

    outputs = in_smaller_groups(work, layout, "prediction", batch_size)
    return [outputs[m][:len(r)] for m, r in enumerate(rows)]


def make_validator(model: Model, loss: Loss, layout: Layout) -> Program:
    """The program `(sums_M, variables_M, resident, batches [M, 1, B]) -> sums_M`.

    The sums are (loss, samples).
    """

    def add(sums, variables: Variables, resident: Resident, batches: Batches):
        rows, weights = decode_rows(batches.rows[0])
        outputs, _ = model.apply(variables, find_images(resident, batches[0]), train=False)
        losses = loss.per_sample(outputs, resident.labels[rows])
        return sums[0] + jnp.sum(losses * weights), sums[1] + jnp.sum(weights)

    return layout.over_members(add, in_axes=(0, 0, None, 0))
