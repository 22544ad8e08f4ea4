import dataclasses
import logging

import numpy as np
import pytest
from toy import members, recipe, settings

from unlearn_jax.engine import history as history_module
from unlearn_jax.engine.history import History
from unlearn_jax.optim import rate_at


def row(**changes):
    """A member's epoch as the devices report it."""
    return dict(running=True, epoch=1, best=True, steps=3, train_loss=4.0, validation_loss=2.5,
                failed_step=-1, done=False) | changes


def history_of(**changes):
    return History(recipe(**changes), members())


def test_an_epoch_is_entered_with_its_counts_and_rate():
    b = history_of(epochs=2, optimizer_settings=settings(schedule="cosine", learning_rate=0.4))
    np.testing.assert_array_equal(b.total_steps, [6, 6, 4])  # of 24, 17 and 9 samples by eight
    b.epoch = 1
    b.record({0: (row(), 24)})
    b.record({0: (row(steps=6, epoch=2, validation_loss=2.0, done=True), 24)})
    np.testing.assert_array_equal(b.images, [48, 0, 0])
    np.testing.assert_array_equal(b.steps, [6, 0, 0])
    np.testing.assert_array_equal(b.done, [True, False, False])
    np.testing.assert_array_equal(b.last_loss, [2.0, np.nan, np.nan])
    assert [r["images"] for r in b.rows] == [24, 48]
    # half of the way down a cosine, and its end
    assert [r["learning_rate"] for r in b.rows] == pytest.approx([0.2, 0.0], abs=1e-6)


@pytest.mark.parametrize("schedule, warmup", [
    ("constant", 0.25), ("cosine", 0.25), ("onecycle", 0.3), ("onecycle", 0.0)])
def test_rates_of_all_members_are_those_of_each_to_the_bit(monkeypatch, schedule, warmup):
    chosen = settings(schedule=schedule, warmup=warmup, learning_rate=0.0123)
    many = [dataclasses.replace(m, learning_rate=None if i % 3 else 0.01 / (i + 1))
            for i, m in enumerate(members(np.arange(1, 24)))]
    b = History(recipe(epochs=50, optimizer_settings=chosen), many)
    asked = []
    monkeypatch.setattr(history_module, "rate_at", lambda *a: asked.append(a) or rate_at(*a))
    taken = [int(0.37 * (m + 1)) for m in range(len(many))]
    b.record({m: (row(steps=steps), 1) for m, steps in enumerate(taken)})
    for m, found in enumerate(b.rows):
        rate = many[m].learning_rate or 0.0123
        assert found["learning_rate"] == float(rate * rate_at(chosen, taken[m] / b.total_steps[m]))
    assert len(asked) == 1  # a call of the device


def test_who_does_not_run_has_no_history_and_who_fails_is_named_once(caplog):
    b = history_of()
    b.epoch = 1
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            b.record({1: (row(running=False, done=True, failed_step=2, steps=2), 17)})
    assert caplog.text.count("seed 1, forget set set-1 met a loss") == 1
    assert "step 2 (epoch 1)" in caplog.text
    np.testing.assert_array_equal(b.failed, [False, True, False])
    assert b.rows == [] and b.images[1] == 0 and b.steps[1] == 2


def test_part_of_a_population_takes_over_its_part_of_the_books():
    whole = history_of()
    whole.epoch, whole.seconds = 1, 10.0
    whole.record({m: (row(validation_loss=float(m)), walked)
                  for m, walked in enumerate((24, 17, 9))})
    part = History(recipe(), [members()[2], members()[0]])
    mine, share = part.take_over(whole.metadata())
    assert mine == [2, 0] and share == pytest.approx(33 / 50)
    assert part.epoch == 1 and part.seconds == pytest.approx(6.6)
    np.testing.assert_array_equal(part.images, [9, 24])
    np.testing.assert_array_equal(part.last_loss, [2.0, 0.0])
    assert {r["seed"] for r in part.rows} == {0, 2}
