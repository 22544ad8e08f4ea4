import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import LinearModel, recipe, resident, settings

from unlearn_jax.data.resident import Batches, Resident
from unlearn_jax.system import target
from unlearn_jax.train import (
    Batch,
    Inputs,
    Loss,
    balanced_weights,
    decode_rows,
    end_epoch,
    find_batch,
    init_carry,
    init_state,
    make_loss,
    make_step,
    make_train_step,
    skip_inactive,
    weighted_mean,
)

KEY = jax.random.key(0)


def batch_of(rows, weights=None):
    data = resident()
    rows = jnp.array(rows)
    weights = jnp.ones(len(rows)) if weights is None else jnp.array(weights)
    return Batch(data.images[rows], data.labels[rows], rows, jnp.zeros(len(rows), bool),
                 weights, jnp.int32(0))


def inputs(rate=0.1):
    return Inputs(KEY, jnp.float32(rate), jnp.int32(100), jnp.int32(10),
                  jnp.zeros(40, bool))


def found(rows):
    """A batch as the engine makes it of rows; the member is to forget row 3."""
    return find_batch(resident(), Batches(jnp.array(rows)), jnp.arange(40) == 3, jnp.int32(2), 5)


def carry_of(recipe_, select=True):
    return init_carry(recipe_.optimizer, LinearModel().init(KEY), select)


def test_step_is_gradient_descent_on_the_weighted_mean():
    r = recipe(optimizer_settings=settings(momentum=0.0))
    state = init_state(LinearModel(), r.optimizer, LinearModel().init(KEY))
    batch = batch_of([0, 1, 2], [1.0, 1.0, 0.0])
    new, value = jax.jit(r.step)(KEY, state, batch, 0.1)
    x = np.asarray(batch.images[:2]).reshape(2, -1) / 255
    error = x @ np.asarray(state.variables["params"]["w"]) - np.asarray(batch.labels[:2])
    np.testing.assert_allclose(value, np.mean(error**2), rtol=1e-5)
    # the objective is the mean squared error over the unit, 10 squared
    np.testing.assert_allclose(new.variables["params"]["b"], -0.1 * np.mean(2 * error) / 100,
                               rtol=1e-5)
    assert new.step == 1
    assert new.variables["batch_stats"]["mean"] != 0


def test_frozen_parameters_stay_to_the_bit():
    r = recipe(LinearModel(frozen=True), settings(weight_decay=0.5))
    state = init_state(LinearModel(), r.optimizer, LinearModel().init(KEY))
    new, _ = jax.jit(r.step)(KEY, state, batch_of([0, 1]), 0.1)
    np.testing.assert_array_equal(new.variables["params"]["w"], state.variables["params"]["w"])
    assert new.variables["params"]["b"] != state.variables["params"]["b"]


@pytest.mark.parametrize("name, expected", [("mae", [1, 2]), ("mse", [1, 4])])
def test_regression_losses(name, expected):
    np.testing.assert_allclose(
        Loss(name, 1.0).per_sample(jnp.array([3.0, 5.0]), jnp.array([2.0, 7.0])), expected)


def test_cross_entropy():
    loss = make_loss("cross_entropy", 40.0)
    assert loss.unit == 1.0
    value = loss.per_sample(jnp.array([[0.0, np.log(3.0)]]), jnp.array([1]))
    np.testing.assert_allclose(value, -np.log(0.75), rtol=1e-6)


@pytest.mark.parametrize("name, outputs", [("mae", (3, 1)), ("mse", (4,)),
                                           ("cross_entropy", (2, 5))])
def test_losses_refuse_other_shapes(name, outputs):
    with pytest.raises(ValueError, match="do not fit"):
        Loss(name, 1.0).per_sample(jnp.zeros(outputs), jnp.zeros(3, jnp.int32))


def test_padding_rows_decode_to_weight_zero():
    rows, weights = decode_rows(jnp.array([5, ~3, ~0]))
    np.testing.assert_array_equal(rows, [5, 3, 0])
    np.testing.assert_array_equal(weights, [1, 0, 0])
    assert weighted_mean(jnp.ones(2), jnp.zeros(2)) == 0


