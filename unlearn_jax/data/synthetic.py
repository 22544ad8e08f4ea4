"""Synthetic faces: an age data set that needs no download and holds no real person.

Age shows in many cues at once (skin lines, greying, hairline, proportions, tone, texture). Each cue
follows its own age: the age shown, plus how old the person looks overall, plus noise of the cue.
So no single cue gives the age. The rest can only be memorised from what is particular to a face:
background, clothes, glasses, moles, light, pose.
"""

import numpy as np
from scipy.special import ndtri

from unlearn_jax.data import faces
from unlearn_jax.data.dataset import Dataset, fingerprint

AGES = np.arange(1, 101)

# streams of the data seed; those in between belong to data/__init__.py and splits.py
_TRAITS, _GRAIN = 0, 5

# random numbers per face, one row of a table; some are reserved for later traits
_DRAWS = 128
_LOOKS_SD = 4.0  # years: how much older or younger a person looks overall
_CUE_SD = 7.0  # years: noise of a single cue

# UTKFace's shares of gender and race codes, roughly; codes 0..1 and 0..4 as there
_GENDER = (0.52, 0.48)
_RACE = (0.42, 0.19, 0.15, 0.17, 0.07)
# middle of the skin tone (0 light .. 1 dark) and of the hair's darkness per code; wide overlap
_RACE_TONE = np.array((0.33, 0.53, 0.38, 0.45, 0.42))
_RACE_HAIR = np.array((0.55, 0.75, 0.75, 0.75, 0.7))


def age_shares() -> np.ndarray:
    """The share of each age in AGES, [100] float64, shaped like UTKFace's.

    A smooth curve fitted to the counts of UTKFace's ages (Zhang, Song and Qi, "Age Progression/
    Regression by Conditional Adversarial Autoencoder", CVPR 2017): infants, a rise in the teens,
    a mode at 26 with a long tail, and heaps at even ages and at 35, 40, 45, ...
    """
    a = AGES
    shares = 1.1 * np.exp(-(a - 1) / 2.9)
    shares += 0.15 * np.exp(-(((a - 15) / 6.0) ** 2) / 2)
    shares += np.exp(-(((a - 26) / np.where(a < 26, 2.9, 5.8)) ** 2) / 2)
    shares += 0.31 * np.exp(-(((a - 41) / 22.5) ** 2) / 2)
    shares *= np.where((a % 5 == 0) & (a >= 35), 2.4, 1.0)
    shares *= np.where((a % 2 == 0) & (a >= 20), 1.34, 1.0)
    shares *= np.where(a == 26, 2.5, np.where(a == 1, 1.85, 1.0))
    return shares / shares.sum()


def load_synthetic(size: int, image_size: int, seed: int, label_noise: float) -> Dataset:
    """Draws `size` faces.

    Labels are whole years from 1 to 100, distributed by `age_shares`. A face is drawn at the age
    `label - noise` (never below 0), so that labels keep their range and nothing is clipped.
    Face i depends on seed and i alone: a longer data set begins with the shorter one. Another
    image size gives the same faces with another grain.

    Args:
      size: number of faces.
      image_size: height and width, pixels.
      seed: not negative.
      label_noise: standard deviation of the noise, years; smaller for children.

    Returns:
      A regression data set with labels in years and the attributes gender (0, 1) and
      race (0..4), which show weakly.

    Raises:
      ValueError: a size below 1, a negative seed or a negative or non-finite label noise.
    """
    if size < 1 or image_size < 8:
        raise ValueError(f"size is {size} faces of {image_size} pixels; "
                         "allowed: at least 1 face and 8 pixels")
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed: 0 and above")
    if not 0 <= label_noise < np.inf:
        raise ValueError(f"label_noise is {label_noise} years; allowed: 0 and above, finite")
    table = np.random.Generator(np.random.PCG64([seed, _TRAITS])).random((size, _DRAWS))
    columns = iter(np.maximum(table, 1e-12).T)
    labels = AGES[np.searchsorted(np.cumsum(age_shares())[:-1], next(columns), side="right")]
    gender = np.searchsorted(np.cumsum(_GENDER)[:-1], next(columns), side="right")
    race = np.searchsorted(np.cumsum(_RACE)[:-1], next(columns), side="right")
    shown = np.maximum(labels - label_noise * _childs_share(labels) * ndtri(next(columns)), 0)
    traits = _traits(shown, gender, race, columns)
    images = faces.draw(traits, image_size, np.random.Generator(np.random.PCG64([seed, _GRAIN])))
    labels = labels.astype(np.float32)
    ids = np.array([f"synthetic-{i:06d}" for i in range(size)])
    attributes = {"gender": gender.astype(np.int32), "race": race.astype(np.int32)}
    return Dataset(
        name="synthetic", images=images, labels=labels, ids=ids, task="regression",
        label_unit="years", num_classes=0, class_names=(), attributes=attributes, dropped=(),
        histograms={}, fingerprint=fingerprint(images, labels, ids))


def _childs_share(age: np.ndarray) -> np.ndarray:
    """Share of the full noise at this age; less for children: a one-year-old never looks ten."""
    return np.clip(age / 25, 0.1, 1)


