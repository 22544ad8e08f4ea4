"""Data sets of TensorFlow Datasets, with a small builder made here."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data import tfds as tfds_source
from unlearn_jax.errors import InputError


def png(level):
    f = io.BytesIO()
    Image.new("L", (20, 20), level).save(f, "PNG")
    return f.getvalue()


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Ten grey images of 20 x 20; image i has level 20 i, in two classes and two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(20, 20, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["round", "square"]),
                "weight": tfds.features.Scalar(np.float32),
                "colour": tfds.features.Scalar(np.int32),
                "kind": tfds.features.ClassLabel(num_classes=3),
                "title": tfds.features.Text(),
            }),
            supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(6)),
                "test": self._generate_examples(range(6, 10))}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield str(i), {
                "image": png(20 * i), "label": -1 if i == 9 else i % 2,
                "weight": i / 2, "colour": 100 + i, "kind": i % 3, "title": "x"}


class TinyNumbered(TinyShapes):
    """30 images in two splits, numbered from 0 in each; image i of a split has level 8 i."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(20, 20, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["round", "square"]),
                "number": tfds.features.Scalar(np.int64),
                "name": tfds.features.Text(),
                "same": tfds.features.Text(),
            }), supervised_keys=("image", "label"), disable_shuffling=self.in_order)

    in_order = False

    def _split_generators(self, dl_manager):
        return {s: self._generate_examples(s) for s in ("train", "test")}

    def _generate_examples(self, split):
        for i in range(15):
            yield i, {"image": png(8 * i), "label": i % 2, "number": 100 + i,
                      "name": f"{split}/{i}.png", "same": "x"}


class TinyInOrder(TinyNumbered):
    """The same, stored as it comes."""

    in_order = True


class TinyWeights(TinyShapes):
    """The same with a number to predict."""

    def _info(self):
        info = super()._info()
        return tfds.core.DatasetInfo(builder=self, features=info.features,
                                     supervised_keys=("image", "weight"))


class TinyArrays(TinyShapes):
    """The same from arrays, which TFDS encodes by TensorFlow alone."""

    def _generate_examples(self, numbers):
        for key, example in super()._generate_examples(numbers):
            yield key, {**example, "image": np.zeros((20, 20, 1), np.uint8)}


class TinyRemote(TinyShapes):
    """A data set that must be downloaded from a host that does not answer."""

    def _split_generators(self, dl_manager):
        raise ConnectionError("no network")


def load(name, tmp_path, **changes):
    c = default_config().data
    with c.unlocked():
        c.update(source=f"tfds:{name}", path=str(tmp_path / "tfds"), image_size=16, label_min=-100,
                 label_max=100)
        c.update(changes)
    return data.load(c, tmp_path / "cache")


def check_shapes(d):
    assert len(d.ids) == 9 and [i[:4] for i in d.ids] == ["test"] * 3 + ["trai"] * 6
    assert d.class_names == ("round", "square")
    number = d.attributes["colour"] - 100
    assert sorted(number[:3]) == [6, 7, 8] and sorted(number[3:]) == list(range(6))
    assert (d.labels == number % 2).all() and (d.attributes["kind"] == number % 3).all()
    assert sorted(d.attributes) == ["colour", "kind"]
    assert (d.images == (20 * number)[:, None, None, None]).all()
    (hidden,) = d.dropped
    assert hidden.reason == "no label" and hidden.id.startswith("test-")


def test_prepared_and_unprepared_data_sets(tmp_path):
    first = load("tiny_shapes", tmp_path, task="classification")  # prepares it
    check_shapes(first)
    assert (tmp_path / "tfds" / "tiny_shapes" / "1.0.0" / "dataset_info.json").exists()
    again = load("tiny_shapes:1.0.0", tmp_path, task="classification")
    check_shapes(again)
    assert again.fingerprint == first.fingerprint
    assert "tensorflow" not in sys.modules


_ELSEWHERE = """
import sys
from unlearn_jax import data
from unlearn_jax.config import default_config
c = default_config().data
with c.unlocked():
    c.update(source="tfds:tiny_shapes", path=sys.argv[1], image_size=16, task="classification")
print(data.load(c, sys.argv[2]).fingerprint)
"""


