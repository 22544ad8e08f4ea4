"""Splits that come with the data: folders, a column of a .csv, and data sets of TFDS."""

import csv
import dataclasses
import json
import types

import numpy as np
import pytest
from fake_workdir import change_json, text_report, write_workdir
from PIL import Image
from test_data_tfds import TinyNumbered  # noqa: F401  TFDS finds a builder once it is defined
from test_splits import dataset

from unlearn_jax import data
from unlearn_jax.config import ConfigError, check_config, default_config
from unlearn_jax.data import given
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError
from unlearn_jax.stages.graph import original_stage
from unlearn_jax.stages.workdir import claim

PETS = {"train/cat": 4, "train/dog": 4, "val/cat": 1, "val/dog": 1, "test/cat": 2, "test/dog": 1}


def write_images(root, layout):
    """Images `FOLDER/0.png` and so on below a root, no two alike; `layout` has their numbers."""
    level = 0
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (level := level + 3,) * 3).save(root / folder / f"{i}.png")
    return root


def write_csv(root, header, rows):
    """A table of images, which are written as well; returns its path."""
    for n, row in enumerate(rows):
        place = root / row[header.index("path")]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (5 * n,) * 3).save(place)
    with (root / "labels.csv").open("w", newline="") as f:
        csv.writer(f).writerows([header, *rows])
    return root / "labels.csv"


def config(path, **changes):
    c = default_config()
    with c.unlocked():
        c.data.update(source="folder", path=str(path), image_size=16, task="classification",
                      split=("given",), **changes)
        c.forget.sets = ("class:cat",)
    return c


def load(c, root):
    dataset = data.load(c.data, root.parent / "cache")
    return dataset, make_splits(dataset, c.data, c.forget)


def named(dataset, rows):
    return dataset.ids[rows].tolist()


