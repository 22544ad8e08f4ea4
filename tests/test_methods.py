import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import LinearModel, layout, members, recipe, resident, settings, tree_close

from unlearn_jax.config import default_config
from unlearn_jax.engine import train_population
from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.methods.rnd import draw_labels
from unlearn_jax.optim import make_optimizer
from unlearn_jax.population import init_members
from unlearn_jax.train import Batch, init_state, make_loss

AGES = LabelSpace(20, 60, 0, 60.0)
CLASSES = LabelSpace(0, 1, 4, 1.0)


def section(**changes):
    c = default_config().unlearn
    with c.unlocked():
        c.update(changes)
    return c


MODEL = LinearModel()
STEPPED = [name for name, method in METHODS.items() if method.make_step]


def setting(model=MODEL, space=AGES, optimizer_settings=None, **changes):
    return Setting(model, make_optimizer(optimizer_settings or settings()), make_loss("mse", 10.0),
                   space, section(**changes), None, default_config().train)


def batch(forget, epoch=0, count=8):
    data = resident()
    rows = jnp.arange(count)
    return Batch(data.images[rows], data.labels[rows], rows, jnp.array(forget),
                 jnp.ones(count), jnp.int32(epoch))


def state(model=MODEL):
    return init_state(model, make_optimizer(settings()), model.init(jax.random.key(1)))


def draws(truth, epochs=200, space=AGES, rows=None, **changes):
    rows = jnp.arange(len(truth)) if rows is None else rows
    cfg = section(**changes)
    keys = jax.random.split(jax.random.key(0), epochs)
    return np.asarray(jax.jit(jax.vmap(
        lambda k: draw_labels(k, rows, jnp.asarray(truth), space, cfg)))(keys))


@pytest.mark.parametrize("name", STEPPED)
def test_one_step_of_every_method_is_finite_and_moves(name):
    before = state()
    after, loss = jax.jit(METHODS[name].make_step(setting()))(
        jax.random.key(0), before, batch([True] * 4 + [False] * 4), 0.05)
    assert np.isfinite(loss) and after.step == 1
    assert (after.variables["params"]["w"] != before.variables["params"]["w"]).any()


@pytest.mark.parametrize("name", STEPPED)
def test_frozen_weights_stay_under_every_method(name):
    model = LinearModel(frozen=True)
    step = METHODS[name].make_step(setting(model, optimizer_settings=settings(weight_decay=1.0)))
    after, _ = jax.jit(step)(jax.random.key(0), state(model), batch([True] * 8), 0.05)
    np.testing.assert_array_equal(after.variables["params"]["w"],
                                  state(model).variables["params"]["w"])


@pytest.mark.parametrize("name", STEPPED)
def test_methods_are_deterministic_in_their_key(name):
    step = jax.jit(METHODS[name].make_step(setting()))
    args = (state(), batch([True] * 8), 0.05)
    one, again = step(jax.random.key(3), *args), step(jax.random.key(3), *args)
    tree_close(one[0].variables, again[0].variables, rtol=0)


def test_where_methods_start_and_what_they_walk_over():
    found = {n: (METHODS[n].start, *(p.over for p in METHODS[n].passes(setting(), 0)))
             for n in ("retrain", "ft", "rnd")}
    assert found == {"retrain": ("initial", "retain"), "ft": ("original", "retain"),
                     "rnd": ("original", "all")}


def test_ft_and_retrain_do_the_plain_step():
    plain = recipe().step(jax.random.key(0), state(), batch([False] * 8), 0.05)
    for name in ("ft", "retrain"):
        other = METHODS[name].make_step(setting())(jax.random.key(0), state(),
                                                   batch([False] * 8), 0.05)
        tree_close(plain[0].variables, other[0].variables, rtol=1e-6)


def test_rnd_changes_nothing_for_the_retain_set():
    step = jax.jit(METHODS["rnd"].make_step(setting()))
    plain = jax.jit(METHODS["ft"].make_step(setting()))
    same = [step(jax.random.key(0), state(), batch([False] * 8), 0.05)[1],
            plain(jax.random.key(0), state(), batch([False] * 8), 0.05)[1]]
    np.testing.assert_allclose(*same, rtol=1e-6)
    other = step(jax.random.key(0), state(), batch([True] * 8), 0.05)[1]
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
