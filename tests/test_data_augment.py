import types

import jax
import numpy as np
import pytest
from scipy import ndimage

from unlearn_jax.data import augment
from unlearn_jax.data.augment import (
    Augmentation,
    augmentation,
    render_copies,
    transform_image,
)

NOTHING = Augmentation(0.0, 0.0, 0.0, False)
STUDY = Augmentation(10.0, 0.1, 0.2, True)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)


transform = jax.jit(transform_image)


def move(image, degrees=0.0, shift=(0.0, 0.0), zoom=(1.0, 1.0), flip=False):
    return np.asarray(transform(image, degrees, *shift, *zoom, flip))


def grey(rows):
    return np.array(rows, np.uint8)[..., None]


def test_no_change_is_the_identity():
    assert (move(IMAGES[0]) == IMAGES[0]).all()
    # odd and even sizes have their middle on and between pixels
    assert (move(IMAGES[0, :7, :4]) == IMAGES[0, :7, :4]).all()
    copies = render_copies(IMAGES, np.arange(6), np.arange(1, 7), 0, NOTHING)
    assert (copies == IMAGES).all()


def test_quarter_turns():
    image = grey([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert move(image, 90)[..., 0].tolist() == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]
    assert move(image, -90)[..., 0].tolist() == [[7, 4, 1], [8, 5, 2], [9, 6, 3]]
    assert (move(IMAGES[0], 180) == IMAGES[0, ::-1, ::-1]).all()


def test_shifts_repeat_the_edge():
    image = grey([[10, 20, 30, 40], [50, 60, 70, 80]])
    left = move(image, shift=(0, 0.25))[..., 0]
    assert left.tolist() == [[20, 30, 40, 40], [60, 70, 80, 80]]
    right = move(image, shift=(0, -0.5))[..., 0]
    assert right.tolist() == [[10, 10, 10, 20], [50, 50, 50, 60]]
    up = move(image, shift=(0.5, 0))[..., 0]
    assert up.tolist() == [[50, 60, 70, 80], [50, 60, 70, 80]]
    half = move(image, shift=(0, 0.125))[..., 0]
    assert half.tolist() == [[15, 25, 35, 40], [55, 65, 75, 80]]


def test_zoom_by_hand():
    # middle 1.5; zoom 0.5 reads at 0.75, 1.25, 1.75, 2.25: the content is enlarged
    row = grey([[0, 40, 80, 120]])
    assert move(row, zoom=(1, 0.5))[..., 0].tolist() == [[30, 50, 70, 90]]
    # zoom 2 reads at -1.5, 0.5, 2.5, 4.5
    assert move(row, zoom=(1, 2.0))[..., 0].tolist() == [[0, 20, 100, 120]]
    column = row.transpose(1, 0, 2)
    assert move(column, zoom=(0.5, 1))[:, 0, 0].tolist() == [30, 50, 70, 90]


def test_halves_are_rounded_up():
    assert move(grey([[10, 11]]), shift=(0, 0.25))[..., 0].tolist() == [[11, 11]]


def test_flip_comes_last():
    image = grey([[10, 20, 30, 40]])
    assert move(image, flip=True)[..., 0].tolist() == [[40, 30, 20, 10]]
    assert move(image, shift=(0, 0.25), flip=True)[..., 0].tolist() == [[40, 40, 30, 20]]


@pytest.mark.parametrize("shape", [(12, 12, 3), (9, 14, 3)])
def test_everything_at_once_against_scipy(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    degrees, shift, zoom = 7.0, (0.08, -0.05), (0.9, 1.15)
    middle = (np.array(shape[:2]) - 1) / 2
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    grid = np.stack(np.meshgrid(*map(np.arange, shape[:2]), indexing="ij"), -1)
    points = np.multiply(shift, shape[:2]) + np.multiply(zoom, grid - middle)
    points = points @ turn.T + middle
    expected = np.stack([
        ndimage.map_coordinates(image[..., c].astype(float), points.transpose(2, 0, 1), order=1,
                                mode="nearest") for c in range(3)], -1)
    result = move(image, degrees, shift, zoom).astype(float)
    assert np.abs(result - expected).max() < 0.51


def test_a_copy_depends_on_sample_copy_and_seed_alone(monkeypatch):
    source, copy = np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)
    copies = render_copies(IMAGES, source, copy, 3, STUDY)
    assert (copies[copy == 0] == IMAGES).all()
    assert len(np.unique(copies.reshape(30, -1), axis=0)) == 30
    order = np.random.default_rng(2).permutation(30)
    assert (render_copies(IMAGES, source[order], copy[order], 3, STUDY) == copies[order]).all()
    assert (render_copies(IMAGES, source[7:8], copy[7:8], 3, STUDY) == copies[7:8]).all()
    other = render_copies(IMAGES, source, copy, 4, STUDY)
    assert (other != copies).any((1, 2, 3)).tolist() == (copy != 0).tolist()
    monkeypatch.setattr(augment, "CHUNK", 7)
    assert (render_copies(IMAGES, source, copy, 3, STUDY) == copies).all()


def test_the_same_image_in_two_rows_gets_two_changes():
    twins = np.stack([IMAGES[0], IMAGES[0]])
    one, two = render_copies(twins, np.array([0, 1]), np.array([1, 1]), 0, STUDY)
    assert (one != two).any()


def test_changes_stay_within_the_settings():
    n = 300
    source, copy = np.zeros(n, int), np.arange(1, n + 1)
    mirrored = render_copies(IMAGES, source, copy, 0, Augmentation(0.0, 0.0, 0.0, True))
    same = (mirrored == IMAGES[0]).all((1, 2, 3))
    assert (same | (mirrored == IMAGES[0, :, ::-1]).all((1, 2, 3))).all()
    assert 0.4 < same.mean() < 0.6

    # a ramp shows a shift as a change of value at the middle: 10 grey levels per pixel
    ramp = np.broadcast_to(np.arange(21, dtype=np.uint8)[None, None, :, None] * 10, (1, 21, 21, 3))
    for image, axis in ((ramp, 2), (ramp.transpose(0, 2, 1, 3), 1)):
        moved = render_copies(image, source, copy, 0, Augmentation(0.0, 0.1, 0.0, False))
        pixels = (moved[:, 10, 10, 0].astype(float) - 100) / 10
        assert -2.11 < pixels.min() < -1.9 and 1.9 < pixels.max() < 2.11, axis
        assert abs(pixels.mean()) < 0.25
        # a zoom as a change of slope
        zoomed = render_copies(image, source, copy, 0, Augmentation(0.0, 0.0, 0.2, False))
        slopes = np.diff(zoomed[..., 0].astype(float), axis=axis)[:, 10, 10] / 10
        assert 0.7 < slopes.min() < 0.85 and 1.15 < slopes.max() < 1.3
        # and a rotation by r tilts the ramp: slopes of cos r along and sin r across it
        turned = render_copies(image, source, copy, 0, Augmentation(10.0, 0.0, 0.0, False))
        tilt = np.diff(turned[..., 0].astype(float), axis=3 - axis)[:, 8:12, 8:12].mean((1, 2))
        angles = np.rad2deg(np.arcsin(tilt / 10))
        assert -10.5 < angles.min() < -9 and 9 < angles.max() < 10.5


def test_one_compilation_serves_all_chunks():
    render_copies(IMAGES, np.zeros(3, int), np.arange(3), 0, STUDY)
    before = augment._render_chunk._cache_size()
    n = 2 * augment.CHUNK + 5
    render_copies(IMAGES, np.zeros(n, int), np.arange(n), 1, Augmentation(10.0, 0.1, 0.2, True))
    assert augment._render_chunk._cache_size() == before


def test_no_copies_at_all():
    none = np.zeros(0, np.int32)
    assert render_copies(IMAGES, none, none, 0, STUDY).shape == (0, 12, 12, 3)


def test_settings_come_from_the_config():
    data = types.SimpleNamespace(rotation=10, shift=0.1, zoom=0.2, flip=True)
    assert augmentation(data) == STUDY


@pytest.mark.parametrize("values, message", [
    ((181.0, 0.0, 0.0, False), "rotation_degrees is 181.0; allowed: from 0 to 180"),
    ((0.0, -0.1, 0.0, False), "shift is -0.1"),
    ((0.0, 0.0, 1.0, False), "zoom is 1.0"),
    ((0.0, 0.0, float("nan"), False), "zoom is nan"),
])
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(*values)


@pytest.mark.parametrize("changes, message", [
    (dict(images_NHWC=IMAGES.astype(np.float32)), "images are float32"),
    (dict(images_NHWC=IMAGES[0]), r"images are uint8 \[12, 12, 3\]"),
    (dict(source_n=np.array([0.0, 1.0])), r"source is float64 \[2\]"),
    (dict(copy_n=np.array([[1, 1]])), r"copy is int64 \[1, 2\]"),
    (dict(copy_n=np.array([1])), "source has 2 rows and copy 1"),
    (dict(source_n=np.array([0, 6])), "source rows run from 0 to 6; allowed: 0 to 5"),
    (dict(source_n=np.array([-1, 0])), "source rows run from -1"),
    (dict(copy_n=np.array([1, -1])), "copy -1 is asked for"),
    (dict(seed=-1), "seed is -1"),
    (dict(seed=2**31), "seed is 2147483648"),
])
def test_wrong_arguments_are_refused(changes, message):
    good = dict(images_NHWC=IMAGES, source_n=np.array([0, 1]), copy_n=np.array([1, 1]), seed=0,
                settings=STUDY)
    with pytest.raises(ValueError, match=message):
        render_copies(**(good | changes))


def test_an_image_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match="image is float32"):
        move(IMAGES[0].astype(np.float32))
