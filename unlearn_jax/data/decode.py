"""Decodes an image and brings it to one size, or says why it cannot be used."""

import io

import numpy as np
import simplejpeg
from PIL import Image

MIN_SIDE = 32  # pixels: smaller photographs show too little
MAX_PIXELS = 64_000_000  # a small file can claim to be a huge image


class UnusableImage(ValueError):
    """The image cannot be used; the message is the reason, as listed in dropped.csv."""


def decode_image(content: bytes | np.ndarray, image_size: int,
                 min_side: int = MIN_SIDE) -> np.ndarray:
    """Decode, cut out the central square and resize it.

    A JPEG is decoded straight at the smallest of libjpeg's scales (n/8) that is not below
    `image_size`, which averages in the frequency domain, then resized by Pillow's bilinear
    filter, whose support grows with the reduction. On UTKFace at 64 pixels this differs from
    resizing the full image by 1.2 grey levels (root mean square) and takes half the time.
    An orientation noted in the file (Exif) and transparency are left aside. Of 16 bits a channel
    in a PNG the higher 8 are taken.

    Args:
      content: a JPEG or PNG file, or [H, W, 3], [H, W, 1] or [H, W] uint8.
      image_size: height and width of the result, pixels.
      min_side: least height and width of the source, pixels.

    Returns:
      [image_size, image_size, 3] uint8.

    Raises:
      UnusableImage: damaged, truncated, smaller than `min_side`, larger than `MAX_PIXELS`,
        or an array of another kind.
    """
    image, (height, width) = _decode(content, image_size, min_side)
    if height == width == image_size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    resized = Image.fromarray(image).resize(
        (image_size, image_size), Image.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(resized)


def check_image(content: bytes | np.ndarray, min_side: int = MIN_SIDE) -> None:
    """Raise what `decode_image` would raise, in a third of the time.

    All of the file is decoded, a JPEG at the coarsest scale.
    """
    _decode(content, 1, min_side)


def _decode(content: bytes | np.ndarray, least: int,
            min_side: int) -> tuple[np.ndarray, tuple[float, float]]:
    """[H, W, 3] uint8, and the height and width that the picture takes up of it.

    A JPEG may be reduced, but not below `least` pixels. Then what libjpeg gives is rounded up to
    whole pixels: at 1/8 the 250 rows of a picture are 31.25 of 32, the rest is padding.
    """
    if isinstance(content, np.ndarray):
        image = _from_array(content, min_side)
    elif simplejpeg.is_jpeg(content):
        return _from_jpeg(content, least, min_side)
    else:
        image = _from_file(content, min_side)
    return image, image.shape[:2]


def _from_jpeg(content: bytes, least: int,
               min_side: int) -> tuple[np.ndarray, tuple[float, float]]:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        _check_size(height, width, min_side)
        if colours not in ("CMYK", "YCCK"):
            image = simplejpeg.decode_jpeg(content, "RGB", min_height=least, min_width=least)
            n = next(n for n in range(8, 0, -1)
                     if image.shape[:2] == (-(-height * n // 8), -(-width * n // 8)))
            return image, (height * n / 8, width * n / 8)
    except UnusableImage:
        raise
    except ValueError:
        pass  # simplejpeg refuses what libjpeg only warns of; Pillow still refuses truncated files
    image = _from_file(content, min_side)
    return image, image.shape[:2]


def _from_file(content: bytes, min_side: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            _check_size(image.height, image.width, min_side)
            if image.mode.startswith("I"):
                # grey of 16 bits: `convert` would clip it; of 16-bit colours Pillow itself takes
                # the higher byte
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except UnusableImage:
        raise
    except Image.DecompressionBombError as e:
        raise UnusableImage(f"larger than {MAX_PIXELS} pixels") from e
    except (OSError, SyntaxError, ValueError) as e:  # Pillow's errors for damaged files
        kind = "truncated" if "truncated" in str(e).lower() else "undecodable"
        raise UnusableImage(kind) from e


def _from_array(array: np.ndarray, min_side: int) -> np.ndarray:
    if array.dtype != np.uint8:
        raise UnusableImage(f"not 8 bits a channel: {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise UnusableImage(f"neither grey nor RGB: shape {list(array.shape)}")
    _check_size(array.shape[0], array.shape[1], min_side)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _check_size(height: int, width: int, min_side: int) -> None:
    if min(height, width) < min_side:
        raise UnusableImage(f"smaller than {min_side} pixels")
    if height * width > MAX_PIXELS:
        raise UnusableImage(f"larger than {MAX_PIXELS} pixels")
