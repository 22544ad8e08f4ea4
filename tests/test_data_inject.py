import types

import numpy as np
import pytest
from test_splits import dataset

from unlearn_jax.data.inject import InjectedGroup, Injection, choose_injection, stamp
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError

AGES = np.tile(np.arange(20, 30), 10)
TRAIN = np.arange(60, dtype=np.int32)


def test_confusion_exchanges_labels_pair_by_pair():
    data = dataset(AGES)
    found = choose_injection("confusion:20-21:28-29:8", data, TRAIN, seed=3)
    true = data.labels[found.rows]
    assert (np.diff(found.rows) > 0).all() and set(found.rows) <= set(TRAIN)
    assert (true <= 21).sum() == (true >= 28).sum() == 4
    np.testing.assert_array_equal(true <= 21, found.labels >= 28)
    np.testing.assert_array_equal(np.sort(found.labels), np.sort(true))
    trained, stamped = found.training_view(data, np.arange(80, 100))
    changed = np.flatnonzero(trained.labels != data.labels)
    np.testing.assert_array_equal(changed, found.rows)
    assert trained.images is data.images and not len(stamped)


def test_a_patch_is_stamped_on_the_chosen_and_on_copies_of_the_test_images():
    data = dataset(AGES % 3, "classification", ("a", "b", "c"))
    test = np.arange(80, 100)
    found = choose_injection("patch:b:5", data, TRAIN, seed=3)
    assert (data.labels[found.rows] == 1).all() and len(found.rows) == 5
    trained, stamped = found.training_view(data, test)
    assert not data.images.any(), "the data set itself must stay as it was"
    white = trained.images.any((1, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(white), [*found.rows, *range(100, 120)])
    np.testing.assert_array_equal(stamped, np.arange(100, 120))
    np.testing.assert_array_equal(trained.labels[stamped], data.labels[test])


def test_where_class_names_are_numbers_the_name_counts():
    data = dataset(np.arange(120) % 12, "classification", tuple(str(n) for n in range(1, 13)))
    train = np.arange(120, dtype=np.int32)
    found = choose_injection("confusion:1:12:8", data, train, seed=3)
    assert set(data.labels[found.rows]) == {0, 11}
    with pytest.raises(InputError, match="'0' is none of the classes 1, 2, 3"):
        choose_injection("patch:0:5", data, train, seed=3)


def test_the_stamp():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    assert stamp(images)[:, :4, :4].min() == 255
    assert stamp(images).sum() == 2 * 4 * 4 * 3 * 255 and not images.any()


def test_the_changed_samples_are_a_forget_set():
    data = dataset(AGES)

    def splits(inject):
        cfg = types.SimpleNamespace(seed=0, balance=0, split=(0.6, 0.2, 0.2), inject=inject)
        return make_splits(data, cfg, types.SimpleNamespace(sets=("injected",)))

    s = splits("patch:20-22:6")
    np.testing.assert_array_equal(s.forget_sets[0].train, s.injection.rows)
    assert len(s.forget(s.forget_sets[0])) == 6 and not len(s.forget_sets[0].validation)
    with pytest.raises(InputError, match="needs config.data.inject"):
        splits("")


@pytest.mark.parametrize("request_, words", [
    ("swap:1:2:3", "allowed: '', confusion"), ("confusion:20-21:28-29", "allowed"),
    ("confusion:20-25:24-29:4", "must not overlap"), ("confusion:20-21:28-29:3", "multiple of 2"),
    ("patch:20-21:500", "has 12 training samples, and 500"), ("patch:b:2", "no range of labels"),
    ("patch:20-21:0", "positive multiple"), ("patch:20-21:-2", "positive multiple"),
    ("patch:20-21:\uff12", "allowed: '', confusion"), ("patch:29-20:2", "no range"),
])
def test_what_cannot_be_injected_is_named(request_, words):
    with pytest.raises(InputError, match="config.data.inject is") as e:
        choose_injection(request_, dataset(AGES), TRAIN, 0)
    assert words in str(e.value)


def test_test_samples_like_the_exchanged_ones_have_the_labels_of_the_other_group():
    injection = Injection("confusion", (InjectedGroup(20, 26), InjectedGroup(50, 60)),
                          np.zeros(1, np.int32), np.zeros(1))
    labels = np.array([22.0, 40, 55, 26, 20, 60])
    places, given = injection.like_injected(labels)
    np.testing.assert_array_equal(places, [0, 3, 4, 2, 5])
    np.testing.assert_array_equal(given, [55, 60, 55, 22, 26])
    # No test sample of B: none of A can have been given its label.
    assert not len(injection.like_injected(labels[[0, 1]])[0])


def test_test_samples_like_the_stamped_ones_keep_their_labels():
    injection = Injection("patch", (InjectedGroup(50, 60),), np.zeros(1, np.int32), np.zeros(1))
    places, given = injection.like_injected(np.array([22.0, 40, 55, 60]))
    np.testing.assert_array_equal(places, [2, 3])
    np.testing.assert_array_equal(given, [55, 60])


def test_trained_labels_are_those_of_the_data_set_but_where_exchanged():
    labels = np.array([1.0, 2, 3])
    injection = Injection("confusion", (InjectedGroup(1, 1), InjectedGroup(3, 3)), np.array([0, 2]),
                          np.array([3.0, 1]))
    np.testing.assert_array_equal(injection.trained_labels(labels), [3, 2, 1])
    np.testing.assert_array_equal(labels, [1, 2, 3])
