import types

import numpy as np
import pytest
from scipy import ndimage

from unlearn_jax.config import default_config
from unlearn_jax.data import quality
from unlearn_jax.data.quality import assess, quality_reasons
from unlearn_jax.data.synthetic import load_synthetic

BOUNDS = types.SimpleNamespace(quality_sharpness=70.0, quality_contrast=20.0,
                               quality_brightness=(40.0, 210.0))


def grey_images(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def faces():
    """Sharp, well lit faces of 64 pixels."""
    images = load_synthetic(40, 64, 0, 2.0).images
    measures = assess(images)
    return images[(measures.contrast > 30) & (abs(measures.brightness - 125) < 40)]


def test_measures_by_hand():
    image = np.zeros((1, 4, 4))
    image[0, 1, 1] = 100
    measures = assess(grey_images(image))
    # Laplacian inside the border: [[-400, 100], [100, 0]]; mean -50, mean square 45,000
    assert measures.sharpness == pytest.approx([42500], rel=1e-5)
    assert measures.brightness == pytest.approx([6.25], rel=1e-5)
    assert measures.contrast == pytest.approx([np.sqrt(625 - 6.25**2)], rel=1e-5)


def test_colours_weigh_as_luma():
    image = np.zeros((3, 3, 3, 3), np.uint8)
    for k in range(3):
        image[k, ..., k] = 200
    assert assess(image).brightness == pytest.approx([59.8, 117.4, 22.8], rel=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_sharpness_does_not_grow_with_the_number_of_pixels(faces, factor):
    small = assess(faces)
    large = assess(faces.repeat(factor, 1).repeat(factor, 2))
    assert large.sharpness == pytest.approx(small.sharpness, rel=1e-4)
    assert large.contrast == pytest.approx(small.contrast, rel=1e-4)


def test_averaging_when_the_sizes_do_not_divide():
    # 96 -> 64 cells of 1.5 pixels: the first is pixel 0 and half of pixel 1
    weights = quality._averaging(96)
    assert weights.shape == (64, 96)
    assert weights[0, :3] == pytest.approx([2 / 3, 1 / 3, 0])
    assert weights[1, :4] == pytest.approx([0, 1 / 3, 2 / 3, 0])
    assert weights.sum(1) == pytest.approx(np.ones(64), rel=1e-5)


def test_a_portrait_format(faces):
    tall = np.concatenate([faces, faces], axis=1)  # 128 x 64
    assert assess(tall).brightness == pytest.approx(assess(faces).brightness, rel=1e-4)


def test_each_defect_is_named_with_its_value_and_bound(faces):
    face = faces[0].astype(float)
    noise = np.random.default_rng(0).normal(0, 12, (64, 64, 1))
    images = {
        "": face,
        "blurred": ndimage.gaussian_filter(face, (3, 3, 0)),
        "dark": face / face.mean() * 30 + 2 * noise,
        "bright": 235 - 90 * (face.mean(2, keepdims=True) < np.percentile(face, 10)),
        "flat": 125 + noise,
    }
    stack = np.stack([np.broadcast_to(np.clip(i, 0, 255).astype(np.uint8), (64, 64, 3))
                      for i in images.values()])
    measures = assess(stack)
    reasons = quality_reasons(stack, BOUNDS)
    assert [r.split(":")[0] for r in reasons] == list(images)
    assert reasons[1] == f"blurred: sharpness {measures.sharpness[1]:.1f} below 70"
    assert reasons[2] == f"dark: brightness {measures.brightness[2]:.1f} below 40"
    assert reasons[3] == f"bright: brightness {measures.brightness[3]:.1f} above 210"
    assert reasons[4] == f"flat: contrast {measures.contrast[4]:.1f} below 20"


def test_all_broken_bounds_are_named():
    black, white = np.zeros((64, 64)), np.full((64, 64), 255)
    assert quality_reasons(grey_images([black, white]), BOUNDS) == [
        "blurred: sharpness 0.0 below 70; flat: contrast 0.0 below 20; "
        "dark: brightness 0.0 below 40",
        "blurred: sharpness 0.0 below 70; flat: contrast 0.0 below 20; "
        "bright: brightness 255.0 above 210"]


def test_a_value_on_the_bound_is_kept():
    image = np.zeros((1, 4, 4))
    image[0, ::2] = 80
    measures = assess(grey_images(image))
    exact = types.SimpleNamespace(
        quality_sharpness=measures.sharpness[0], quality_contrast=measures.contrast[0],
        quality_brightness=(measures.brightness[0], measures.brightness[0]))
    assert quality_reasons(grey_images(image), exact) == [""]


def test_chunks_change_nothing(faces, monkeypatch):
    whole = assess(faces)
    monkeypatch.setattr(quality, "CHUNK", 3)
    parts = assess(faces)
    for name in ("sharpness", "contrast", "brightness"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-4)


def test_the_default_bounds_keep_good_faces(faces):
    assert set(quality_reasons(faces, default_config().data)) == {""}


def test_no_images():
    assert quality_reasons(np.zeros((0, 8, 8, 3), np.uint8), BOUNDS) == []


@pytest.mark.parametrize("images", [
    np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8),
    np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 2, 8, 3), np.uint8)])
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match="they must be uint8"):
        assess(images)
