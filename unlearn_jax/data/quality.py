"""The quality filter: finds images out of focus, flat or badly lit by three simple measures.

The reference study removed such images by eye. The default bounds were set on 2,000 images of
UTKFace of ages 20 to 60: they drop 1.6 % at 64 pixels and 1.2 % at 200. The brightness bounds are
wide on purpose: people of race code 1 are two thirds of the darkest 2 % of that sample, so a narrow
bound would select by skin, not by lighting.
"""

import dataclasses

import numpy as np

# the grid on which sharpness is measured, and how many images are assessed at once
REFERENCE_SIZE = 64
CHUNK = 256

_GREY = np.array((0.299, 0.587, 0.114), np.float32)  # red, green, blue: ITU-R BT.601 luma


@dataclasses.dataclass(frozen=True)
class ImageQuality:
    """Measures of N images, each [N] float32, from grey images of 0..255."""

    sharpness: np.ndarray  # variance of the Laplacian, grey levels squared
    contrast: np.ndarray  # standard deviation, grey levels
    brightness: np.ndarray  # mean, grey levels


def assess(images_NHWC: np.ndarray) -> ImageQuality:
    """Measures sharpness, contrast and brightness.

    The Laplacian (4 neighbours minus 4 times the pixel, without the border) depends on the number
    of pixels. So larger images are first averaged down to a grid of 64 x 64: the measure is then
    nearly the same for one photograph at 64, 128 or 224 pixels. Smaller images are measured
    unchanged: shrinking has hidden their blur, and few fall below a bound meant for 64 pixels.

    Source: J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a
    comparative study", ICPR 2000 (variance of the Laplacian).

    Args:
      images_NHWC: [N, H, W, 3] uint8, H and W at least 3.

    Raises:
      ValueError: another dtype or shape.
    """
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != 3 \
            or min(images_NHWC.shape[1:3]) < 3:
        raise ValueError(f"images are {images_NHWC.dtype} {list(images_NHWC.shape)}; they must be "
                         "uint8 [N, H, W, 3] with at least 3 x 3 pixels")
    n, height, width, _ = images_NHWC.shape
    measures = np.empty((3, n), np.float32)
    down, across = _averaging(height), _averaging(width)
    for start in range(0, n, CHUNK):
        part = images_NHWC[start:start + CHUNK]
        grey = sum(weight * part[..., k] for k, weight in enumerate(_GREY))
        # [n, H, W] -> [n, H, 64] -> [n, 64, 64] as two large products
        small = np.tensordot(np.tensordot(grey, across, (2, 1)), down, (1, 1))
        laplacian = (small[:, :-2, 1:-1] + small[:, 2:, 1:-1] + small[:, 1:-1, :-2]
                     + small[:, 1:-1, 2:] - 4 * small[:, 1:-1, 1:-1])
        measures[0, start:start + CHUNK] = laplacian.var((1, 2))
        measures[1, start:start + CHUNK] = grey.std((1, 2))
        measures[2, start:start + CHUNK] = grey.mean((1, 2))
    return ImageQuality(*measures)


def quality_reasons(images_NHWC: np.ndarray, settings) -> list[str]:
    """The reason to leave out each image; '' means keep.

    Args:
      images_NHWC: [N, H, W, 3] uint8.
      settings: the config's `data` section, or anything with its `quality_sharpness`,
        `quality_contrast` and `quality_brightness`.

    Returns:
      N strings; if an image breaks several bounds, all are named, joined by '; '.

    Raises:
      ValueError: images of another dtype or shape.
    """
    quality = assess(images_NHWC)
    darkest, brightest = settings.quality_brightness
    reasons = []
    for sharpness, contrast, brightness in zip(
            quality.sharpness, quality.contrast, quality.brightness):
        broken = []
        if sharpness < settings.quality_sharpness:
            broken.append(f"blurred: sharpness {sharpness:.1f} below "
                          f"{settings.quality_sharpness:g}")
        if contrast < settings.quality_contrast:
            broken.append(f"flat: contrast {contrast:.1f} below {settings.quality_contrast:g}")
        if brightness < darkest:
            broken.append(f"dark: brightness {brightness:.1f} below {darkest:g}")
        if brightness > brightest:
            broken.append(f"bright: brightness {brightness:.1f} above {brightest:g}")
        reasons.append("; ".join(broken))
    return reasons


def _averaging(size: int) -> np.ndarray:
    """Weights [min(size, 64), size]: each output is the mean over its share of the inputs."""
    cells = min(size, REFERENCE_SIZE)
    edges = np.linspace(0, size, cells + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) \
        - np.maximum(edges[:-1, None], np.arange(size))
    return (np.maximum(overlap, 0) * cells / size).astype(np.float32)
