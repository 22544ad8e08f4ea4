"""Arrays in a .npz file: what is read, and what is refused before any work."""

import numpy as np
import pytest
from test_data_load import settings

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data.arrays import write_arrays
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def load(tmp_path, changes=None, **arrays):
    found = {"images": IMAGES, "labels": LABELS} | arrays
    path = write_arrays(tmp_path, {name: a for name, a in found.items() if a is not None})
    own = settings(**({"source": "arrays", "path": str(path), "task": "classification",
                       "image_size": 8} | (changes or {})))
    return data.load(own, tmp_path / "cache"), own


def test_classes_are_the_different_labels_in_their_order(tmp_path):
    found, _ = load(tmp_path, labels=np.array([9, 30, 100, 9] * 5))
    assert found.class_names == ("9", "30", "100")
    assert found.labels.tolist() == [0, 1, 2, 0] * 5
    assert found.ids[:2].tolist() == ["0000000", "0000001"]
    np.testing.assert_array_equal(found.images, IMAGES)
    named, _ = load(tmp_path, labels=np.array(["b", "a"] * 10))
    assert named.class_names == ("a", "b") and named.labels[:2].tolist() == [1, 0]
    given, _ = load(tmp_path, class_names=np.array(list("wxyz")))
    assert given.class_names == tuple("wxyz") and given.labels.tolist() == LABELS.tolist()


def test_numbers_grey_images_and_ids_in_any_order(tmp_path):
    ids = np.array([f"s{i:02d}" for i in range(20)])[::-1]
    found, _ = load(tmp_path, {"task": "regression", "label_min": -1.0, "label_max": 2.0},
                    images=IMAGES[..., 0], labels=np.linspace(-1, 2, 20), ids=ids,
                    attribute_left=LABELS % 2)
    assert found.ids[0] == "s00" and found.labels[0] == 2 and found.attributes["left"][0] == 1
    np.testing.assert_array_equal(found.images[0], np.repeat(IMAGES[-1, ..., :1], 3, axis=2))
    small, _ = load(tmp_path, {"image_size": 16})
    assert small.images.shape == (20, 16, 16, 3)


def test_a_forget_set_by_name_is_its_positions_in_each_split(tmp_path):
    positions = np.flatnonzero(LABELS == 3)[::-1]
    ids = np.array([f"s{i:02d}" for i in range(20)])[::-1]  # sorting moves the samples
    found, own = load(tmp_path, ids=ids, **{"forget_class 3": positions})
    with pytest.raises(InputError, match="which share the name"):
        make_splits(found, own, _sets("set:class 3", "class:3"))
    splits = make_splits(found, own, _sets("set:class 3"))
    (named,) = splits.forget_sets
    (by_class,) = make_splits(found, own, _sets("class:3")).forget_sets
    assert named.name == "class-3" and not named.untrained
    for field in ("train", "validation", "peers"):
        np.testing.assert_array_equal(getattr(named, field), getattr(by_class, field))
    with pytest.raises(InputError, match="set:NAME with one of class 3"):
        make_splits(found, own, _sets("set:class 4"))


def test_given_splits(tmp_path):
    names = np.array(["train"] * 12 + ["val"] * 4 + ["test"] * 4)
    ids = np.array([f"s{i:02d}" for i in range(20)])[::-1]
    found, own = load(tmp_path, {"split": ("given",)}, split=names, ids=ids)
    splits = make_splits(found, own, _sets("class:3"))
    for part, name in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        assert found.ids[part].tolist() == sorted(ids[names == name])
    drawn, _ = load(tmp_path, split=names)
    assert not len(drawn.given_splits)
    with pytest.raises(InputError, match="the array 'split' is missing, which config.data.split"):
        load(tmp_path, {"split": ("given",)})
    with pytest.raises(InputError, match="has the split 'dev'"):
        load(tmp_path, {"split": ("given",)}, split=np.array(["train", "dev"] * 10))


def _sets(*requests):
    c = default_config().forget
    with c.unlocked():
        c.sets = requests
    return c


def test_equal_arrays_are_one_file_with_one_fingerprint(tmp_path):
    first, other = IMAGES.copy(), IMAGES.copy()
    other[3, 0, 0, 0] ^= 1
    paths = [write_arrays(tmp_path, {"images": images, "labels": LABELS})
             for images in (first, IMAGES, other)]
    assert paths[0] == paths[1] != paths[2] and len(list(tmp_path.glob("*.npz"))) == 2
    assert load(tmp_path)[0].fingerprint != load(tmp_path, images=other)[0].fingerprint


@pytest.mark.parametrize("arrays, message", [
    (dict(images=None), "the array 'images' is missing"),
    (dict(images=IMAGES / 255), r"images are float64 \[20, 8, 8, 3\]; allowed: uint8"),
    (dict(images=IMAGES.transpose(0, 3, 1, 2)), r"images are uint8 \[20, 3, 8, 8\]; allowed"),
    (dict(labels=LABELS[:19]), r"labels is int64 \[19\] beside 20 images; allowed: \[20\]"),
    (dict(labels=LABELS + 0.5), "labels are float64; allowed for config.data.task='classif"),
    (dict(class_names=np.array(["a", "b"])), "labels run from 0 to 3; allowed with 2 class_names"),
    (dict(labels=np.array(["c"] * 20), class_names=np.array(["a", "b"])), "labels hold 'c'"),
    (dict(split=np.array(["train"])), r"split is <U5 \[1\] beside 20 labels"),
    (dict(ids=np.array(["a"] * 20)), "the id 'a' stands 20 times"),
    (dict(forget_a=np.array([20])), "forget_a holds 20; allowed: positions from 0 to 19"),
    (dict(forget_a=np.array([3, 3])), "forget_a holds a position twice"),
    (dict(forget_a=LABELS == 3), r"forget_a is bool \[20\] \(numpy.flatnonzero"),
    (dict(attribute_a=LABELS / 2), "attribute_a is float64; allowed: whole numbers"),
    (dict(pictures=IMAGES), "'pictures' is no array that is read"),
])
def test_arrays_that_cannot_be_used(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, **arrays)


def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "objects.npz", images=np.array([{}], object))
    for name, message in (("", "is empty"), ("none.npz", "does not exist"),
                          ("cut.npz", "cannot be read"), ("objects.npz", "no arrays of objects")):
        own = settings(source="arrays", path=str(tmp_path / name) if name else "",
                       task="classification", image_size=8)
        with pytest.raises(InputError, match=message):
            data.load(own, tmp_path)
    with pytest.raises(InputError, match=r"labels\[1\] is nan; allowed: finite"):
        load(tmp_path, {"task": "regression"}, labels=np.array([1, np.nan] * 10))
