"""Regression forms of methods that were made for classes, against their definitions in float64.

Each reference is written from the method's docstring, in NumPy and without the logits of
probabilities.py: a model's probabilities are a Gaussian read off at the whole numbers of the label
range. Gradients are central differences over all weights, and whole runs are compared: momentum and
weight decay of each kind of pass, its rate, running statistics and padding are part of them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_teachers import AGES, SPREAD, data, make_setting, variables, walk

from unlearn_jax.methods import METHODS, kgltop1, reset, scrub
from unlearn_jax.methods.rnd import draw_labels
from unlearn_jax.train import Batch, TrainState

RATE, MOMENTUM, DECAY, SCALE = 0.02, 0.9, 0.05, 40.0
SGD = dict(momentum=MOMENTUM, weight_decay=DECAY)
LENGTHS = {"uniform": 1, "contrast": 2, "retain": 1}
KEY = jax.random.key(3)


# --- the model and its training, in float64 -----------------------------------------------------


def years(params, mean, images, train):
    """ŷ `[B]`, and the running mean after it."""
    hidden = np.asarray(images, np.float64).reshape(len(images), -1) / 255 @ params["stem"]
    now = hidden.mean(0) if train else mean
    return 40 + 10 * ((hidden - now) @ params["kernel"] + params["bias"])[:, 0], 0.9 * mean \
        + 0.1 * now


def float64(tree):
    """Parameters and running mean of a model of toy_teachers.py."""
    p = tree["params"]
    return ({"stem": np.asarray(p["stem_conv"]["kernel"], np.float64),
             "kernel": np.asarray(p["output"]["kernel"], np.float64),
             "bias": np.asarray(p["output"]["bias"], np.float64)},
            np.asarray(tree["batch_stats"]["mean"], np.float64))


def slopes(value, params, step=1e-6):
    """The gradient of a function of the parameters, by central differences."""
    found = {}
    for name, array in params.items():
        found[name] = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = {**params, name: array.copy()}
                moved[name][place] += sign * step
                ends.append(value(moved))
            found[name][place] = (ends[0] - ends[1]) / (2 * step)
    return found


def train(start, batches, objective, rate, mask=None):
    """SGD with a momentum of its own for each kind of batch.

    Args:
      start: as from `float64`.
      batches: of the run.
      objective: (ŷ, ŷ of the step's beginning, batch) -> a value for each sample with weight.
      rate: of a batch, as a multiple of RATE.
      mask: of what may move; None: all.
    """
    params, mean = start
    momenta = {}
    for batch in batches:
        weights = np.asarray(batch.weights, np.float64)
        before, new_mean = years(params, mean, batch.images, True)

        def value(p, weights=weights, before=before, batch=batch, mean=mean):
            found = objective(years(p, mean, batch.images, True)[0], before, batch)
            counted = weights[-len(found):]
            return (found * counted).sum() / counted.sum()

        gradients, kind, pace = slopes(value, params), int(batch.kind), RATE * rate(batch)
        momentum = momenta.setdefault(kind, {k: np.zeros(p.shape) for k, p in params.items()})
        for name in params:
            may = 1.0 if mask is None else mask[name]
            momentum[name] = gradients[name] * may + DECAY * params[name] \
                + MOMENTUM * momentum[name]
            params = {**params, name: params[name] - pace * may * momentum[name]}
        mean = new_mean
    return params, mean


def log_gaussian(found, temperature):
    """log p_k `[B, K]`: a Gaussian around ŷ at the whole numbers of the range, normalised."""
    exponent = -(AGES[None] - found[:, None]) ** 2 / (2 * SPREAD**2 * temperature)
    top = exponent.max(1, keepdims=True)
    return exponent - top - np.log(np.exp(exponent - top).sum(1, keepdims=True))


def kl(target, found, temperature):
    """KL_T(target ‖ found) `[B]`, of years."""
    p, q = log_gaussian(target, temperature), log_gaussian(found, temperature)
    return (np.exp(p) * (p - q)).sum(1)


def task(found, batch):
    return np.abs(found - np.asarray(batch.labels, np.float64)) / SCALE


# --- the batches and the comparison -------------------------------------------------------------


def make(rows, kind=0, epoch=0, forget=(), padding=0, step=0):
    found, rows = data("regression"), jnp.array(rows)
    weights = jnp.asarray(np.arange(len(rows)) < len(rows) - padding, jnp.float32)
    return Batch(found.images[rows], found.labels[rows], rows, jnp.isin(rows, jnp.array(forget)),
                 weights, jnp.int32(epoch), jnp.int32(kind), jnp.float32(step / 8), jnp.int32(2))


def small(setting, seed):
    """A start whose outputs lie about the label range."""
    return jax.tree.map(lambda x: 0.5 * x, variables(setting, seed))


def run(name, setting, batches, start, context):
    state = TrainState(start, setting.optimizer.init(start["params"]), jnp.int32(0))
    step = jax.jit(METHODS[name].make_step(setting))
    for batch in batches:
        state, _ = step(KEY, state, batch, jnp.float32(RATE), context)
    return state.variables


def compare(found, expected, start):
    (ours, mean), (theirs, their_mean) = float64(found), expected
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=2e-4, atol=2e-5, err_msg=name)
        assert (np.abs(array - float64(start)[0][name]) > 1e-3).any(), name
    np.testing.assert_allclose(mean, their_mean, rtol=1e-4, atol=1e-5)


def teacher_years(teacher, batch):
    return years(*float64(teacher), batch.images, False)[0]


def test_scrub():
    T, gamma, alpha = 4.0, 0.9, 0.02
    setting = make_setting("scrub", moves=SGD, gamma=gamma, alpha=alpha, forget_rate=0.05,
                           decay_after=(1,))
    start, teacher = small(setting, 1), small(setting, 2)
    batches = [make(range(8, 16), scrub.DISOBEY, padding=3), make(range(8)), make(range(16, 24)),
               make(range(8, 16), scrub.DISOBEY, epoch=1), make(range(4, 12), epoch=1, padding=1)]

    def objective(found, _, batch):
        distance = T**2 * kl(teacher_years(teacher, batch), found, T)
        return -distance if batch.kind == scrub.DISOBEY else gamma * task(found, batch) \
            + alpha * distance

    expected = train(float64(start), batches, objective,
                     lambda b: (0.05 if b.kind == scrub.DISOBEY else 1) * 0.1 ** int(b.epoch >= 1))
    compare(run("scrub", setting, batches, start, teacher), expected, start)


def test_reset():
    T = 5.0
    setting = make_setting("reset", moves=SGD, warmup_rate=0.7)
    start, teacher = small(setting, 1), small(setting, 2)
    batches = [make(range(30, 38), reset.WARMUP, padding=3), make(range(30, 38), reset.WARMUP),
               make(range(8)), make(range(8, 16), epoch=1, padding=2)]

    def objective(found, _, batch):
        target = teacher_years(teacher, batch)
        distance = kl(target, found, T)
        soft = -(np.exp(log_gaussian(target, T)) * log_gaussian(found, T)).sum(1)
        return distance if batch.kind == reset.WARMUP else task(found, batch) + soft + distance

    expected = train(float64(start), batches, objective,
                     lambda b: 0.7 if b.kind == reset.WARMUP else 1)
    compare(run("reset", setting, batches, start, teacher), expected, start)


def test_kgltop1():
    T = 1.15
    setting = make_setting("kgltop1", moves=SGD, uniform_rate=0.3, contrast_rate=0.05)
    start = small(setting, 1)
    turn = [(range(4, 12), kgltop1.CONTRAST), (range(8, 16), kgltop1.CONTRAST),
            (range(8), kgltop1.RETAIN)]
    batches = [make(range(8, 16), kgltop1.UNIFORM, padding=2),
               *(make(rows, kind, epoch, step=1 + 3 * epoch + i, padding=i % 2)
                 for epoch in (0, 1) for i, (rows, kind) in enumerate(turn))]

    def curves(found):
        """The logits, standardised over the whole numbers; a product is that of correlations."""
        z = -(AGES[None] - found[:, None]) ** 2 / (2 * SPREAD**2)
        z = z - z.mean(1, keepdims=True)
        return z / z.std(1, keepdims=True) / np.sqrt(SPREAD)

    def objective(found, before, batch):
        if batch.kind == kgltop1.UNIFORM:
            return -np.log(len(AGES)) - log_gaussian(found, 1.0).mean(1)
        if batch.kind == kgltop1.RETAIN:
            return task(found, batch)
        half = len(found) // 2  # no gradient goes through the half of D_r
        similar = curves(found[half:]) @ curves(before[:half]).T / T
        return np.log(np.exp(similar).sum(1)) - similar.mean(1)

    taken = iter(range(4))

    def rate(batch):
        if batch.kind == kgltop1.CONTRAST:
            cosine = (1 + np.cos(np.pi * next(taken) / 4)) / 2  # of four contrastive steps
            return 0.05 * (1 / 300 + (1 - 1 / 300) * cosine)
        return 0.3 if batch.kind == kgltop1.UNIFORM else 1

    found = run("kgltop1", setting, batches, start, LENGTHS)
    compare(found, train(float64(start), batches, objective, rate), start)


@pytest.mark.parametrize("exclude_true", [False, True])
def test_salun(exclude_true):
    setting = make_setting("salun", moves=SGD, share=0.3, exclude_true=exclude_true)
    with setting.config.unlocked():
        setting.config.labels = "uniform"
    walked = walk(setting, 0)
    forget = walked.before.members[0].forget
    start = jax.tree.map(lambda x: np.asarray(x[0]), walked.start)
    params, mean = float64(start)
    images, labels = data("regression").images, np.asarray(data("regression").labels, np.float64)

    def summed(p):
        return np.abs(years(p, mean, images[forget], False)[0] - labels[forget]).sum()

    scores = slopes(summed, params)
    order = np.sort(np.concatenate([np.abs(s).ravel() for s in scores.values()]))[::-1]
    least = order[int(0.3 * len(order)) - 1]
    mask = {name: np.abs(s) >= least for name, s in scores.items()}
    found = jax.tree.map(lambda x: np.asarray(x[0]), walked.prepared.context)
    np.testing.assert_array_equal(found["stem_conv"]["kernel"], mask["stem"])
    np.testing.assert_array_equal(found["output"]["kernel"], mask["kernel"])
    np.testing.assert_array_equal(found["output"]["bias"], mask["bias"])

    batches = [make(range(13, 21), forget=forget), make(range(16, 24), forget=forget, padding=2),
               make(range(13, 21), epoch=1, forget=forget)]
    relabelled = []
    for batch in batches:
        drawn = draw_labels(jax.random.fold_in(jax.random.split(KEY)[0], batch.epoch), batch.rows,
                            batch.labels, setting.labels, setting.config, exclude_true)
        assert np.isin(drawn, AGES).all()
        relabelled.append(dataclasses.replace(batch, labels=jnp.where(batch.forget, drawn,
                                                                      batch.labels)))
    expected = train((params, mean), relabelled, lambda y, _, b: task(y, b), lambda b: 1, mask)
    trained = run("salun", setting, batches, start, found)
    for name, array in float64(trained)[0].items():
        np.testing.assert_allclose(array, expected[0][name], rtol=2e-4, atol=2e-5, err_msg=name)
        np.testing.assert_array_equal(array[~mask[name]], params[name][~mask[name]])
        assert (array != params[name]).any() == mask[name].any(), name