def test_a_prepared_folder_needs_no_code(tmp_path):
    first = load("tiny_shapes", tmp_path, task="classification")
    out = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, tmp_path / "tfds", tmp_path / "other cache"],
        capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert out.stdout.strip() == first.fingerprint, out.stderr


def test_regression(tmp_path):
    d = load("tiny_weights", tmp_path)
    assert d.labels.dtype == np.float32 and sorted(d.labels) == [i / 2 for i in range(10)]
    assert sorted(d.attributes) == ["colour", "kind", "label"]
    assert d.attributes["label"].min() == -1


def levels(d):
    return dict(zip(d.ids.tolist(), (d.images[:, 0, 0, 0] // 8).tolist()))


def test_ids_count_as_the_original_files_do_where_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source, "_NUMBERED", ("tiny_numbered",))
    changes = dict(task="classification")
    stored = levels(load("tiny_numbered", tmp_path, **changes))
    assert sorted(stored) == [f"{s}-{i:06d}" for s in ("test", "train") for i in range(15)]
    assert [stored[f"train-{i:06d}"] for i in range(15)] != list(range(15))
    original = levels(load("tiny_numbered", tmp_path, ids="original", **changes))
    assert original == {f"{s}-{i:06d}": i for s in ("test", "train") for i in range(15)}
    named = levels(load("tiny_numbered", tmp_path, ids="name", **changes))
    assert named == {f"{s}/{i}.png": i for s in ("test", "train") for i in range(15)}
    numbered = levels(load("tiny_numbered", tmp_path, ids="number", **changes))
    assert numbered == {f"{s}-{100 + i:06d}": i for s in ("test", "train") for i in range(15)}


def test_a_set_that_is_not_shuffled_is_in_its_original_order(tmp_path):
    expected = {f"{s}-{i:06d}": i for s in ("test", "train") for i in range(15)}
    for ids in ("stored", "original"):
        assert levels(load("tiny_in_order", tmp_path, ids=ids, task="classification")) == expected


@pytest.mark.parametrize("ids, words", [
    ("original", "is 'original'; allowed with 'tfds:tiny_numbered': 'stored', 'name', 'number', "
                 "'same' .a feature.; 'original' with cifar10, "),
    ("label", "is 'label'; allowed"), ("nothing", "is 'nothing'; allowed"),
    ("same", "two samples of the id 'x'; ids must be unique"),
])
def test_ids_that_a_set_does_not_have(tmp_path, ids, words):
    with pytest.raises(InputError, match=words):
        load("tiny_numbered", tmp_path, ids=ids, task="classification")


def test_task_must_fit(tmp_path):
    with pytest.raises(InputError, match="no feature 'label' that is a number for a regression .*"
                                         "colour, image, kind, label, title, weight"):
        load("tiny_shapes", tmp_path)
    with pytest.raises(InputError, match="no feature 'weight' that is a class label"):
        load("tiny_weights", tmp_path, task="classification")


@pytest.mark.parametrize("name, message", [
    ("no_such_set", "neither prepared under .* nor known to TensorFlow Datasets: .*no_such_set"),
    ("tiny_shapes:9.9.9", "cannot be loaded at version 9.9.9"),
    ("a b", "nor known to TensorFlow Datasets"),
    ("tiny_remote", r"not prepared under .* cannot be prepared here \(ConnectionError: no network"
                    r"\); prepare it where .* with file_format='array_record'"),
    ("tiny_arrays", r"cannot be prepared here \(.*No module named 'tensorflow'\)"),
])
def test_unknown_or_unreachable_data_sets(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        load(name, tmp_path, task="classification")


def test_another_file_format_is_named(tmp_path):
    load("tiny_shapes", tmp_path, task="classification")
    info = tmp_path / "tfds" / "tiny_shapes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match="prepared as 'tfrecord'.*only 'array_record'"):
        load("tiny_shapes", tmp_path, task="classification")
