import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_teachers
from scipy import special
from toy_teachers import (
    AGES,
    BOTH,
    SPREAD,
    bias_moved,
    divergence_slope,
    make_batch,
    make_setting,
    outputs,
    task_slope,
    variables,
    walk,
)

from unlearn_jax.engine.recipe import epoch_batches
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.kgltop1 import (
    CONTRAST,
    METHOD,
    RETAIN,
    UNIFORM,
    comparable,
    contrast,
    contrast_progress,
)
from unlearn_jax.methods.probabilities import class_logits
from unlearn_jax.train import TrainState, make_loss

RNG = np.random.default_rng(0)
LENGTHS = {"uniform": 3, "contrast": 2, "retain": 5}  # steps of the passes
Z_F, Z_R = RNG.normal(0, 2, (4, 3)), RNG.normal(0, 2, (5, 3))


def one_step(setting, batch):
    """A step before all others, uniform ones aside."""
    return toy_teachers.one_step(setting, batch, {**LENGTHS, "uniform": 0})


def test_the_contrast_is_the_mean_over_all_pairs():
    weights = np.array([1, 1, 1, 0, 1.0])
    expected = []
    for f in Z_F:
        similar = np.array([f @ r / 1.15 for r, w in zip(Z_R, weights) if w])
        expected.append(np.mean([-np.log(np.exp(s) / np.exp(similar).sum()) for s in similar]))
    found = contrast(jnp.asarray(Z_F), jnp.asarray(Z_R), jnp.asarray(weights), 1.15)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    order = [4, 2, 0, 3, 1]
    again = contrast(jnp.asarray(Z_F), jnp.asarray(Z_R[order]), jnp.asarray(weights[order]), 1.15)
    np.testing.assert_allclose(again, found, rtol=1e-5)


def test_the_contrast_by_hand():
    # similarities ln 3 and 0: the mean of -ln(3/4) and -ln(1/4)
    found = contrast(jnp.array([[np.log(3.0)]]), jnp.array([[1.0], [0.0]]), jnp.ones(2), 1.0)
    np.testing.assert_allclose(found, [-np.log(3 / 16) / 2], rtol=1e-6)
    equal = contrast(jnp.zeros((1, 2)), jnp.asarray(Z_R[:, :2]), jnp.ones(5), 1.15)
    np.testing.assert_allclose(equal, [np.log(5)], rtol=1e-6)


def slopes(years, others, setting, scale):
    """The derivative of the contrast by the normalised output of each sample of D_f."""
    others = comparable(class_logits(others, setting), setting)
    return scale * jax.grad(lambda y: contrast(
        comparable(class_logits(y, setting), setting), others, jnp.ones(len(others)), 1.15).sum())(
        years)


@pytest.mark.parametrize("scale", [40.0, 60.0])
@pytest.mark.parametrize("forget, retain", [((20, 60), (20, 60)), ((20, 28), (28, 60))])
def test_the_contrast_of_a_regression_is_of_the_size_of_its_loss(scale, forget, retain):
    setting, loss = make_setting("kgltop1"), make_loss("mae", scale)
    years, others = (jnp.linspace(*ends, 32) for ends in (forget, retain))
    task = jax.grad(lambda y: loss.per_sample(y, jnp.zeros(32)).sum() / loss.unit)(years) * scale
    found = np.abs(slopes(years, others, setting, scale)).mean() / np.abs(task).mean()
    assert 1 < found < 30
    if forget == (20, 60):
        assert found == pytest.approx({40.0: 7, 60.0: 10}[scale], rel=0.1)


def test_the_contrast_of_a_regression_draws_to_the_middle():
    years = jnp.array([20.0, 24.0, 32.0, 39.0, 41.0, 48.0, 60.0])
    found = slopes(years, jnp.linspace(20, 60, 41), make_setting("kgltop1"), 40.0)
    np.testing.assert_array_equal(np.sign(found), np.sign(years - 40))