def test_a_batch_has_all_that_is_known_of_its_samples():
    batch, data = found([3, 9, ~3, ~0]), resident()
    np.testing.assert_array_equal(batch.rows, [3, 9, 3, 0])
    np.testing.assert_array_equal(batch.weights, [1, 1, 0, 0])
    np.testing.assert_array_equal(batch.forget, [True, False, True, False])
    np.testing.assert_array_equal(batch.images, np.asarray(data.images)[[3, 9, 3, 0]])
    np.testing.assert_array_equal(batch.labels, np.asarray(data.labels)[[3, 9, 3, 0]])
    assert (int(batch.epoch), batch.kind) == (2, 5)


def test_images_that_the_host_sent_are_taken_as_they_are():
    sent = jnp.full((2, 2, 2, 3), 7, jnp.uint8)
    batch = find_batch(Resident(None, resident().labels), Batches(jnp.array([3, 9]), sent),
                       jnp.zeros(40, bool), jnp.int32(0))
    np.testing.assert_array_equal(batch.images, sent)
    np.testing.assert_array_equal(batch.labels, resident().labels[jnp.array([3, 9])])


def test_guarded_step_rests_after_the_members_last_batch():
    r = recipe()
    body = jax.jit(skip_inactive(r.step, r.settings))
    carry = carry_of(r)
    moved, _ = body(carry, inputs(), found([3] + [~2] * 7))
    rested, _ = body(carry, inputs(), found([~2] * 8))
    assert moved[0].step == 1 and moved[1].loss_steps == 1
    assert rested[0].step == 0 and rested[1].loss_steps == 0
    np.testing.assert_array_equal(rested[0].variables["params"]["w"],
                                  carry[0].variables["params"]["w"])


def test_a_step_that_is_not_finite_is_undone_and_freezes_the_member():
    r = recipe()
    body = jax.jit(skip_inactive(r.step, r.settings))
    carry = carry_of(r)
    failed, _ = body(carry, inputs(rate=np.inf), found(range(8)))
    assert failed[1].failed_step == 0 and not failed[1].running
    np.testing.assert_array_equal(failed[0].variables["params"]["w"],
                                  carry[0].variables["params"]["w"])
    later, _ = body(failed, inputs(), found(range(8)))
    assert later[0].step == 0


@pytest.fixture(params=["cpu", "gpu"])
def platform(request):
    """Steps are judged as on this platform."""
    with target.tracing_for(request.param):
        yield request.param


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_gradient_beyond_the_squares_of_float32_undoes_the_step_on_a_gpu(name):
    # The loss is 1e21 times smaller than what is minimised: it is finite, and so is the gradient.
    r = recipe(optimizer_settings=settings(name=name))
    step = make_train_step(LinearModel(), r.optimizer, Loss("mse", 1e-21))
    with target.tracing_for("gpu"):
        undone(skip_inactive(step, r.settings), r)


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("broken", ["gradient", "statistics", "value"])
def test_what_is_not_finite_undoes_the_step_wherever_it_is(platform, name, broken):
    r = recipe(optimizer_settings=settings(name=name))

    def objective(params, batch_stats, batch, key, context):
        bad = jnp.float32(jnp.nan)
        # the square root's derivative at zero is infinite, its value is not
        value = jnp.sqrt(0.0 * params["b"]) if broken == "gradient" else jnp.sum(params["w"])
        stats = {"mean": bad} if broken == "statistics" else batch_stats
        return value, bad if broken == "value" else jnp.float32(1), stats

    undone(skip_inactive(make_step(LinearModel(), r.optimizer, objective), r.settings), r)


def test_a_rate_that_is_not_finite_undoes_the_step(platform):
    r = recipe()
    undone(skip_inactive(r.step, r.settings), r, rate=np.inf)
    undone(skip_inactive(r.step, r.settings), r, rate=np.nan)


def test_weights_that_decay_has_blown_up_undo_the_step(platform):
    # a rate of 3 and a decay of 1 double a weight at every step, whatever the gradient
    r = recipe(optimizer_settings=settings(name="adam", weight_decay=1.0))

    def objective(params, batch_stats, batch, key, context):
        return 0.0 * jnp.sum(params["w"]), jnp.float32(1), batch_stats

    body = jax.jit(skip_inactive(make_step(LinearModel(), r.optimizer, objective), r.settings))
    carry = carry_of(r)
    for _ in range(140):  # 2**128 is more than float32 holds
        carry, _ = body(carry, inputs(rate=3.0), found(range(8)))
    assert 0 < carry[1].failed_step <= 130
    assert np.isfinite(carry[0].variables["params"]["w"]).all()


