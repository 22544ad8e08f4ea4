import threading

import numpy as np
import pytest
from toy import layout, resident, streamed

from unlearn_jax.engine import batches as feed_module
from unlearn_jax.engine.batches import Feed, Queue

IMAGES = np.asarray(resident().images)
ROWS_GTB = np.random.default_rng(0).integers(-40, 40, (3, 6, 4)).astype(np.int32)


def shown(rows):
    """The images of rows, padding included."""
    return IMAGES[np.where(rows < 0, ~rows, rows)]


@pytest.mark.parametrize("size", [1, 2, 6])
def test_batches_come_in_order_and_whole(size):
    calls = list(Feed(layout(), streamed())(ROWS_GTB, size))
    assert len(calls) == 6 // size
    for call, batches in enumerate(calls):
        rows = ROWS_GTB[:, call * size:(call + 1) * size]
        np.testing.assert_array_equal(batches.rows, rows)
        np.testing.assert_array_equal(batches.images, shown(rows))


def test_resident_images_are_not_sent():
    feed = Feed(layout(), resident())
    assert all(batches.images is None for batches in feed(ROWS_GTB))
    assert feed.resident.images.shape == IMAGES.shape
    assert Feed(layout(), streamed()).resident.images is None


@pytest.mark.parametrize("where, shard", [(dict(members=3), (1, 2, 4)),
                                          (dict(members=1, batch=4), (3, 2, 1))])
@pytest.mark.parametrize("data", [resident, streamed])
def test_shapes_are_those_of_the_batches_and_lie_where_they_lie(where, shard, data):
    feed = Feed(layout(**where), data())
    batches, shapes = next(feed(ROWS_GTB, 2)), feed.shapes(3, 2, 4)
    assert batches.rows.addressable_shards[0].data.shape == shard
    for array, shape in ((batches.rows, shapes.rows), (batches.images, shapes.images)):
        assert (array is None) == (shape is None)
        if array is not None:
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
            assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)
            assert array.addressable_shards[0].data.shape[:3] == shard


def test_the_host_reads_ahead_but_not_far():
    feed, read = Feed(layout(), streamed()), threading.Semaphore(0)
    send, sent = feed._send, []

    def counted(rows):
        sent.append(rows)
        read.release()
        return send(rows)

    feed._send = counted
    batches = feed(ROWS_GTB)
    next(batches)
    for _ in range(3):  # the call at hand and two ahead, by the threads' own doing
        assert read.acquire(timeout=10)
    assert len(sent) == 3
    next(batches)
    assert read.acquire(timeout=10) and len(sent) == 4
    batches.close()


def test_an_error_of_a_thread_is_the_callers():
    rows = ROWS_GTB.copy()
    rows[0, 0, 0] = 40  # one beyond the last image
    with pytest.raises(IndexError):
        next(Feed(layout(), streamed())(rows))


def test_no_thread_outlives_its_batches():
    before = threading.active_count()
    for stop_early in (False, True):
        batches = Feed(layout(), streamed())(ROWS_GTB)
        next(batches)
        batches.close() if stop_early else list(batches)
        assert threading.active_count() == before


def test_a_call_takes_no_more_images_than_hide_it(monkeypatch):
    monkeypatch.setattr(feed_module, "_CALL_BYTES", 5 * 8 * 12)  # images of 12 bytes
    assert Feed(layout(), streamed()).most_batches(8, 9) == 5
    assert Feed(layout(), streamed()).most_batches(1000, 9) == 1
    assert Feed(layout(), resident()).most_batches(1000, 9) == 9


def test_a_queue_waits_for_all_but_the_last_calls():
    queue = Queue()
    for call in range(5):
        queue.add(resident().labels)
        assert queue.finished == max(0, call - 1)