def test_a_classifiers_logits_are_compared_as_they_are():
    logits = jnp.asarray(Z_F)
    assert comparable(logits, make_setting("kgltop1", "classification")) is logits


def test_bins_wider_than_the_spread_count_as_classes():
    setting = make_setting("kgltop1")
    with setting.config.unlocked():
        setting.config.spread = 0.1
    for year in (20.0, 40.0, 55.5):
        found = comparable(class_logits(jnp.array([year]), setting), setting)
        np.testing.assert_allclose(jnp.sum(found * found), 41, rtol=1e-4)


def test_no_gradient_goes_through_d_r():
    both = jax.grad(lambda f, r: contrast(f, r, jnp.ones(5), 1.15).sum(), (0, 1))(
        jnp.asarray(Z_F), jnp.asarray(Z_R))
    assert np.all(both[0] != 0) and not np.any(both[1])


def test_similarities_far_apart_stay_finite():
    found = jax.value_and_grad(lambda f: contrast(f, 1e8 * jnp.asarray(Z_R), jnp.ones(5),
                                                  1.15).sum())(1e8 * jnp.asarray(Z_F))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


@pytest.mark.parametrize("task", BOTH)
def test_the_first_pass_descends_to_equal_probabilities(task):
    setting = make_setting("kgltop1", task)
    batch = make_batch(task, range(8), kind=UNIFORM, weights=[1] * 6 + [0, 0])
    new, _, start = one_step(setting, batch)
    found = outputs(setting, start, batch, True)
    equal = np.full((8, 3 if task == "classification" else 41), 1.0)
    slope = divergence_slope(found, equal / equal.sum(1, keepdims=True), 1.0)
    np.testing.assert_allclose(bias_moved(new, start), -0.125 * slope[:6].mean(0), rtol=1e-3)


@pytest.mark.parametrize("task", BOTH)
def test_the_contrastive_pass_descends_its_loss(task):
    setting = make_setting("kgltop1", task)
    batch = make_batch(task, range(4, 8), kind=CONTRAST, weights=[1] * 6 + [0, 0])
    new, _, start = one_step(setting, batch)
    found = outputs(setting, start, batch, True)
    if task == "classification":
        kept, lost = found[:4], found[4:6]
        slope = (special.softmax(lost @ kept.T / 1.15, axis=1) - 0.25) @ kept / 1.15
    else:
        # z is a line times ŷ - 40 and a parabola, which is orthogonal to it: a correlation is the
        # cosine of the difference of two angles
        curve = ((AGES - 40) ** 2 - ((AGES - 40) ** 2).mean()) / 2
        line = np.std(AGES) / curve.std()
        kept, lost = (np.arctan(line * (own - 40)) for own in (found[:4], found[4:6]))
        turn, scale = lost[:, None] - kept[None], 41 / SPREAD / 1.15
        among = special.softmax(scale * np.cos(turn), axis=1)
        steep = line * np.cos(lost) ** 2  # of the angle, by ŷ
        slope = (10 * scale * steep * ((among - 0.25) * -np.sin(turn)).sum(1))[:, None]
    np.testing.assert_allclose(bias_moved(new, start), -0.1 * 0.075 * slope.mean(0), rtol=2e-3)


@pytest.mark.parametrize("task", BOTH)
def test_the_retain_pass_is_fine_tuning(task):
    setting = make_setting("kgltop1", task)
    batch = make_batch(task, kind=RETAIN, weights=[1] * 6 + [0, 0])
    new, _, start = one_step(setting, batch)
    slope = task_slope(outputs(setting, start, batch, True), np.asarray(batch.labels))
    np.testing.assert_allclose(bias_moved(new, start), -0.1 * slope[:6].mean(0), rtol=1e-3)


@pytest.mark.parametrize("kind, factor", [(RETAIN, 1), (UNIFORM, 1),
                                          (CONTRAST, (1 + 1 / 300) / 2)])