def test_the_splits_of_a_folder_are_taken_as_they_are(tmp_path):
    root = write_images(tmp_path / "pets", PETS)
    (root / "README.md").write_text("pets")
    (root / "notes" / "mine").mkdir(parents=True)
    (root / "notes" / "mine" / "1.txt").write_text("no image")
    (root / "train" / "loose.png").write_bytes((root / "train/cat/0.png").read_bytes())
    for seed in (0, 1):
        d, s = load(config(root, seed=seed), root)
        assert d.class_names == ("cat", "dog")
        assert named(d, s.train) == [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
        assert named(d, s.validation) == ["val/cat/0.png", "val/dog/0.png"]
        assert named(d, s.test) == ["test/cat/0.png", "test/cat/1.png", "test/dog/0.png"]
        assert d.labels[s.test].tolist() == [0, 0, 1]
        (cats,) = s.forget_sets
        assert named(d, cats.train) == [f"train/cat/{i}.png" for i in range(4)]
        assert named(d, cats.validation) == ["val/cat/0.png"]
        assert named(d, cats.peers) == ["test/cat/0.png", "test/cat/1.png"]
    assert given.drawn(d) == () and d.attributes == {}
    assert {x.id: x.reason for x in d.dropped} == {
        "README.md": "not in a folder of a split", "train/loose.png": "not in a class folder",
        "notes/mine/1.txt": "not in a folder of a split"}


@pytest.mark.parametrize("names", [("Train", "VALID", "Test"), ("train", "validation", "test")])
def test_other_spellings_of_a_split(tmp_path, names):
    root = write_images(tmp_path / "pets", {f"{n}/{c}": 2 for n in names for c in ("cat", "dog")})
    d, s = load(config(root), root)
    for name, rows in zip(names, s.parts):
        assert named(d, rows) == [f"{name}/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)]


def test_ids_of_a_request_keep_the_name_of_the_split(tmp_path):
    root = write_images(tmp_path / "pets", PETS)
    (tmp_path / "asked.txt").write_text("train/cat/1.png\nval/dog/0.png\ntest/cat/0.png\n")
    c = config(root)
    c.forget.sets = (f"ids:{tmp_path / 'asked.txt'}",)
    d, s = load(c, root)
    assert named(d, s.forget(s.forget_sets[0])) == ["train/cat/1.png", "val/dog/0.png"]
    assert s.forget_sets[0].in_test == 1


COLUMNS = {"path": ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"],
           "label": ["cat", "dog", "cat", "dog", "cat", "dog"],
           "split": ["train", "train", "train", "train", "test", "val"],
           "gender": ["0", "1", "1", "0", "1", "0"]}


@pytest.mark.parametrize("order", [("path", "label", "split", "gender"),
                                   ("gender", "split", "label", "path")])
def test_columns_of_a_table_count_by_name(tmp_path, order):
    table = write_csv(tmp_path / "t", order, list(zip(*(COLUMNS[name] for name in order))))
    c = config(table)
    c.forget.sets = ("class:cat", "gender:1")
    d, s = load(c, table)
    assert [named(d, rows) for rows in s.parts] == [
        ["a.png", "b.png", "c.png", "d.png"], ["f.png"], ["e.png"]]
    assert sorted(d.attributes) == ["gender"] and d.attributes["gender"].tolist() == [
        0, 1, 1, 0, 1, 0]
    cats, ones = s.forget_sets
    assert named(d, cats.train) == ["a.png", "c.png"] and named(d, cats.peers) == ["e.png"]
    assert named(d, ones.train) == ["b.png", "c.png"]


def test_a_table_reads_the_same_whatever_the_order_of_its_columns(tmp_path):
    # An attribute called split, of whole numbers, is one as before.
    columns = {**COLUMNS, "split": ["0", "1", "0", "1", "0", "1"]}
    found = []
    for i, order in enumerate([("path", "label", "split", "gender"),
                               ("split", "gender", "label", "path")]):
        table = write_csv(tmp_path / str(i), order, list(zip(*(columns[n] for n in order))))
        c = config(table)
        c.data.split = (0.6, 0.2, 0.2)
        found.append(data.load(c.data, tmp_path / "cache"))
        assert found[i].attributes["split"].tolist() == [0, 1, 0, 1, 0, 1]
        assert not len(found[i].given_splits)
    assert found[0].fingerprint == found[1].fingerprint


def _of(labels, splits):
    """A data set of two classes with given splits."""
    return dataset(labels, "classification", ("cat", "dog"),
                   given_splits=np.asarray(splits, np.int8))


def _settings(seed=0, shares=(0.6, 0.2, 0.2), split=("given",)):
    return types.SimpleNamespace(split=split, split_shares=shares, seed=seed)


@pytest.mark.parametrize("n, name", [(1, "validation"), (2, "test")])
def test_a_missing_split_is_drawn_from_train_by_the_data_seed(n, name):
    held = 3 - n  # the other one of validation and test is given
    d = _of(np.arange(100) % 2, [0] * 80 + [held] * 20)
    parts = given.divide(d, _settings())
    assert [len(p) for p in parts] == [60, 20, 20] and given.drawn(d) == (name,)
    assert parts[held].tolist() == list(range(80, 100))
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert all((np.diff(p) > 0).all() and p.dtype == np.int32 for p in parts)
    assert (given.divide(d, _settings())[n] == parts[n]).all()
    assert (given.divide(d, _settings(seed=1))[n] != parts[n]).any()
    assert len(given.divide(d, _settings(shares=(0.9, 0.05, 0.05)))[n]) == round(80 * 0.05 / 0.95)


def test_if_both_are_missing_the_draw_is_the_usual_one():
    d = _of(np.arange(50) % 2, [0] * 50)
    settings = types.SimpleNamespace(balance=0, inject="", label_min=0, label_max=1, label_unit="",
                                     source="folder", **vars(_settings()))
    found = make_splits(d, settings, types.SimpleNamespace(sets=()))
    settings.split = (0.6, 0.2, 0.2)
    usual = make_splits(d, settings, types.SimpleNamespace(sets=()))
    assert all((a == b).all() for a, b in zip(found.parts, usual.parts))
    assert given.drawn(d) == ("validation", "test") and not found.forget_sets


def test_a_share_of_the_data_is_the_same_share_of_each_split(tmp_path):
    root = write_images(tmp_path / "pets", {f"{s}/{c}": n for s, n in (
        ("train", 12), ("val", 4), ("test", 8)) for c in ("cat", "dog")})
    d, s = load(config(root, fraction=0.5), root)
    assert [len(rows) for rows in s.parts] == [12, 4, 8]
    assert [d.labels[rows].tolist().count(0) for rows in s.parts] == [6, 2, 4]


def _folder(**changes):
    layout = {**PETS, **changes}
    return {k: n for k, n in layout.items() if n is not None}


NO_TRAIN = {"train/cat": None, "train/dog": None}


@pytest.mark.parametrize("layout, words", [
    (_folder(**NO_TRAIN), r"has 'test', 'val' and no 'train', which config.data.split='given'"),
    (_folder(**{"extra/cat": 1}), r"has the split 'extra', which .* does not know; allowed: train, "
                                  "val, valid, validation, test"),
    (_folder(**{"valid/cat": 1}), "has the splits 'val' and 'valid', which both mean validation"),
    (_folder(**{"test/hen": 2}), "class 'hen' has 2 test samples and none in train, so that no "
                                 "model can learn it; classes in train: cat, dog"),
    (_folder(**{"val/hen": 1}), "class 'hen' has 1 validation samples and none in train"),
    (_folder(**{"test/cat": None, "test/dog": 0}), "has the split 'test', and no usable image "
                                                   "in it; mend its images, or remove the split"),
    ({"cat": 2, "dog": 2}, "holds 'cat', 'dog' and no folder 'train'; config.data.split='given'"),
    ({"train": 4, "test": 2}, "holds no usable image"),
], ids=lambda value: "" if isinstance(value, dict) else value[:20])
def test_folders_whose_splits_cannot_be_used(tmp_path, layout, words):
    root = write_images(tmp_path / "pets", layout)
    with pytest.raises(InputError, match=words):
        load(config(root), root)


@pytest.mark.parametrize("changes, words", [
    ({"split": ["train", "train", "train", "", "test", "val"]},
     "line 5 has the split ''; allowed: train, val, valid, validation, test"),
    ({"split": ["train", "train", "dev", "train", "test", "val"]}, "line 4 has the split 'dev'; "),
    ({"split": ["test"] * 4 + ["val"] * 2}, "has 'test', 'val' and no 'train'"),
    ({"split": ["val", "train", "train", "train", "test", "valid"]},
     "has the splits 'val' and 'valid', which both mean validation"),
    ({"path": ["a.png", "b.png", "c.png", "d.png", "a.png", "f.png"]},
     "line 6 repeats the path 'a.png' of line 2, and puts it in test after train"),
    ({"path": ["a.png", "b.png", "c.png", "d.png", "./b.png", "f.png"]},
     "line 6 holds './b.png', the file of line 3, 'b.png', and puts it in test after train"),
    ({"label": ["cat", "dog", "cat", "dog", "cat", "hen"]}, "class 'hen' has 1 validation samples"),
])
def test_tables_whose_splits_cannot_be_used(tmp_path, changes, words):
    columns = {**COLUMNS, **changes}
    table = write_csv(tmp_path / "t", tuple(columns), list(zip(*columns.values())))
    with pytest.raises(InputError, match=words):
        load(config(table), table)


def test_a_table_without_the_column_and_a_column_that_is_not_asked_for(tmp_path):
    columns = {k: v for k, v in COLUMNS.items() if k != "split"}
    table = write_csv(tmp_path / "t", tuple(columns), list(zip(*columns.values())))
    with pytest.raises(InputError, match=r"must name the columns path, label and split, .*'given'"):
        load(config(table), table)
    table = write_csv(tmp_path / "t", tuple(COLUMNS), list(zip(*COLUMNS.values())))
    c = config(table)
    c.data.split = (0.6, 0.2, 0.2)
    with pytest.raises(InputError, match="line 2 has the split 'train': set config.data.split="
                                         "given to take the splits of the file, or remove the"):
        load(c, table)


def test_a_folder_of_splits_is_refused_by_name_unless_they_are_asked_for(tmp_path):
    c = config(write_images(tmp_path / "pets", PETS))
    c.data.split = (0.6, 0.2, 0.2)
    with pytest.raises(InputError, match="holds 'test', 'train', 'val', which are splits and no "
                                         "classes; .* set config.data.split=given to take these"):
        data.load(c.data, tmp_path / "cache")


def test_folders_of_splits_beside_others_are_classes_with_a_warning(tmp_path, caplog):
    c = config(write_images(tmp_path / "pets", {"train": 1, "test": 1, "hen": 1}))
    c.data.split = (0.6, 0.2, 0.2)
    assert data.load(c.data, tmp_path / "cache").class_names == ("hen", "test", "train")
    assert "holds 'test', 'train', which count as classes here" in caplog.text


def test_steps_of_preparation_must_leave_something_of_each_split(tmp_path):
    columns = {**COLUMNS, "label": ["20", "21", "22", "23", "90", "24"]}
    table = write_csv(tmp_path / "t", tuple(columns), list(zip(*columns.values())))
    c = config(table)
    c.data.task = "regression"
    with pytest.raises(InputError, match="none of the 1 test samples is left after the steps"):
        load(c, table)


def test_the_splits_of_a_tfds_set(tmp_path):
    c = config(tmp_path / "tfds", ids="original")
    c.data.source = "tfds:tiny_in_order"
    d = data.load(c.data, tmp_path / "cache")
    assert given.drawn(d) == ("validation",) and d.attributes == {}
    train, validation, test = given.divide(d, c.data)
    assert named(d, test) == [f"test-{i:06d}" for i in range(15)]
    assert {i[:5] for i in named(d, np.concatenate([train, validation]))} == {"train"}
    assert (len(train), len(validation)) == (11, 4)
    c.data.ids = "same"  # a feature with the same text everywhere
    with pytest.raises(InputError, match="has the image 'x' in two splits, 'test' and 'train'"):
        data.load(c.data, tmp_path / "cache")


@pytest.mark.parametrize("changes, words", [
    ({"source": "digits"}, "config.data.split is 'given', but 'digits' has no splits; allowed"),
    ({"split": ("gven",)}, "config.data.split is .*; allowed: a tuple of float of length 3, or 'g"),
    ({"split_shares": (0.5, 0.6, 0.2)}, "split_shares is .*; allowed: three positive shares that"),
    ({"split": (0.6, 0.2, 0.2), "split_shares": (0.8, 0.1, 0.1)},
     "split_shares is .*; allowed: .* unless data.split='given'; data.split has the shares"),
])
def test_configs_that_cannot_be_meant(changes, words):
    c = config("pets")
    c.train.loss = "cross_entropy"
    c.eval.update(alphas=(0.5,), alpha=0.5)
    check_config(c)
    c.data.update(changes)
    with pytest.raises(ConfigError, match=words):
        check_config(c)


def test_models_of_other_splits_are_other_models():
    labels = np.arange(20) % 2

    def key(splits, **changes):
        c = config("pets", **changes)
        c.forget.sets = ()
        d = _of(labels, splits)
        study = types.SimpleNamespace(config=c, seeds=c.seeds, dataset=d,
                                      splits=make_splits(d, c.data, c.forget))
        return original_stage(study).key

    first = key([0] * 12 + [1] * 4 + [2] * 4)
    assert first == key([0] * 12 + [1] * 4 + [2] * 4)
    assert first != key([0] * 12 + [2] * 4 + [1] * 4)  # the same data, and fingerprint
    drawn = key([0] * 16 + [2] * 4)
    assert drawn != first
    assert drawn != key([0] * 16 + [2] * 4, split_shares=(0.5, 0.25, 0.25))


def test_the_record_and_the_report_say_which_splits_were_given(tmp_path):
    labels = np.arange(20) % 2
    for name, splits, drawn in (("a", [0] * 16 + [2] * 4, ["validation"]),
                                ("b", [0] * 12 + [1] * 4 + [2] * 4, [])):
        d = _of(labels, splits)
        with claim(tmp_path / name, default_config(), "ft", "command") as run:
            run.write_data(dataclasses.replace(d, histograms={"all": {"0": 10, "1": 10}}),
                           make_splits(d, config("").data, types.SimpleNamespace(sets=())))
        assert json.loads((tmp_path / name / "data.json").read_text())["drawn_splits"] == drawn

    work = write_workdir(tmp_path / "work", samples=12, history=False)
    assert "came with" not in text_report(work)
    change_json(work / "data.json", lambda d: d.update(drawn_splits=["validation"]))
    text = " ".join(text_report(work).split())
    assert "Intervals over seeds are conditional on the splits that came with the data" in text
    assert ("The data came with the splits train and test; validation was drawn from train. The "
            "splits are the same for all seeds") in text
