"""The selection steps in their order, the decoder's edges, digits and synthetic faces."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from test_splits import dataset
from test_splits import splits as make

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data import quality, stratified
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.decode import UnusableImage, check_image, decode_image
from unlearn_jax.data.source import Source, in_memory
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError
from unlearn_jax.stages.loading import (
    asked_by_number,
    lost_unasked,
    only_label,
    seen_elsewhere,
    without_labels,
)


def settings(**changes):
    c = default_config().data
    with c.unlocked():
        c.update(changes)
    return c


def fake_source(monkeypatch, labels, task="regression", class_names=(), images=None, dropped=()):
    """Makes 'digits' a source of these labels; by default all pixels of image i are i."""
    n = len(labels)
    if images is None:
        images = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.zeros((8, 8, 3), np.uint8)
    samples = in_memory(images, labels, np.array([f"id-{i:03d}" for i in range(n)]),
                        {"row": np.arange(n, dtype=np.int32)})
    samples = dataclasses.replace(samples, dropped=dropped)
    source = Source("digits", task, "years", class_names, samples)
    monkeypatch.setitem(data.SOURCES, "digits", lambda settings, cache: source)


def check_rows(d):
    """Every column of the selected rows still belongs to the same sample."""
    rows = d.attributes["row"]
    assert d.ids.tolist() == [f"id-{i:03d}" for i in rows]
    assert (d.images[:, 3, 3, 1] == rows % 256).all()


def test_stratified_counts_by_hand():
    # 0.3 of 10, 5, 4, 1: 3, 1.5, 1.2, 0.3; six in all, so 1.5 gets the sixth
    labels = np.repeat([20, 30, 40, 50], [10, 5, 4, 1])
    rows = stratified(labels, 0.3, seed=0)
    assert (np.diff(rows) > 0).all()
    assert dict(zip(*np.unique(labels[rows], return_counts=True))) == {20: 3, 30: 2, 40: 1}


def test_stratified_total_is_right_and_samples_differ_by_seed():
    labels = np.random.default_rng(0).integers(0, 100, 999)
    for fraction in (0.1, 0.3, 0.77, 1.0):
        rows = stratified(labels, fraction, seed=0)
        assert len(rows) == round(fraction * 999)
        counts = np.bincount(labels[rows], minlength=100)
        assert (np.abs(counts - fraction * np.bincount(labels, minlength=100)) < 1).all()
    assert (stratified(labels, 0.3, 0) == stratified(labels, 0.3, 0)).all()
    assert set(stratified(labels, 0.3, 0)) != set(stratified(labels, 0.3, 1))


def test_stratified_gives_rare_labels_their_share_together():
    # 200 labels of one sample each: a share of every label would be none
    assert len(stratified(np.arange(200), 0.3, seed=0)) == 60


def test_steps_come_in_order_with_histograms(monkeypatch, tmp_path):
    labels = np.repeat([10.0, 20.0, 60.0, 61.0], [20, 40, 40, 20])
    lost = (Dropped("bad.jpg", "read", "truncated"),)
    fake_source(monkeypatch, labels, dropped=lost)
    monkeypatch.setattr(quality, "quality_reasons", lambda images, _: [
        "blurred: very" if v % 2 else "" for v in images[:, 0, 0, 0]])
    d = data.load(settings(source="digits", fraction=0.5, label_min=20, label_max=60,
                           quality="on"), tmp_path)
    assert d.histograms["all"] == {"10": 20, "20": 40, "60": 40, "61": 20}
    assert d.histograms["fraction"] == {"10": 10, "20": 20, "60": 20, "61": 10}
    assert d.histograms["range"] == {"20": 20, "60": 20}
    assert list(d.histograms) == ["all", "fraction", "range", "quality"]
    check_rows(d)
    assert not (d.attributes["row"] % 2).any()
    refused = [x for x in d.dropped if x.step == "quality"]
    assert {x.reason for x in refused} == {"blurred: very"}
    assert sum(d.histograms["quality"].values()) == len(d.ids) == 40 - len(refused)
    assert d.dropped[0] == lost[0]
    # every sample is in exactly one place
    places = [*d.ids, *d.left_out_ids, *(x.id for x in refused)]
    assert sorted(places) == [f"id-{i:03d}" for i in range(120)]
    assert len(d.left_out_ids) == 80


def test_what_each_step_leaves_out_is_said(monkeypatch, tmp_path, caplog):
    fake_source(monkeypatch, np.repeat([10.0, 20.0, 60.0, 61.0], [20, 40, 40, 20]))
    own = settings(source="digits", fraction=0.5, label_min=20, label_max=60)
    with caplog.at_level("INFO", "absl"):
        d = data.load(own, tmp_path)
    assert "60 of 120 images are outside the share of 0.5" in caplog.text
    assert "20 of 60 images have labels outside 20 to 60" in caplog.text
    # the default range, which somebody may not know of
    assert lost_unasked(own, d).startswith("20 of 60 samples have labels outside 20 to 60")
    for changes in (dict(source="utkface"), dict(label_min=19), dict(label_max=61)):
        assert not lost_unasked(settings(**{**own.to_dict(), **changes}), d)
    fake_source(monkeypatch, np.repeat([20.0, 60.0], 5))
    assert not lost_unasked(own, data.load(own, tmp_path))


def test_steps_that_are_off_leave_no_histogram(monkeypatch, tmp_path):
    fake_source(monkeypatch, [0, 1, 0, 1], "classification", ("a", "b"))
    d = data.load(settings(source="digits", task="classification"), tmp_path)
    assert d.histograms == {"all": {"0": 2, "1": 2}}
    assert d.labels.dtype == np.int32 and d.num_classes == 2 and d.class_names == ("a", "b")
    assert len(d.left_out_ids) == 0
    check_rows(d)


def test_histograms_count_labels_that_are_close(monkeypatch, tmp_path):
    fake_source(monkeypatch, 30 + np.arange(60) * 1e-5)
    d = data.load(settings(source="digits"), tmp_path)
    assert sum(d.histograms["all"].values()) == sum(d.histograms["range"].values()) == 60


def test_equal_images_are_known_and_dropped_when_asked(monkeypatch, tmp_path):
    images = np.zeros((6, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = 1, 2, 1, 3, 1, 2
    fake_source(monkeypatch, [30.0, 31, 30, 32, 33, 31], images=images)
    kept = data.load(settings(source="digits"), tmp_path)
    assert kept.twins.tolist() == [0, 1, 0, 3, 0, 1] and not kept.dropped
    assert kept.repeated(np.array([4, 5]), np.array([2, 3])) == 1
    once = data.load(settings(source="digits", repeats="drop"), tmp_path)
    assert once.ids.tolist() == ["id-000", "id-001", "id-003"]
    assert once.images[:, 0, 0, 0].tolist() == [1, 2, 3] and once.twins.tolist() == [0, 1, 2]
    assert once.histograms["repeats"] == {"30": 1, "31": 1, "32": 1}
    assert once.dropped == (
        Dropped("id-002", "repeats", "the same pixels as another image: id-000"),
        Dropped("id-004", "repeats",
                "the same pixels as another image, under another label: id-000"),
        Dropped("id-005", "repeats", "the same pixels as another image: id-001"))
    assert once.fingerprint != kept.fingerprint


def test_images_on_both_sides_of_a_split_are_told(monkeypatch, tmp_path):
    images = np.zeros((40, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(40) % 20  # each image under two ids, at two ages
    fake_source(monkeypatch, np.repeat([30.0, 50.0], 20), images=images)
    c = default_config()
    with c.unlocked():
        c.data.source, c.forget.sets = "digits", ("30-40",)
    d = data.load(c.data, tmp_path)
    splits = make_splits(d, c.data, c.forget)
    own, = splits.forget_sets
    both = {row % 20 for row in splits.retain_train(own)}
    forgotten = splits.forget(own)
    n = sum(row in both for row in forgotten)
    test = sum(row % 20 in set(splits.train % 20) for row in splits.test)
    assert n and test
    assert list(seen_elsewhere(d, splits)) == [
        f"{test} of {len(splits.test)} test samples have the same pixels as a training sample; "
        "config.data.repeats='drop' keeps one of each",
        f"forget set 30-40: {n} of {len(forgotten)} samples have the same pixels as a sample of "
        "the retain set, so that M_R has learned them too; config.data.repeats='drop' keeps one "
        "of each"]
    c.data.repeats, c.forget.sets = "drop", ("random:0.5",)
    once = data.load(c.data, tmp_path)
    assert not list(seen_elsewhere(once, make_splits(once, c.data, c.forget)))


def test_fingerprint_is_of_the_selected_content(monkeypatch, tmp_path):
    images = np.zeros((40, 8, 8, 3), np.uint8)
    labels = np.repeat([30, 70], 20)

    def load():
        fake_source(monkeypatch, labels, images=images.copy())
        return data.load(settings(source="digits"), tmp_path)

    first = load()
    assert len(first.ids) == 20
    images[39, 0, 0, 0] = 1  # not selected
    assert load().fingerprint == first.fingerprint
    images[3, 7, 7, 2] = 1
    assert load().fingerprint != first.fingerprint


@pytest.mark.parametrize("changes, message", [
    (dict(source="mnist"), "config.data.source is 'mnist'; allowed: synthetic, utkface, digits, "
                           "folder, arrays, tfds:NAME"),
    (dict(source="tfds"), "allowed: synthetic"),
    (dict(source="utkface:x"), "allowed: synthetic"),
    (dict(source="digits"), "config.data.task is 'regression'; the source 'digits' is a "
                            "classification"),
    (dict(source="synthetic", task="classification"), "is a regression"),
    (dict(label_min=150, label_max=200), "label_min=150, label_max=200 leaves no sample of 40; "
                                         "labels there run from"),
    (dict(fraction=0.01), "config.data.fraction=0.01 leaves no sample of 40"),
    (dict(quality="on", quality_contrast=1e9), "config.data.quality='on' leaves no sample"),
])
def test_impossible_settings(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(settings(size=40, **changes), tmp_path)


def test_numbers_become_classes(monkeypatch, tmp_path):
    fake_source(monkeypatch, np.array([20, 29, 30, 44, 45, 60, 61]), task="regression")
    d = data.load(settings(source="digits", task="classification", groups=(20.0, 30.0, 45.0)),
                  tmp_path)
    assert d.labels.tolist() == [0, 0, 1, 1, 2, 2] and d.labels.dtype == np.int32
    assert (d.task, d.num_classes, d.label_unit) == ("classification", 3, "class")
    assert d.class_names == ("20to30", "30to45", "45to60")
    assert "60" in d.histograms["range"] and "61" not in d.histograms["range"]
    with pytest.raises(InputError, match="has classes of its own"):
        fake_source(monkeypatch, np.arange(7), task="classification")
        data.load(settings(source="digits", task="classification", groups=(20.0, 30.0)), tmp_path)


def test_synthetic(tmp_path):
    d = data.load(settings(size=200, image_size=16), tmp_path)
    assert sum(d.histograms["all"].values()) == 200
    assert len(d.ids) + len(d.left_out_ids) == 200
    assert d.labels.min() >= 20 and d.labels.max() <= 60
    again = data.load(settings(size=200, image_size=16), tmp_path)
    assert again.fingerprint == d.fingerprint
    assert not list(tmp_path.iterdir())


def test_digits(tmp_path):
    d = data.load(settings(source="digits", task="classification", image_size=16), tmp_path)
    assert d.images.shape == (1797, 16, 16, 3) and d.num_classes == 10
    assert d.class_names == tuple("0123456789")
    assert d.labels[:10].tolist() == list(range(10))
    # the first digit is a nought: a dark hole inside, bright strokes beside it, grey throughout
    nought = d.images[0].astype(int)
    assert nought[8, 8].max() < 20 and nought[8, 4:6].max() > 120
    assert (nought[..., 0] == nought[..., 2]).all()


def encode(pixels, kind="JPEG", **options):
    f = io.BytesIO()
    Image.fromarray(pixels).save(f, kind, **options)
    return f.getvalue()


def halves(height=60, width=60):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2:] = (240, 120, 30)
    return pixels


@pytest.mark.parametrize("content", [
    encode(halves(), quality=95, subsampling=0),
    encode(halves(), "PNG"),
    encode(halves(120, 200), quality=95, subsampling=0),  # the central square is taken
    halves(),
    np.asarray(Image.fromarray(halves()).convert("RGB")),
])
@pytest.mark.parametrize("size", [20, 60, 90])
def test_decoding_keeps_colours_and_places(content, size):
    image = decode_image(content, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert np.abs(image[:, :size // 2 - 3].astype(int)).max() < 9
    assert np.abs(image[:, size // 2 + 3:].astype(int) - (240, 120, 30)).max() < 9


def test_reduction_averages():
    # a fine chessboard becomes grey: nothing is picked at random
    board = ((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)
    image = decode_image(np.stack([board] * 3, -1), 32)
    assert np.abs(image.astype(int) - 128).max() < 3


def test_grey_and_four_colour_images():
    grey = np.full((40, 40), 90, np.uint8)
    for content in (encode(grey), encode(grey, "PNG"), grey, grey[..., None]):
        assert np.abs(decode_image(content, 32).astype(int) - 90).max() < 3
    f = io.BytesIO()
    Image.new("CMYK", (40, 40), (255, 0, 0, 0)).save(f, "JPEG", quality=95)
    cyan = decode_image(f.getvalue(), 32).astype(int)
    assert cyan[..., 0].max() < 12 and cyan[..., 1:].min() > 240


@pytest.mark.parametrize("content, reason", [
    (encode(halves())[:-2], "truncated"),
    (encode(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8), "PNG")[:3000],
     "truncated"),
    (b"", "undecodable: not an image of a format that is read"),
    (b"\xff\xd8\xff\xe0 nonsense", "truncated"),
    (encode(halves(31, 300)), "smaller than 32 pixels"),
    (encode(halves(300, 31), "PNG"), "smaller than 32 pixels"),
    (np.zeros((31, 40, 3), np.uint8), "smaller than 32 pixels"),
    (np.zeros((40, 40, 3), np.float32), "not 8 bits a channel: float32"),
    (np.zeros((40, 40, 4), np.uint8), r"neither grey nor RGB: shape \[40, 40, 4\]"),
    (encode(np.zeros((9000, 8000), np.uint8), "PNG"), "larger than 64000000 pixels"),
])
def test_unusable_images(content, reason):
    with pytest.raises(UnusableImage, match=f"^{reason}$"):
        decode_image(content, 32)
    with pytest.raises(UnusableImage, match=f"^{reason}$"):
        check_image(content)


def test_one_label_is_named():
    rows = np.arange(4)
    ages = dataset([30, 30, 30, 30, 40])
    assert only_label(ages, rows) == "label '30'" and only_label(ages, np.arange(5)) is None
    pets = dataset([1, 1, 1, 1, 0], "classification", ("cat", "dog"))
    assert only_label(pets, rows) == "class 'dog'" and only_label(pets, np.arange(5)) is None


def test_a_forget_set_that_leaves_one_class_is_warned_of():
    pets = dataset(np.arange(60) % 2, "classification", ("cat", "dog"))
    assert [*without_labels(pets, make(pets, "class:dog"))] == [
        "forget set class-dog: all training samples that it leaves have the class 'cat'; M_R can "
        "learn nothing else"]
    assert not [*without_labels(pets, make(pets, "random:0.1"))]


def test_ids_that_count_stored_examples_are_warned_of():
    c = default_config()
    c.data.source, c.forget.sets = "tfds:mnist", ("ids:requests.txt",)
    assert "config.data.ids='original'" in asked_by_number(c)
    for key, value in (("ids", "original"), ("source", "folder")):
        other = c.copy_and_resolve_references()
        other.data[key] = value
        assert not asked_by_number(other)
    c.forget.sets = ("class:3",)
    assert not asked_by_number(c)


def test_synthetic_images_beyond_memory_are_refused_before_they_are_drawn(tmp_path):
    c = default_config().data
    c.size = 10**9
    with pytest.raises(InputError, match="config.data.size is 1000000000: so many images of 32 "
                                         "pixels take 3.572 TB, and this machine has"):
        data.load(c, tmp_path)
