import dataclasses

import numpy as np

from unlearn_jax.data import faces


def plain(**changes):
    """One adult in front of an even wall: no grain, no lines, no glasses."""
    traits = dict(
        x=0, y=0, scale=1, roll=0, yaw=0, head_width=0.6, head_length=0.8, chin=0.4,
        skin=(0.8, 0.6, 0.5), blush=0, hair=(0.1, 0.1, 0.1), hair_volume=0.5, hair_length=0,
        hairline=-0.5, temples=1.7, beard=0, feature_height=-0.08, eye_gap=0.27, eye_size=1,
        iris=(0.2, 0.3, 0.5), brow=0.05, brow_slope=0, nose_length=0.3, nose_width=0.1,
        mouth_width=0.22, lip=0.07, lip_colour=(0.7, 0.3, 0.3), smile=0, forehead=(0, 0, 0),
        eye_bags=0, crow_feet=0, folds=0, jowls=0, texture=0, moles=(0,) * (3 * faces.MOLES),
        glasses=0, frame=(0, 0, 0), clothes=(0.2, 0.2, 0.8), wall=(0.2, 0.4, 0.6),
        pattern=(0.2, 0.4, 0.6), stripes=(1, 1, 0), light=0, exposure=1, grain=0)
    return faces.Faces(**{k: np.asarray([v], np.float32) for k, v in (traits | changes).items()})


def draw(traits, size=64):
    return faces.draw(traits, size, np.random.default_rng(0))


def changed(size=64, **changes):
    """Bounding box (top, bottom, left, right) in -1..1 of what a change of traits touches."""
    different = (draw(plain(), size) != draw(plain(**changes), size)).any((0, 3))
    rows, cols = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
    at = 2 / size
    return rows[0] * at - 1, (rows[-1] + 1) * at - 1, cols[0] * at - 1, (cols[-1] + 1) * at - 1


def test_the_wall_and_the_clothes_have_their_colours():
    image = draw(plain())[0]
    assert image[0, 0].tolist() == [51, 102, 153]  # 0.2, 0.4, 0.6 of 255
    assert image[63, 32].tolist() == [51, 51, 204]
    assert (draw(plain(exposure=0.5))[0, 0, 0] == [26, 51, 77]).all()  # 25.5 and 76.5 round up


def test_a_face_without_pose_is_its_own_mirror_image_but_for_the_nose():
    image = draw(plain())[0, 30:58, 16:48]  # from the eyes to the chin, no hair
    rows, cols = np.nonzero((image != image[:, ::-1]).any(2))
    assert len(rows) > 0
    assert rows.max() < 14 and np.abs(cols - 15.5).max() < 5


def test_each_mark_stays_in_its_place():
    eyes, nose, mouth = -0.08, 0.22, 0.22 + 0.45 * (0.8 - 0.22)
    top, bottom, left, right = changed(forehead=(0.5, 0.5, 0.5))
    assert -0.6 < top < bottom < eyes and -0.45 < left < 0 < right < 0.45
    top, bottom, *_ = changed(eye_bags=0.5)
    assert eyes < top < bottom < nose
    top, bottom, *_ = changed(folds=0.5)
    assert eyes < top < mouth < bottom < 0.8
    top, bottom, left, right = changed(glasses=1)
    assert -0.4 < top < eyes < bottom < nose and left < -0.5 and right > 0.5
    top, bottom, left, right = changed(moles=(0.3, 0.1, 0.8) + (0,) * (3 * faces.MOLES - 3))
    assert 0 < top < 0.1 < bottom < 0.2 and 0.2 < left < 0.3 < right < 0.4


def test_lines_darken_in_proportion_to_their_depth():
    base, light, deep = (draw(plain(folds=f)).astype(int).sum() for f in (0, 0.25, 0.5))
    assert abs((base - deep) / (base - light) - 2) < 0.02


def test_moving_a_face_by_whole_pixels_moves_its_pixels():
    image, moved = draw(plain(), 32)[0], draw(plain(x=2 * 2 / 32, y=-3 * 2 / 32), 32)[0]
    # a pixel is 2 / 32 wide; float32 coordinates may round a colour to its neighbour
    assert np.abs(moved[:-3, 2:].astype(int) - image[3:, :-2]).max() <= 1


def test_the_same_face_at_another_size():
    small, large = draw(plain(), 32)[0], draw(plain(), 64)[0]
    averaged = large.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(averaged - small).mean() < 3


def test_grain_and_texture():
    noisy = draw(plain(grain=0.2))[0].astype(float) - draw(plain())[0]
    assert 0.15 < np.ptp(noisy) / 255 <= 0.21
    rough = draw(plain(texture=0.2)) != draw(plain())
    assert rough[0, 40, 32].any() and not rough[0, :4].any()  # skin, not the wall


def test_drawing_in_chunks_changes_nothing(monkeypatch):
    people = [plain(x=x, grain=0.1) for x in np.linspace(-0.2, 0.2, 5)]
    together = faces.Faces(*(np.concatenate([getattr(p, f.name) for p in people])
                             for f in dataclasses.fields(faces.Faces)))
    whole = draw(together, 15)
    monkeypatch.setattr(faces, "CHUNK_PIXELS", 2 * 15 * 15)
    assert (draw(together, 15) == whole).all()
    assert len(np.unique(whole.reshape(5, -1), axis=0)) == 5
