"""From rows to what a program takes: rows alone, or rows with images that the host reads ahead.

The order of samples is the engine's; what is left to a loader is to have the images of the next
calls on the devices in time. Two threads do: NumPy copies and reads without the interpreter lock.
"""

import collections
import concurrent.futures
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from unlearn_jax.data.resident import Batches, Resident, Streamed
from unlearn_jax.engine.layout import Layout

_THREADS = 2
_AHEAD = 2  # calls whose images are on their way while the program is given one
_CALL_BYTES = 2**28  # of images in one call: enough to hide the call, and few beside a model
_QUEUED = 2  # calls that may wait for the devices


class Feed:
    """Batches for the programs of a layout.

    Args:
      layout: devices.
      data: images on the device, or on the host.

    Attributes:
      data: the same, on all devices of the layout.
      resident: the argument that every program takes: labels, and images unless they are sent.
    """

    def __init__(self, layout: Layout, data: Resident | Streamed):
        self.layout = layout
        self.data: Resident | Streamed = data
        if isinstance(data, Streamed):
            self.resident: Resident = layout.put_shared(Resident(None, data.labels))
        else:
            self.data = self.resident = layout.put_shared(data)

    def most_batches(self, samples: int, wanted: int) -> int:
        """How many of the `wanted` batches, each of so many samples, one call may take."""
        if isinstance(self.data, Streamed):
            return min(wanted, max(1, _CALL_BYTES // (samples * self.data.images[:1].nbytes)))
        return wanted

    def __call__(self, rows_GTB: np.ndarray, size: int = 1) -> Iterator[Batches]:
        """The batches on the devices, `size` of each member at a time: `[G, size, B, ...]`.

        Args:
          rows_GTB: T batches of each member of a group; `size` divides T.
          size: batches of a call.
        """
        calls = (rows_GTB[:, t:t + size] for t in range(0, rows_GTB.shape[1], size))
        if not isinstance(self.data, Streamed):
            yield from map(self._send, calls)
            return
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            ahead: collections.deque[concurrent.futures.Future[Batches]] = collections.deque()
            for rows_GKB in calls:
                ahead.append(pool.submit(self._send, rows_GKB))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def shapes(self, members: int, size: int, batch_size: int) -> Batches:
        """What a call takes, without the arrays."""

        def shape(*more: int, dtype: type) -> Any:  # stands for an array
            return jax.ShapeDtypeStruct((members, size, batch_size, *more), dtype,
                                        sharding=self.layout.of_batches)

        if isinstance(self.data, Streamed):
            return Batches(shape(dtype=np.int32),
                           shape(*self.data.images.shape[1:], dtype=np.uint8))
        return Batches(shape(dtype=np.int32))

    def waiting_bytes(self, shapes: Batches) -> int:
        """Bytes on each device of the calls that wait there while one runs, of these shapes."""
        one = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
        # One more is in the threads' hands, or in the caller's.
        return (_AHEAD + _QUEUED + 1) * one // self.layout.mesh.size

    def _send(self, rows_GKB: np.ndarray) -> Batches:
        rows = self.layout.put_batches(rows_GKB)
        if not isinstance(self.data, Streamed):
            return Batches(rows)
        data = self.data

        def read(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None, "every part of the array has its place"
            return data.read(rows_GKB[index[:3]])

        # Each part by itself: of several processes each reads what its own devices take.
        return Batches(rows, jax.make_array_from_callback(
            (*rows_GKB.shape, *data.images.shape[1:]), self.layout.of_batches, read))


class Queue:
    """Keeps the host from running away from the devices, and the devices from idling.

    A call that waits for the devices holds its images there.

    Attributes:
      finished: how many calls are known to have ended.
    """

    def __init__(self) -> None:
        self.finished = 0
        self._pending: collections.deque[jax.Array] = collections.deque()

    def add(self, result: jax.Array) -> None:
        """Takes a result of a call (one that is donated to no other) and waits for an older one."""
        self._pending.append(result)
        if len(self._pending) > _QUEUED:
            jax.block_until_ready(self._pending.popleft())
            self.finished += 1
