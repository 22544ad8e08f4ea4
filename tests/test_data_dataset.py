import dataclasses

import numpy as np
import pytest

from unlearn_jax.data.dataset import Dataset, fingerprint


def small(**changes):
    fields = dict(
        name="three", images=np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3),
        labels=np.array([20, 30, 40], np.float32), ids=np.array(["a", "b", "c"]),
        task="regression", label_unit="years", num_classes=0, class_names=(),
        attributes={"gender": np.array([0, 1, 1], np.int32)}, dropped=(), histograms={},
        fingerprint="")
    return Dataset(**(fields | changes))


@pytest.mark.parametrize("changes, message", [
    (dict(images=np.zeros((3, 2, 2, 3), np.float32)), r"images of 'three' are float32"),
    (dict(images=np.zeros((3, 2, 2, 1), np.uint8)), r"uint8 \[N, H, W, 3\]"),
    (dict(images=np.zeros((2, 2, 2, 3), np.uint8)), r"2 images for 3 labels"),
    (dict(labels=np.array([1, 2, 3], np.int32)), r"labels of 'three' are int32"),
    (dict(labels=np.ones((3, 1), np.float32)), r"must be float32 \[3\]"),
    (dict(labels=np.array([1, np.nan, 3], np.float32)), r"label of 'b' is nan"),
    (dict(ids=np.array(["a", "b"])), r"ids of 'three'"),
    (dict(ids=np.array(["a", "b", "b"])), r"id 'b' of 'three' occurs 2 times"),
    (dict(attributes={"race": np.zeros(2, np.int32)}), r"attribute 'race'"),
    (dict(task="ranking"), r"allowed: 'regression', 'classification'"),
    (dict(num_classes=2, class_names=("x", "y")), r"num_classes must be 0"),
    (dict(task="classification", labels=np.array([0, 1, 2], np.int32), num_classes=2,
          class_names=("x", "y")), r"run from 0 to 2; allowed: 0 to 1"),
    (dict(task="classification", labels=np.array([0, 1, 1], np.int32), num_classes=2,
          class_names=("x",)), r"2 classes and 1 class names"),
])
def test_a_wrong_field_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_a_good_data_set_cannot_be_changed():
    data = small()
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def digest(**changes):
    data = small(**changes)
    return fingerprint(data.images, data.labels, data.ids)


def test_fingerprint_follows_the_contents():
    images = small().images.copy()
    images[2, 1, 1, 2] += 1
    others = [
        digest(images=images),
        digest(labels=np.array([20, 30, 41], np.float32)),
        digest(ids=np.array(["a", "b", "d"])),
    ]
    assert len({digest(), *others}) == 4


def test_fingerprint_does_not_see_how_arrays_are_stored():
    wide = small().ids.astype("U40")
    strided = np.repeat(small().images, 2, axis=0)[::2]
    assert digest(ids=wide) == digest(images=strided) == digest()


def test_fingerprint_keeps_ids_apart():
    assert digest(ids=np.array(["ab", "c", "d"])) != digest(ids=np.array(["a", "bc", "d"]))
