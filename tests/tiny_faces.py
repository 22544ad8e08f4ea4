"""A UTKFace data set of three images for the tests of its readers."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unlearn_jax import data
from unlearn_jax.config import default_config

GOOD = {
    "20_0_0_20170101000000000.jpg.chip.jpg": 20,
    "35_1_2_20170101000000001.jpg.chip.jpg": 35,
    "60_0_4_20170101000000002.jpg": 60,
}


def jpeg(level: int, size: int = 40) -> bytes:
    """An encoded image; its left half has the grey level `level`, its right half is black."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, :size // 2] = level
    f = io.BytesIO()
    Image.fromarray(pixels).save(f, "JPEG", quality=95)
    return f.getvalue()


def write_good(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, age in GOOD.items():
        (folder / name).write_bytes(jpeg(age * 4))
    return folder


def settings(path, **changes):
    c = default_config().data
    with c.unlocked():
        c.update(source="utkface", path=str(path), image_size=16, label_min=0, label_max=116)
        c.update(changes)
    return c


def load(path, cache_dir, **changes):
    return data.load(settings(path, **changes), cache_dir)


def reasons(dataset) -> dict[str, str]:
    return {d.id: d.reason for d in dataset.dropped}
