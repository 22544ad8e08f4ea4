import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_case import linear_batch, linear_setting, linear_state
from toy import LinearModel, layout, members, recipe, resident, settings

from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace
from unlearn_jax.methods.rnd import draw_labels

CLASSES = LabelSpace(0, 1, 4, 1.0)


def setting(**changes):
    return linear_setting("rnd", **changes)


def draws(truth, epochs=200, space=None, rows=None, exclude_true=False, **changes):
    rows = jnp.arange(len(truth)) if rows is None else rows
    cfg = setting(**changes).config
    keys = jax.random.split(jax.random.key(0), epochs)
    space = space or setting().labels
    return np.asarray(jax.jit(jax.vmap(
        lambda k: draw_labels(k, rows, jnp.asarray(truth), space, cfg, exclude_true)))(keys))


def test_rnd_changes_nothing_for_the_retain_set():
    step = jax.jit(METHODS["rnd"].make_step(setting()))
    plain = jax.jit(METHODS["ft"].make_step(linear_setting("ft")))
    same = [step(jax.random.key(0), linear_state(), linear_batch([False] * 8), 0.05)[1],
            plain(jax.random.key(0), linear_state(), linear_batch([False] * 8), 0.05)[1]]
    np.testing.assert_allclose(*same, rtol=1e-6)
    other = step(jax.random.key(0), linear_state(), linear_batch([True] * 8), 0.05)[1]
    assert abs(other - same[0]) > 1


def test_uniform_draws_cover_the_label_range_evenly():
    drawn = draws(np.full(50, 33.0, np.float32), labels="uniform")
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(np.unique(drawn), np.arange(20, 61))
    counts = np.bincount(drawn.astype(int).ravel(), minlength=61)[20:]
    assert counts.min() > 0.75 * drawn.size / 41  # expected 244 each, sd about 15


def test_offset_draws_are_the_true_label_moved_by_three_to_six():
    drawn = draws(np.full(50, 40.0, np.float32), labels="offset")
    np.testing.assert_array_equal(np.unique(drawn), [34, 35, 36, 37, 43, 44, 45, 46])
    assert abs((drawn > 40).mean() - 0.5) < 0.02


def test_offset_draws_are_clipped_to_the_label_range():
    drawn = draws(np.array([20.0, 60.0], np.float32), labels="offset")
    assert set(np.unique(drawn[:, 0])) == {20, 23, 24, 25, 26}
    assert set(np.unique(drawn[:, 1])) == {60, 57, 56, 55, 54}


def test_as_published_asks_for_labels_no_output_can_reach():
    # 25 / 60 plus or minus an offset, clipped to [20, 60], is 20: 20 x 60 years
    drawn = draws(np.full(5, 25.0, np.float32), labels="offset", label_units="as_published")
    np.testing.assert_array_equal(np.unique(drawn), [1200])
    uniform = draws(np.full(5, 25.0, np.float32), labels="uniform", label_units="as_published")
    assert uniform.min() == 1200 and uniform.max() == 3600


def test_draws_change_with_the_epoch_and_not_with_the_place_in_the_batch():
    truth = np.full(30, 33.0, np.float32)
    rows = jnp.arange(30)
    straight = draws(truth, epochs=2, rows=rows, labels="uniform")
    backward = draws(truth, epochs=2, rows=rows[::-1], labels="uniform")
    np.testing.assert_array_equal(straight[:, ::-1], backward)
    assert (straight[0] != straight[1]).any()


def test_classes_are_drawn_uniformly():
    drawn = draws(np.zeros(50, np.int32), space=CLASSES, labels="uniform")
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(np.unique(drawn), [0, 1, 2, 3])


def test_without_the_true_label_all_others_are_drawn_evenly():
    truth = np.repeat(np.arange(4, dtype=np.int32), 30)
    drawn = draws(truth, space=CLASSES, labels="uniform", exclude_true=True)
    assert drawn.dtype == np.int32 and (drawn != truth[None]).all()
    for label in range(4):
        counts = np.bincount(drawn[:, truth == label].ravel(), minlength=4)
        assert (np.delete(counts, label) > 1800).all()  # expected 2000 each, sd about 37
    ages = np.repeat(np.array([20.0, 33.4, 33.6, 60.0], np.float32), 20)
    drawn = draws(ages, labels="uniform", exclude_true=True)
    assert drawn.dtype == np.float32 and (drawn != np.round(ages)[None]).all()
    for age in np.unique(ages):
        left = np.delete(np.arange(20, 61), round(float(age)) - 20)
        np.testing.assert_array_equal(np.unique(drawn[:, ages == age]), left)


@pytest.mark.parametrize("changes", [dict(labels="offset"),
                                     dict(labels="uniform", label_units="as_published")])
def test_classes_have_no_offsets(changes):
    with pytest.raises(InputError, match="needs data.task='regression'"):
        METHODS["rnd"].check(setting(space=CLASSES, **changes))


def test_rnd_redraws_at_each_epoch_in_the_engine():
    """Two epochs over the same batch order differ only by their labels."""
    where = layout(count=1)
    chosen = members((16,))
    chosen[0] = dataclasses.replace(chosen[0], forget=np.arange(16))
    # the images are all the same: only the labels can make two epochs' losses differ
    data = dataclasses.replace(resident(), images=jnp.full((40, 2, 2, 3), 100, jnp.uint8))
    still = settings(learning_rate=0.0)
    r = recipe(optimizer_settings=still, step=METHODS["rnd"].make_step(
        setting(optimizer_settings=still)), batch_size=16, epochs=2)
    trained = train_population(r, LinearModel(), where, data, chosen,
                               init_members(LinearModel(), where, [0]))
    first, second = (row["train_loss"] for row in trained.history)
    assert abs(first - second) > 1e-3
