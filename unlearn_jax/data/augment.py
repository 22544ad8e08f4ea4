"""Augmented copies of images: small rotations, shifts, zooms and mirror images.

The geometry is that of Keras' `ImageDataGenerator`, which the reference study used to balance its
training set: an affine map about the image's middle (rotation, then shift, then zoom, with one
zoom factor per axis). Pixels beyond the edge repeat the nearest one. A horizontal flip comes last.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

# images per compiled call; the last chunk is padded, so that one program serves all of them
CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far a copy may differ from its image.

    Raises:
      ValueError: a value outside its range; the message names it.
    """

    rotation_degrees: float  # to either side, 0..180
    shift: float  # share of the height and width, to either side, 0..0.9
    zoom: float  # in or out by up to this share, 0..0.9; height and width are drawn separately
    flip: bool  # horizontal flip with probability one half

    def __post_init__(self):
        for name, high in (("rotation_degrees", 180), ("shift", 0.9), ("zoom", 0.9)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ValueError(f"{name} is {value}; allowed: from 0 to {high}")


def augmentation(data_cfg) -> Augmentation:
    """The settings in the config's `data` section."""
    return Augmentation(float(data_cfg.rotation), float(data_cfg.shift), float(data_cfg.zoom),
                        bool(data_cfg.flip))


def _spreads(settings: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Largest change of (degrees, shift y, shift x, zoom y, zoom x), and whether to flip."""
    s = settings
    spreads = np.array((s.rotation_degrees, s.shift, s.shift, s.zoom, s.zoom), np.float32)
    return spreads, np.asarray(s.flip)


def _augment(key, image_HWC, spreads, may_flip):
    draws = jax.random.uniform(key, (6,), jnp.float32, -1, 1)
    degrees, shift_y, shift_x, zoom_y, zoom_x = spreads * draws[:5]
    return transform_image(image_HWC, degrees, shift_y, shift_x, 1 + zoom_y, 1 + zoom_x,
                           may_flip & (draws[5] < 0))


def transform_image(image_HWC: jax.Array, degrees, shift_y, shift_x, zoom_y, zoom_x,
                    flip) -> jax.Array:
    """One image transformed by given amounts, sampled bilinearly.

    Output pixel p shows the image at `R(degrees) (shift + zoom * (p - middle)) + middle`.
    Coordinates are clipped to the image, so that beyond its edge the nearest pixel repeats.

    Args:
      image_HWC: [H, W, C] uint8.
      degrees: scalar; positive turns the content counter-clockwise.
      shift_y, shift_x: scalars, shares of height and width; positive moves the content up, left.
      zoom_y, zoom_x: positive scalars; below 1 enlarges the content.
      flip: scalar bool; mirrors the result left to right.

    Returns:
      [H, W, C] uint8, rounded to the nearest.

    Raises:
      ValueError: another dtype or shape.
    """
    if image_HWC.dtype != jnp.uint8 or image_HWC.ndim != 3:
        raise ValueError(f"image is {image_HWC.dtype} {list(image_HWC.shape)}; "
                         "it must be uint8 [H, W, C]")
    height, width, _ = image_HWC.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32)
    columns = jnp.where(flip, width - 1 - columns, columns)
    y = shift_y * height + zoom_y * (jnp.arange(height, dtype=jnp.float32)[:, None] - middle_y)
    x = shift_x * width + zoom_x * (columns[None, :] - middle_x)
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    source_y = jnp.clip(cos * y + sin * x + middle_y, 0, height - 1)
    source_x = jnp.clip(cos * x - sin * y + middle_x, 0, width - 1)

    top, left = jnp.floor(source_y), jnp.floor(source_x)
    down, right = (source_y - top)[..., None], (source_x - left)[..., None]
    y0, x0 = top.astype(jnp.int32), left.astype(jnp.int32)
    y1, x1 = jnp.minimum(y0 + 1, height - 1), jnp.minimum(x0 + 1, width - 1)

    def pixels(rows, cols):
        return image_HWC[rows, cols].astype(jnp.float32)

    upper = pixels(y0, x0) * (1 - right) + pixels(y0, x1) * right
    lower = pixels(y1, x0) * (1 - right) + pixels(y1, x1) * right
    return jnp.floor(upper * (1 - down) + lower * down + 0.5).astype(jnp.uint8)


def render_copies(images_NHWC: np.ndarray, source_n: np.ndarray, copy_n: np.ndarray, seed: int,
                  settings: Augmentation) -> np.ndarray:
    """Draws augmented copies on the device.

    A copy depends on (source, copy, seed) and the settings alone, not on the other copies.

    Args:
      images_NHWC: [N, H, W, C] uint8, on the host.
      source_n: [n] integer, rows of `images_NHWC`.
      copy_n: [n] integer; 0 is the image itself, k its k-th copy.
      seed: from 0 to 2**31 - 1.
      settings: ranges of the random changes.

    Returns:
      [n, H, W, C] uint8, on the host.

    Raises:
      ValueError: a wrong dtype or shape, a row outside the images, a negative copy or a seed out
        of range.
    """
    source_n, copy_n = np.asarray(source_n), np.asarray(copy_n)
    _check(images_NHWC, source_n, copy_n, seed)
    spreads, may_flip = _spreads(settings)
    n = len(source_n)
    copies = np.empty((n, *images_NHWC.shape[1:]), np.uint8)
    for start in range(0, n, CHUNK):
        # the padding draws row 0 again and is discarded
        rows = np.zeros(CHUNK, np.int32)
        numbers = np.zeros(CHUNK, np.int32)
        count = min(CHUNK, n - start)
        rows[:count] = source_n[start:start + count]
        numbers[:count] = copy_n[start:start + count]
        chunk = _render_chunk(images_NHWC[rows], rows, numbers, np.int32(seed), spreads, may_flip)
        copies[start:start + count] = np.asarray(chunk)[:count]
    return copies


@jax.jit
def _render_chunk(images_BHWC, source_B, copy_B, seed, spreads, may_flip):
    # the generator is named, so that jax's global default cannot change the copies
    root = jax.random.key(seed, impl="threefry2x32")

    def one(image, source, copy):
        key = jax.random.fold_in(jax.random.fold_in(root, source), copy)
        return jnp.where(copy == 0, image, _augment(key, image, spreads, may_flip))

    return jax.vmap(one)(images_BHWC, source_B, copy_B)


def _check(images: np.ndarray, source: np.ndarray, copy: np.ndarray, seed: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}; "
                         "they must be uint8 [N, H, W, C]")
    for name, array in (("source", source), ("copy", copy)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; "
                             "it must be integers [n]")
    if len(source) != len(copy):
        raise ValueError(f"source has {len(source)} rows and copy {len(copy)}; "
                         "they must be as many")
    if len(source) and not (source.min() >= 0 and source.max() < len(images)):
        raise ValueError(f"source rows run from {source.min()} to {source.max()}; "
                         f"allowed: 0 to {len(images) - 1}")
    if len(copy) and copy.min() < 0:
        raise ValueError(f"copy {copy.min()} is asked for; allowed: 0 (the image itself) and above")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed}; allowed: 0 to {2**31 - 1}")