@pytest.mark.parametrize("transform, fine", [(optax.scale(1e20), False), (optax.clip(1.0), True)])
def test_an_optimiser_of_ones_own_is_judged_by_its_weights(platform, transform, fine):
    def objective(params, batch_stats, batch, key, context):
        return 1e25 * jnp.sum(params["w"]), jnp.float32(1), batch_stats

    r = dataclasses.replace(recipe(), optimizer=transform)
    body = skip_inactive(make_step(LinearModel(), transform, objective), r.settings)
    if not fine:
        undone(body, r)
        return
    moved, _ = jax.jit(body)(carry_of(r), inputs(), found(range(8)))
    assert moved[0].step == 1 and moved[1].failed_step == -1


def test_a_step_of_ones_own_is_judged_by_all_that_it_returns(platform):
    r = recipe()

    def blown(key, state, batch, learning_rate, context=None):
        new, loss = r.step(key, state, batch, learning_rate, context)
        params = jax.tree.map(lambda p: p * jnp.inf, new.variables["params"])
        return dataclasses.replace(new, variables={**new.variables, "params": params}), loss

    undone(skip_inactive(blown, r.settings), r)


def undone(guarded_step, recipe_, rate=0.1):
    """The step leaves the member as it was, and frozen."""
    carry = carry_of(recipe_)
    after, _ = jax.jit(guarded_step)(carry, inputs(rate), found(range(8)))
    assert after[1].failed_step == 0 and not after[1].running
    assert after[0].step == 0 and after[1].loss_steps == 0
    for old, new in zip(jax.tree.leaves(carry[0]), jax.tree.leaves(after[0])):
        np.testing.assert_array_equal(old, new)


def test_end_epoch_keeps_the_best_and_stops():
    r = recipe()
    close = jax.jit(end_epoch(patience=2, select=True))
    state, progress = carry_of(r)

    def with_b(value):
        params = {**state.variables["params"], "b": jnp.float32(value)}
        return dataclasses.replace(state, variables={**state.variables, "params": params})

    for b, loss, best, stopped in [(1, 5.0, 1, False), (2, 3.0, 2, False), (3, 4.0, 2, False),
                                   (4, 3.0, 2, True), (5, 1.0, 2, True)]:
        (_, progress), summary = close((with_b(b), progress), jnp.float32(loss))
        assert progress.best["params"]["b"] == best, b
        assert bool(progress.stopped) is stopped, b
    assert (int(progress.best_epoch), int(progress.epochs)) == (2, 4)
    assert float(progress.best_loss) == 3.0
    assert bool(summary["done"])


def test_without_patience_nobody_stops():
    r = recipe()
    close = jax.jit(end_epoch(patience=0, select=True))
    carry = carry_of(r)
    for loss in (1.0, 2.0, 3.0, 4.0):
        carry, summary = close(carry, jnp.float32(loss))
    assert not summary["done"] and int(carry[1].best_epoch) == 1


@pytest.mark.parametrize("select", [True, False])
def test_a_validation_loss_that_is_not_finite_is_a_failure_where_it_selects(select):
    close = jax.jit(end_epoch(patience=0, select=select))
    carry, _ = close(carry_of(recipe(), select), jnp.float32(2.0))
    carry, summary = close(carry, jnp.float32(np.nan))
    assert (carry[1].best is None) is not select
    assert (int(summary["failed_step"]) >= 0) is select
    assert bool(summary["done"]) is select
    assert float(carry[1].best_loss) == 2.0


def test_balanced_classes_count_alike():
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = balanced_weights(labels, 4)
    np.testing.assert_allclose(weights, [6 / 9, 2, 0, 1])
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)
    loss = make_loss("cross_entropy", 1.0, weights)
    plain = make_loss("cross_entropy", 1.0)
    logits = jax.random.normal(KEY, (6, 4))
    np.testing.assert_allclose(loss.per_sample(logits, jnp.asarray(labels)),
                               plain.per_sample(logits, jnp.asarray(labels))
                               * np.array(weights, np.float32)[labels], rtol=1e-6)
