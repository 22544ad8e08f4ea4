"""Turns rows into a program's input: rows alone, or rows with images that the host reads ahead.

The engine decides the order of samples. A loader only has to bring the images of the next calls to
the devices in time. Two threads suffice: NumPy copies and reads without the interpreter lock.
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
_AHEAD = 2  # calls whose images are being read while another call is handed out
_CALL_BYTES = 2**28  # image bytes of a call: enough to hide its overhead, little beside a model
_QUEUED = 2  # calls that may wait for the devices


class Feed:
    """Batches for the programs of a layout.

    Args:
      layout: devices.
      data: images on the device, or on the host.

    Attributes:
      data: the argument `data`, on all devices of the layout.
      resident: the argument that every program takes: labels, and images unless they are sent.
    """

    def __init__(self, layout: Layout, data: Resident | Streamed):
        self.layout = layout
        self.data: Resident | Streamed = data
        if isinstance(data, Streamed):
            self.resident: Resident = layout.replicate(Resident(None, data.labels))
        else:
            self.data = self.resident = layout.replicate(data)

    def most_batches(self, samples: int, wanted: int) -> int:
        """How many of the `wanted` batches one call may take; each holds `samples` samples."""
        if isinstance(self.data, Streamed):
            return min(wanted, max(1, _CALL_BYTES // (samples * self.data.images[:1].nbytes)))
        return wanted

    def __call__(self, rows_GTB: np.ndarray, size: int = 1) -> Iterator[Batches]:
        """Yields the batches on the devices, `size` per member at a time: `[G, size, B, ...]`.

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
        """The shapes of a call's batches, without arrays."""

        def shape(*more: int, dtype: type) -> Any:  # describes an array
            return jax.ShapeDtypeStruct((members, size, batch_size, *more), dtype,
                                        sharding=self.layout.of_batches)

        if isinstance(self.data, Streamed):
            return Batches(shape(dtype=np.int32),
                           shape(*self.data.images.shape[1:], dtype=np.uint8))
        return Batches(shape(dtype=np.int32))

    def waiting_bytes(self, shapes: Batches) -> int:
        """Bytes on each device that waiting calls of these shapes take while another call runs."""
        one = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
        # The threads or the caller hold one more call.
        return (_AHEAD + _QUEUED + 1) * one // self.layout.mesh.size

    def _send(self, rows_GKB: np.ndarray) -> Batches:
        rows = self.layout.shard_batches(rows_GKB)
        if not isinstance(self.data, Streamed):
            return Batches(rows)
        data = self.data

        def read(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None, "every part of the array has its place"
            return data.read(rows_GKB[index[:3]])

        # Each part is read by itself: each process reads only the parts of its own devices.
        return Batches(rows, jax.make_array_from_callback(
            (*rows_GKB.shape, *data.images.shape[1:]), self.layout.of_batches, read))


class Queue:
    """Keeps the host from getting far ahead of the devices, and the devices from idling.

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
