import hashlib

import numpy as np
import pytest

from unlearn_jax.data.synthetic import AGES, age_shares, load_synthetic


@pytest.fixture(scope="module")
def crowd():
    return load_synthetic(1500, 32, 0, 2.0)


def test_contents(crowd):
    assert crowd.images.shape == (1500, 32, 32, 3) and crowd.images.dtype == np.uint8
    assert crowd.labels.dtype == np.float32 and (crowd.labels == np.rint(crowd.labels)).all()
    assert crowd.labels.min() == 1 and 85 < crowd.labels.max() <= 100
    assert crowd.ids[0] == "synthetic-000000" and crowd.ids[12] == "synthetic-000012"
    assert crowd.task == "regression" and crowd.label_unit == "years"
    assert set(crowd.attributes["gender"]) == {0, 1}
    assert set(crowd.attributes["race"]) == {0, 1, 2, 3, 4}


def test_golden_faces():
    # update only when the faces are meant to look different: every result on them changes
    data = load_synthetic(20, 16, 0, 2.0)
    assert data.labels[:8].tolist() == [35, 9, 59, 55, 53, 8, 47, 18]
    assert hashlib.sha256(data.images.tobytes()).hexdigest()[:16] == "3daa58ab8cf78313"


def test_the_seed_decides():
    one, again, other = (load_synthetic(10, 16, seed, 2.0) for seed in (3, 3, 4))
    assert (one.images == again.images).all() and one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint and (one.labels != other.labels).any()


def test_a_longer_data_set_begins_with_the_shorter():
    # more faces than one chunk of drawing holds, an odd number of pixels
    short, long = load_synthetic(300, 15, 1, 2.0), load_synthetic(700, 15, 1, 2.0)
    assert (long.images[:300] == short.images).all()
    assert (long.labels[:300] == short.labels).all() and (long.ids[:300] == short.ids).all()
    assert (long.attributes["race"][:300] == short.attributes["race"]).all()


def test_another_image_size_shows_the_same_people():
    small, large = load_synthetic(8, 32, 0, 2.0), load_synthetic(8, 64, 0, 2.0)
    assert (small.labels == large.labels).all()
    averaged = large.images.reshape(8, 32, 2, 32, 2, 3).mean((2, 4))
    same = np.abs(averaged - small.images).mean((1, 2, 3))
    others = np.abs(averaged - small.images[::-1]).mean((1, 2, 3))
    assert (same < 0.3 * others).all()


def test_label_noise_moves_the_face_not_the_label():
    none, some, more = (load_synthetic(200, 16, 0, noise) for noise in (0.0, 2.0, 10.0))
    assert (none.labels == some.labels).all()
    # from label noise 0 the same person is drawn at another age, further off with more noise
    near = np.abs(some.images.astype(int) - none.images).mean((1, 2, 3))
    far = np.abs(more.images.astype(int) - none.images).mean((1, 2, 3))
    assert 0 < near.mean() < far.mean() < 20
    adults, babies = none.labels >= 25, none.labels <= 2
    assert babies.sum() >= 5 and far[babies].mean() < 0.5 * far[adults].mean()


def test_age_shares_are_like_utkface():
    shares = dict(zip(AGES.tolist(), age_shares()))
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == 26
    assert shares[1] > 2 * shares[2] and shares[2] > shares[10]
    for age in (35, 40, 45, 50, 60, 70):
        assert shares[age] > 1.5 * max(shares[age - 1], shares[age + 1])
    # shares of these ages among UTKFace's 23,703 well-named files
    for low, high, wanted in ((1, 2, 0.068), (3, 19, 0.126), (20, 28, 0.286), (28, 36, 0.217),
                              (36, 44, 0.107), (44, 52, 0.081), (52, 60, 0.087),
                              (61, 80, 0.078), (81, 100, 0.022), (20, 60, 0.705)):
        assert sum(shares[a] for a in range(low, high + 1)) == pytest.approx(wanted, abs=0.015)


def test_labels_are_drawn_from_age_shares():
    labels = load_synthetic(6000, 8, 5, 0.0).labels
    cumulative = np.cumsum(age_shares())
    seen = np.searchsorted(np.sort(labels), AGES, side="right") / 6000
    assert np.abs(seen - cumulative).max() < 1.6 / np.sqrt(6000)  # Kolmogorov-Smirnov, 1 %


def ridge_guesses(data, rows, targets):
    """Ridge regression on the pixels of the first half of `rows`, applied to all of them."""
    pixels = data.images[rows].reshape(len(rows), -1).astype(np.float64) / 255
    train = slice(0, len(rows) // 2)
    pixels -= pixels[train].mean(0)
    kernel = pixels[train] @ pixels[train].T
    middle = targets[train].mean()
    weights = np.linalg.solve(kernel + 50 * np.eye(len(kernel)), targets[train] - middle)
    return middle + pixels @ (pixels[train].T @ weights)


def test_age_shows_but_not_fully(crowd):
    rows = np.flatnonzero((crowd.labels >= 20) & (crowd.labels <= 60))
    labels = crowd.labels[rows].astype(np.float64)
    half = len(rows) // 2
    errors = np.abs(np.clip(ridge_guesses(crowd, rows, labels), 20, 60) - labels)
    median = np.abs(labels[half:] - np.median(labels[:half])).mean()
    assert 7.5 < median < 9.5
    assert 3.5 < errors[half:].mean() < 0.8 * median
    assert errors[:half].mean() < errors[half:].mean() - 0.5  # part of it is learned by heart


def test_gender_shows_weakly(crowd):
    rows = np.flatnonzero(crowd.labels >= 20)
    gender = crowd.attributes["gender"][rows].astype(np.float64)
    right = (ridge_guesses(crowd, rows, gender) > 0.5) == gender
    assert 0.6 < right[len(rows) // 2:].mean() < 0.95


def test_race_codes_differ_in_tone_and_overlap(crowd):
    middle = crowd.images[:, 17:21, 11:21].mean((1, 2, 3))  # cheeks and nose
    race = crowd.attributes["race"]
    light, dark = middle[race == 0], middle[race == 1]
    assert light.mean() > dark.mean() + 8
    assert (light < np.median(dark)).mean() > 0.05 and (dark > np.median(light)).mean() > 0.05


@pytest.mark.parametrize("size, pixels, seed, noise, message", [
    (0, 32, 0, 2.0, "size is 0 faces"),
    (5, 4, 0, 2.0, "of 4 pixels"),
    (5, 32, -1, 2.0, "seed is -1"),
    (5, 32, 0, -1.0, "label_noise is -1.0"),
    (5, 32, 0, float("nan"), "label_noise is nan"),
])
def test_impossible_settings_are_refused(size, pixels, seed, noise, message):
    with pytest.raises(ValueError, match=message):
        load_synthetic(size, pixels, seed, noise)
