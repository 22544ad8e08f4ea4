"""Decodes an image and brings it to one size, or says why it cannot be used."""

import functools
import io
from pathlib import PurePosixPath

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

MIN_SIDE = 32  # pixels: smaller photographs show too little
MAX_PIXELS = 64_000_000  # a small file can claim to be a huge image
_BITS = 258  # TIFF's tag BitsPerSample
# Pillow hands EPS and WMF to other programs, and reads no pixels of the others.
_NOT_READ = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
# What undoes an orientation of Exif; 1 is upright.
_UPRIGHT = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


class UnusableImage(ValueError):
    """The image cannot be used; the message is the reason, as listed in dropped.csv."""


@functools.cache
def formats() -> tuple[str, ...]:
    """The file formats that are read, as Pillow names them: JPEG, PNG, WEBP, BMP, TIFF, ..."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - set(_NOT_READ)))


@functools.cache
def _extensions() -> frozenset[str]:
    return frozenset(extension for extension, kind in Image.registered_extensions().items()
                     if kind in formats())


def has_image_name(path: str) -> bool:
    """Whether a file's name ends like an image's: .jpg, .PNG, .webp, .tif, .jfif, ..."""
    return PurePosixPath(path).suffix.lower() in _extensions()


def decode_image(content: bytes | np.ndarray, image_size: int,
                 min_side: int = MIN_SIDE) -> np.ndarray:
    """Decode, cut out the central square, resize it and set it upright.

    A JPEG is decoded straight at the smallest of libjpeg's scales (n/8) that is not below
    `image_size`, which averages in the frequency domain, then resized by Pillow's bilinear
    filter, whose support grows with the reduction. On UTKFace at 64 pixels this differs from
    resizing the full image by 1.2 grey levels (root mean square) and takes half the time.
    An orientation noted in the file (Exif) is applied. Transparency is left aside, of 16 bits a
    channel the higher 8 are taken, and of several frames the first.

    Args:
      content: a file of one of `formats()`, or [H, W, 3], [H, W, 1] or [H, W] uint8.
      image_size: height and width of the result, pixels.
      min_side: least height and width of the source, pixels.

    Returns:
      [image_size, image_size, 3] uint8.

    Raises:
      UnusableImage: no image, damaged, truncated, smaller than `min_side`, larger than
        `MAX_PIXELS`, of numbers that are neither of 8 nor of 16 bits, or an array of another kind.
    """
    image, (height, width), orientation = _decode(content, image_size, min_side)
    if not height == width == image_size:
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        image = np.asarray(Image.fromarray(image).resize(
            (image_size, image_size), Image.Resampling.BILINEAR,
            box=(left, top, left + side, top + side)))
    # Of the square, as the central one stays the same however the picture is turned.
    return np.ascontiguousarray(_UPRIGHT[orientation](image)) if orientation > 1 else image


def check_image(content: bytes | np.ndarray, min_side: int = MIN_SIDE) -> None:
    """Raise what `decode_image` would raise, in a third of the time.

    All of the file is decoded, a JPEG at the coarsest scale.
    """
    _decode(content, 1, min_side)


def _decode(content: bytes | np.ndarray, least: int,
            min_side: int) -> tuple[np.ndarray, tuple[float, float], int]:
    """[H, W, 3] uint8, the height and width that the picture takes up of it, its orientation.

    A JPEG may be reduced, but not below `least` pixels. Then what libjpeg gives is rounded up to
    whole pixels: at 1/8 the 250 rows of a picture are 31.25 of 32, the rest is padding.
    """
    if isinstance(content, np.ndarray):
        image = _from_array(content, min_side)
        return image, image.shape[:2], 1
    if simplejpeg.is_jpeg(content):
        return _from_jpeg(content, least, min_side)
    return _from_file(content, min_side)


def _from_jpeg(content: bytes, least: int,
               min_side: int) -> tuple[np.ndarray, tuple[float, float], int]:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        _check_size(height, width, min_side)
        if colours not in ("CMYK", "YCCK"):
            image = simplejpeg.decode_jpeg(content, "RGB", min_height=least, min_width=least)
            n = next(n for n in range(8, 0, -1)
                     if image.shape[:2] == (-(-height * n // 8), -(-width * n // 8)))
            return image, (height * n / 8, width * n / 8), _jpeg_orientation(content)
    except UnusableImage:
        raise
    except ValueError:
        pass  # simplejpeg refuses what libjpeg only warns of; Pillow still refuses truncated files
    return _from_file(content, min_side)


def _from_file(content: bytes, min_side: int) -> tuple[np.ndarray, tuple[int, int], int]:
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            _check_size(image.height, image.width, min_side)
            image.load()  # a PNG may note its orientation behind its pixels
            pixels = _rgb(image)
            return pixels, pixels.shape[:2], _orientation(image)
    except UnusableImage:
        raise
    except UnidentifiedImageError as e:
        raise UnusableImage("undecodable: not an image of a format that is read") from e
    except Image.DecompressionBombError as e:
        raise UnusableImage(f"larger than {MAX_PIXELS} pixels") from e
    except Exception as e:  # Pillow's readers raise a dozen types for damaged files
        kind = "truncated" if "truncated" in str(e).lower() else "undecodable"
        raise UnusableImage(kind) from e


def _rgb(image: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8 of a loaded image."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # Grey of more than 8 bits, which `convert` would clip; of colours of 16 bits Pillow itself
        # takes the higher byte. In a PNG or PPM 'I' holds 16 bits, elsewhere 32.
        bits = (16,)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            bits = image.tag_v2.get(_BITS, (16,))
        if image.mode == "F" or bits != (16,) or (
                image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise UnusableImage("neither 8 nor 16 bits a channel")
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    image.info.pop("transparency", None)
    return np.asarray(image.convert("RGB"))


def _jpeg_orientation(content: bytes) -> int:
    # Pillow takes half as long as the decoder to read what few photographs hold.
    if b"Exif\0\0" not in content and b"tiff:Orientation" not in content:
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "MPO")) as image:
            return _orientation(image)
    except (OSError, SyntaxError):  # Pillow refuses what libjpeg has decoded
        return 1


def _orientation(image: Image.Image) -> int:
    """1 to 8, as Exif counts them; 1, upright, where nothing or nonsense is noted."""
    try:
        noted = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif raises many types; viewers show such an image as it lies
        return 1
    return noted if noted in _UPRIGHT else 1


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
