import logging

import numpy as np
import pytest
from toy import members, recipe, settings

from unlearn_jax.books import Books


def row(**changes):
    """A member's epoch as the devices report it."""
    return dict(running=True, epoch=1, best=True, steps=3, train_loss=4.0, validation_loss=2.5,
                failed_step=-1, done=False) | changes


def books(**changes):
    return Books(recipe(**changes), members())


def test_an_epoch_is_entered_with_its_counts_and_rate():
    b = books(epochs=2, optimizer_settings=settings(schedule="cosine", learning_rate=0.4))
    np.testing.assert_array_equal(b.total_steps, [6, 6, 4])  # of 24, 17 and 9 samples by eight
    b.epoch = 1
    b.record(0, row(), 24)
    b.record(0, row(steps=6, epoch=2, validation_loss=2.0, done=True), 24)
    np.testing.assert_array_equal(b.images, [48, 0, 0])
    np.testing.assert_array_equal(b.steps, [6, 0, 0])
    np.testing.assert_array_equal(b.done, [True, False, False])
    np.testing.assert_array_equal(b.last_loss, [2.0, np.nan, np.nan])
    assert [r["images"] for r in b.history] == [24, 48]
    # half of the way down a cosine, and its end
    assert [r["learning_rate"] for r in b.history] == pytest.approx([0.2, 0.0], abs=1e-6)


def test_who_does_not_run_has_no_history_and_who_fails_is_named_once(caplog):
    b = books()
    b.epoch = 1
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            b.record(1, row(running=False, done=True, failed_step=2, steps=2), 17)
    assert caplog.text.count("seed 1, forget set set-1 met a loss") == 1
    assert "step 2 (epoch 1)" in caplog.text
    np.testing.assert_array_equal(b.failed, [False, True, False])
    assert b.history == [] and b.images[1] == 0 and b.steps[1] == 2


def test_part_of_a_population_takes_over_its_part_of_the_books():
    whole = books()
    whole.epoch, whole.seconds = 1, 10.0
    for m, walked in enumerate((24, 17, 9)):
        whole.record(m, row(validation_loss=float(m)), walked)
    part = Books(recipe(), [members()[2], members()[0]])
    mine, share = part.take_over(whole.metadata())
    assert mine == [2, 0] and share == pytest.approx(33 / 50)
    assert part.epoch == 1 and part.seconds == pytest.approx(6.6)
    np.testing.assert_array_equal(part.images, [9, 24])
    np.testing.assert_array_equal(part.last_loss, [2.0, 0.0])
    assert {r["seed"] for r in part.history} == {0, 2}