def test_half_way_the_contrastive_rate_alone_has_fallen(kind, factor):
    setting = make_setting("kgltop1")
    batch = make_batch("regression", range(4, 8), kind=kind)
    half = dataclasses.replace(batch, epoch=jnp.int32(2), epochs=jnp.int32(4))
    moved = []
    for own, at in ((half, 3 + 2 * (2 + 5)), (batch, 3)):  # half of the contrastive steps, none
        start = variables(setting, 1)
        state = TrainState(start, setting.optimizer.init(start["params"]), jnp.int32(at))
        own = dataclasses.replace(own, epochs=jnp.int32(4))
        new, _ = jax.jit(METHOD.make_step(setting))(jax.random.key(0), state, own,
                                                    jnp.float32(0.1), LENGTHS)
        moved.append(bias_moved(new, start))
    np.testing.assert_allclose(moved[0], factor * moved[1], rtol=1e-4)


def test_the_cosine_counts_contrastive_steps_alone():
    """Pass by pass, by the steps that the engine takes: U, then E times C and R."""
    setting, epochs, size = make_setting("kgltop1"), 3, 8
    before = walk(setting, 0).before
    lengths = METHOD.prepare(setting, before).context
    for m, member in enumerate(before.members):
        step, found = 0, []
        for epoch in range(epochs):
            _, kinds = epoch_batches(member, "kgltop1", epoch, size,
                                     lambda e: METHOD.passes(setting, e))
            for kind in kinds:
                if kind == CONTRAST:
                    found.append(float(contrast_progress(
                        step, epoch, epochs, {k: v[m] for k, v in lengths.items()})))
                step += 1
        np.testing.assert_allclose(found, np.arange(len(found)) / len(found), rtol=1e-6)
        assert len(found) == epochs * -(-len(member.forget) // (size // 2))
        assert lengths["retain"][m] == -(-len(member.retain) // size)


def test_the_passes():
    setting = make_setting("kgltop1")
    turns = [("forget+retain", CONTRAST), ("retain", RETAIN)]
    found = [[(p.over, p.kind) for p in METHOD.passes(setting, e)] for e in range(2)]
    assert found == [[("forget", UNIFORM), *turns], turns]


def test_published_rates():
    o, published = METHOD.options, METHOD.published
    relative = np.array([1, o["uniform_rate"], o["contrast_rate"],
                         o["contrast_rate"] * o["contrast_floor"]])
    np.testing.assert_allclose(published["learning_rate"] * relative,
                               [1e-3 * published["batch_size"] / 64, 5e-3, 3e-4, 1e-6])


def test_each_kind_of_pass_has_its_own_momentum():
    setting = make_setting("kgltop1", moves=dict(momentum=0.9))
    step = jax.jit(METHOD.make_step(setting))
    first = make_batch("regression", range(4, 8), kind=CONTRAST)
    begun, _, start = one_step(setting, first)
    fresh = dataclasses.replace(begun, opt_state=setting.optimizer.init(start["params"]))
    for kind, same in ((UNIFORM, True), (RETAIN, True), (CONTRAST, False)):
        batch = make_batch("regression", range(4, 8), kind=kind)
        one, other = (step(jax.random.key(0), state, batch, 0.1, LENGTHS)[0]
                      for state in (begun, fresh))
        assert np.all(bias_moved(one, start) == bias_moved(other, start)) == same


@pytest.mark.parametrize("options, words", [
    (dict(temperature=0.0), "kgltop1.temperature is 0.0"),
    (dict(contrast_rate=float("inf")), "kgltop1.contrast_rate is inf; allowed: at least 0"),
    (dict(contrast_floor=2.0), "kgltop1.contrast_floor is 2.0; allowed: from 0 to 1"),
    (dict(uniform_rate=-1.0), "kgltop1.uniform_rate is -1.0"),
])
def test_options_that_make_no_sense_are_refused(options, words):
    METHOD.check(make_setting("kgltop1"))
    with pytest.raises(ConfigError, match=words):
        METHOD.check(make_setting("kgltop1", **options))
