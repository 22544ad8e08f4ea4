import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from methods_case import (
    CLASSIFIER,
    CLASSIFIER_LOSS,
    linear_batch,
    linear_gradients,
    linear_setting,
    linear_state,
)
from scipy import stats
from toy import settings, tree_close

from unlearn_jax.methods import METHODS
from unlearn_jax.methods.gaussian_amnesiac import draw_marginal
from unlearn_jax.methods.method import LabelSpace

KEY = jax.random.key(0)
METHOD = METHODS["gaussian_amnesiac"]
AGES = LabelSpace(20, 60, 0, 40.0, mean=37.0, std=11.0)
CLASSES = LabelSpace(0, 0, 4, 1.0, frequencies=(0.5, 0.3, 0.0, 0.2))
PLAIN = settings(momentum=0.0)


def drawn(space, count=4000, key=KEY):
    return np.asarray(draw_marginal(key, jnp.arange(count), space))


def test_ages_have_the_mean_and_deviation_of_training_and_are_not_clipped():
    labels = drawn(AGES)
    assert labels.dtype == np.float32
    assert stats.kstest(labels, "norm", (37.0, 11.0)).pvalue > 0.01
    assert labels.min() < 20 and labels.max() > 60


def test_classes_come_as_often_as_in_training():
    labels = drawn(CLASSES)
    counts = np.bincount(labels, minlength=4)
    assert labels.dtype == np.int32 and counts[2] == 0
    kept = [0, 1, 3]
    expected = np.array(CLASSES.frequencies)[kept] * len(labels)
    assert stats.chisquare(counts[kept], expected).pvalue > 0.01


@pytest.mark.parametrize("space", [AGES, CLASSES], ids=["ages", "classes"])
def test_a_label_belongs_to_the_sample_and_the_key(space):
    rows = jnp.arange(50)
    np.testing.assert_array_equal(draw_marginal(KEY, rows[::-1], space), drawn(space, 50)[::-1])
    assert (drawn(space, 50, jax.random.key(1)) != drawn(space, 50)).any()


def step(**changes):
    return jax.jit(METHOD.make_step(linear_setting("gaussian_amnesiac", optimizer_settings=PLAIN,
                                                   **changes)))


def test_a_step_learns_the_drawn_label_of_the_forget_set_alone():
    take, state = step(space=AGES), linear_state()
    batch = linear_batch([True, False, True, False])
    after, loss = take(KEY, state, batch, 0.1)
    labels = draw_marginal(jax.random.split(KEY)[0], batch.rows, AGES)
    relabelled = dataclasses.replace(batch, labels=jnp.where(batch.forget, labels, batch.labels))
    slopes, mean = linear_gradients(state.variables, relabelled)
    np.testing.assert_allclose(loss, mean, rtol=1e-4)
    before = np.asarray(state.variables["params"]["w"])
    np.testing.assert_allclose(after.variables["params"]["w"], before - 0.1 * slopes["w"],
                               rtol=1e-4, atol=1e-6)


def test_labels_stay_from_epoch_to_epoch():
    take, state = step(space=AGES), linear_state()
    losses = [take(KEY, state, linear_batch([True] * 8, epoch=e), 0.1)[1] for e in (0, 1, 5)]
    assert losses[0] == losses[1] == losses[2]
    assert take(jax.random.key(1), state, linear_batch([True] * 8), 0.1)[1] != losses[0]


def test_the_retain_set_is_learnt_as_in_fine_tuning():
    args = (KEY, linear_state(), linear_batch([False] * 8), 0.1)
    plain = METHODS["ft"].make_step(linear_setting("ft", optimizer_settings=PLAIN))(*args)
    tree_close(step(space=AGES)(*args)[0].variables, plain[0].variables, rtol=1e-6)


def test_classification_learns_a_drawn_class():
    take = step(space=CLASSES, model=CLASSIFIER, loss=CLASSIFIER_LOSS)
    state = linear_state(CLASSIFIER)
    batch = linear_batch([True] * 8, classes=True)
    _, loss = take(KEY, state, batch, 0.1)
    labels = np.asarray(draw_marginal(jax.random.split(KEY)[0], batch.rows, CLASSES))
    logits = np.asarray(CLASSIFIER.apply(state.variables, batch.images, train=True)[0])
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), labels]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
