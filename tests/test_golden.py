"""Pinned numbers: who is in which split, the copies, the random streams, one training step.

A change of any of them changes every result.
"""

import dataclasses
import hashlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import LinearModel, layout, members, recipe, resident, settings

from unlearn_jax.config import default_config
from unlearn_jax.data.augment import Augmentation, render_copies
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.splits import make_splits
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.engine.recipe import epoch_batches, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member, Pass
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.methods.rnd import draw_labels
from unlearn_jax.models import build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer, rate_at
from unlearn_jax.train import Batch, init_state, make_loss, make_train_step

MESSAGE = ("these numbers differ from those when this test was written; if that is meant "
           "(initialisation, data, splits, augmentation, random streams, loss, optimiser), write "
           "the new ones here and raise stages.graph._NUMBERS, so that no store mixes models of "
           "both")


def test_one_step_of_adam():
    c = default_config()
    with c.unlocked():
        c.model.update(name="resnet4", width=4, stem="small")
    data = load_synthetic(8, 16, 0, 2.0)
    model = build_model(c.model, 16, 0)
    optimizer = make_optimizer(OptimizerSettings.from_config(c.train))
    step = make_train_step(model, optimizer, make_loss("mae", 40.0))
    batch = Batch(jnp.asarray(data.images), jnp.asarray(data.labels), jnp.arange(8),
                  jnp.zeros(8, bool), jnp.ones(8), jnp.int32(0))

    @jax.jit
    def two_steps(key):
        state = init_state(model, optimizer, model.init(key))
        state, first = step(key, state, batch, 1e-2)
        _, second = step(key, state, batch, 1e-2)
        return first, second

    losses = [float(x) for x in two_steps(jax.random.key(0))]
    np.testing.assert_allclose(losses, [19.452293, 18.260086], rtol=1e-4, err_msg=MESSAGE)


def digest(*arrays):
    """Eight hexadecimal digits of whole numbers, whatever their type."""
    whole = [np.ascontiguousarray(a, "<i8").tobytes() for a in arrays]
    return hashlib.blake2b(b"|".join(whole), digest_size=4).hexdigest()


def test_splits_and_forget_sets():
    ages = np.arange(100, dtype=np.float32) ** 2 % 41 + 20
    data = Dataset(
        name="toy", images=np.zeros((100, 2, 2, 3), np.uint8), labels=ages,
        ids=np.array([f"id-{i}" for i in range(100)]), task="regression", label_unit="years",
        num_classes=0, class_names=(), attributes={}, dropped=(), histograms={}, fingerprint="")
    splits = make_splits(data, types.SimpleNamespace(
        seed=3, balance=6, split=(0.6, 0.2, 0.2), inject="", source="synthetic", label_unit="",
        label_min=20.0, label_max=60.0),
                         types.SimpleNamespace(sets=("random:0.1",)))
    assert splits.test[:5].tolist() == [3, 11, 15, 23, 31], MESSAGE
    assert {
        "train": digest(splits.train), "validation": digest(splits.validation),
        "test": digest(splits.test), "balanced": digest(splits.rows.source, splits.rows.copy),
        "forget": digest(splits.forget(splits.forget_sets[0]))} == {
            "train": "76b2175c", "validation": "937c68f3", "test": "ae3c835a",
            "balanced": "0f9fc6d7", "forget": "d1b010fb"}, MESSAGE


def test_augmented_copies():
    images = (np.arange(2 * 8 * 8 * 3) ** 2 // 40 % 256).astype(np.uint8).reshape(2, 8, 8, 3)
    copies = render_copies(images, np.array([0, 1, 1]), np.array([1, 1, 2]), 5,
                           Augmentation(10.0, 0.1, 0.2, True)).astype(int)
    np.testing.assert_allclose(copies.mean((1, 2, 3)), [110.47, 124.65, 127.16], atol=0.2,
                               err_msg=MESSAGE)
    np.testing.assert_allclose(copies[:, 3, 4], [[144, 148, 152], [136, 150, 165], [54, 67, 81]],
                               atol=1, err_msg=MESSAGE)


def test_the_order_of_an_epoch():
    none = np.zeros(0, np.int32)
    member = Member(2, "20-28", np.arange(7, dtype=np.int32), none, none)
    np.testing.assert_array_equal(epoch_batches(member, "train", 1, 4)[0],
                                  [[4, 6, 0, 3], [2, 5, 1, ~4]], MESSAGE)


@pytest.mark.parametrize("draw, space, expected", [
    ("uniform", LabelSpace(20, 60, 0, 40.0), [22, 24, 33, 36, 44, 40]),
    ("offset", LabelSpace(20, 60, 0, 40.0), [36, 45, 34, 43, 34, 44]),
    ("uniform", LabelSpace(0, 0, 10, 1.0), [7, 8, 9, 7, 0, 8]),
])
def test_random_labels(draw, space, expected):
    c = default_config().unlearn
    c.labels = draw
    truth = jnp.zeros(6, jnp.int32) if space.num_classes else jnp.full(6, 40.0)
    labels = draw_labels(jax.random.key(1), jnp.arange(6), truth, space, c)
    np.testing.assert_array_equal(labels, expected, MESSAGE)


@pytest.mark.parametrize("schedule, expected", [
    ("cosine", [1.0, 0.975528, 0.793893, 0.345491, 0.00615582]),
    ("onecycle", [0.04, 0.371672, 0.989075, 0.552309, 0.0110251]),
])
def test_learning_rates(schedule, expected):
    rates = rate_at(settings(schedule=schedule), jnp.array([0.0, 0.1, 0.3, 0.6, 0.95]))
    np.testing.assert_allclose(rates, expected, rtol=1e-4, err_msg=MESSAGE)


def test_a_population_under_random_labels():
    model, moves = LinearModel(), settings(learning_rate=0.1)
    optimizer, loss = make_optimizer(moves), make_loss("mse", 10.0)
    c = default_config()
    setting = Setting(model, optimizer, loss, LabelSpace(0, 40, 0, 40.0), c.unlearn, None, c.train)
    step = METHODS["rnd"].make_step(setting)
    chosen = [dataclasses.replace(m, forget=m.retain[:5]) for m in members()]
    trained = train_population(recipe(optimizer_settings=moves, step=step, epochs=2,
                                      passes=lambda epoch: (Pass("all"),)), model,
                               layout(), resident(), chosen,
                               init_members(model, layout(), [0, 1, 2]))
    losses = [row["train_loss"] for row in trained.history]
    np.testing.assert_allclose(
        losses, [462.20047, 370.17239, 470.60226, 432.82529, 323.87918, 396.25256], rtol=1e-4,
        err_msg=MESSAGE)