def _traits(age: np.ndarray, gender: np.ndarray, race: np.ndarray, columns) -> faces.Faces:
    """Traits of faces with these ages, [N] years; takes random columns in order."""

    def uniform(low, high):
        return low + (high - low) * next(columns)

    def normal(sd):
        return sd * ndtri(next(columns))

    noise_share = _childs_share(age)
    looks = age + noise_share * normal(_LOOKS_SD)

    def cue(start, end):
        """0 before `start` years, 1 after `end`, with the noise of one cue."""
        return np.clip((looks + noise_share * normal(_CUE_SD) - start) / (end - start), 0, 1)

    def colour(spread=1.0):
        return np.stack([uniform(0.5 - spread / 2, 0.5 + spread / 2) for _ in range(3)], 1)

    male = 1 - gender
    child = np.clip(1 - looks / 18, 0, 1)
    # skin: from light to dark; it pales and yellows with age
    tone = np.clip(_RACE_TONE[race] + normal(0.18), 0, 1)[:, None]
    skin = (1 - tone) * (0.93, 0.76, 0.66) + tone * (0.42, 0.27, 0.19)
    pallor = 0.55 * cue(18, 75)[:, None]
    skin = skin + pallor * (skin.mean(1, keepdims=True) * (1.08, 1.0, 0.8) - skin)
    red = np.clip(0.62 - 0.5 * cue(15, 70) + normal(0.07), 0, 1)[:, None]
    lip_colour = skin * 0.8 + red * (np.array((0.72, 0.22, 0.25)) - skin * 0.8)
    # hair: dark, brown, fair or red, then grey
    dark = np.clip(_RACE_HAIR[race] + normal(0.25), 0, 1)[:, None]
    fair = np.stack([uniform(0.45, 0.85), uniform(0.3, 0.62), uniform(0.1, 0.3)], 1)
    hair = (1 - dark) * fair + dark * (0.1, 0.08, 0.07)
    grey = (0.95 * cue(24, 68))[:, None]
    hair = hair + grey * (uniform(0.7, 0.85)[:, None] - hair)
    bald = cue(22, 72) * np.where(male, 1.0, 0.3)
    volume = uniform(0.3, 1.0) * (1 - 0.75 * bald) * (1 - 0.5 * child)
    length = np.where(male, uniform(0.0, 0.3), uniform(0.1, 1.2)) * (1 - child)
    bearded = male * (next(columns) < 0.4) * np.clip((age - 17) / 5, 0, 1)
    glasses = next(columns) < np.clip(age / 60, 0, 0.25)
    moles = []
    for _ in range(faces.MOLES):
        moles += [uniform(-0.45, 0.45), uniform(-0.3, 0.6),
                  np.where(next(columns) < 0.35, uniform(0.4, 0.8), 0.0)]
    line_depth = 0.55 * cue(20, 72)
    traits = faces.Faces(
        x=normal(0.05), y=0.04 + normal(0.04), scale=1.02 + normal(0.04),
        roll=normal(0.04), yaw=normal(0.4),
        head_width=0.63 + normal(0.02) + 0.03 * child,
        head_length=0.82 + normal(0.02) - 0.1 * child + 0.06 * cue(20, 75),
        chin=0.42 + normal(0.05) - 0.1 * child - 0.25 * cue(22, 72),
        skin=skin, blush=np.clip(0.7 - 0.7 * cue(5, 60) + normal(0.1), 0, 1),
        hair=hair, hair_volume=volume, hair_length=length,
        hairline=-0.5 + normal(0.05) - 0.45 * bald - 0.1 * child,
        temples=1.7 + normal(0.3) - 0.5 * bald,
        beard=bearded * uniform(0.3, 0.9),
        feature_height=-0.08 + normal(0.02) + 0.2 * child - 0.05 * cue(20, 70),
        eye_gap=0.27 + normal(0.012), eye_size=1.15 + normal(0.06) + 0.25 * child
        - 0.4 * cue(18, 70),
        iris=np.stack([uniform(0.1, 0.45), uniform(0.15, 0.5), uniform(0.1, 0.65)], 1),
        brow=np.clip(0.05 + normal(0.012) + 0.015 * male - 0.025 * child, 0.015, None),
        brow_slope=normal(0.12) - 0.1 + 0.4 * cue(20, 75),
        nose_length=0.3 + normal(0.02) - 0.08 * child + 0.08 * cue(20, 70),
        nose_width=0.1 + normal(0.01) - 0.02 * child + 0.03 * cue(20, 70),
        mouth_width=0.22 + normal(0.02) - 0.05 * child,
        lip=np.clip(0.085 + normal(0.008) + 0.01 * gender - 0.05 * cue(18, 70), 0.02, None),
        lip_colour=lip_colour, smile=0.5 + normal(0.6),
        forehead=np.stack([line_depth * uniform(0.4, 1.6) for _ in range(3)], 1),
        eye_bags=0.5 * cue(18, 70), crow_feet=0.6 * cue(22, 70), folds=0.55 * cue(18, 68),
        jowls=0.45 * cue(25, 75), texture=0.02 + 0.12 * cue(20, 75),
        moles=np.stack(moles, 1), glasses=glasses * uniform(0.6, 1.0), frame=colour(),
        clothes=colour(), wall=colour(0.7), pattern=colour(0.7),
        stripes=np.stack([uniform(-1.5, 1.5), uniform(-1.5, 1.5), uniform(0, 1)], 1),
        light=normal(0.13), exposure=1 + normal(0.1), grain=uniform(0.01, 0.08))
    return faces.Faces(**{k: np.asarray(v, np.float32) for k, v in vars(traits).items()})
