"""Decodes an image and resizes it, or gives the reason why it cannot be used."""

import functools
import io
from pathlib import PurePosixPath

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

MIN_SIDE = 32  # pixels: smaller photographs show too little
MAX_PIXELS = 64_000_000  # a small file can declare a huge image
_BITS = 258  # TIFF's tag BitsPerSample
# Pillow hands EPS and WMF to other programs, and reads no pixels of the others.
_NOT_READ = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
# The operation that undoes each Exif orientation; 1 is upright.
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
    """The readable file formats by Pillow's names: JPEG, PNG, WEBP, BMP, TIFF, ..."""
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
    """Decodes an image, cuts out the central square, resizes it and sets it upright.

    A JPEG is decoded at the smallest of libjpeg's scales (n/8) that is not below `image_size`,
    which averages in the frequency domain. Pillow's bilinear filter, whose support grows with the
    reduction, then resizes it. On UTKFace at 64 pixels this differs from resizing the full image by
    1.2 grey levels (root mean square) and takes half the time.
    An Exif orientation in the file is applied. Transparency is ignored. The higher 8 of 16 bits per
    channel are taken, and the first of several frames.

    Args:
      content: a file of one of `formats()`, or [H, W, 3], [H, W, 1] or [H, W] uint8.
      image_size: height and width of the result, pixels.
      min_side: least height and width of the source, pixels.

    Returns:
      [image_size, image_size, 3] uint8.

    Raises:
      UnusableImage: no image, damaged, truncated, smaller than `min_side`, larger than
        `MAX_PIXELS`, numbers of neither 8 nor 16 bits, or an array of another kind.
    """
    image, (height, width), orientation = _decode(content, image_size, min_side)
    if not height == width == image_size:
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        image = np.asarray(Image.fromarray(image).resize(
            (image_size, image_size), Image.Resampling.BILINEAR,
            box=(left, top, left + side, top + side)))
    # Only the square is turned: the central square is the same in every orientation.
    return np.ascontiguousarray(_UPRIGHT[orientation](image)) if orientation > 1 else image


def check_image(content: bytes | np.ndarray, min_side: int = MIN_SIDE) -> None:
    """Raises what `decode_image` would raise, in a third of the time.

    The whole file is decoded, a JPEG at the coarsest scale.
    """
    _decode(content, 1, min_side)


def _decode(content: bytes | np.ndarray, least: int,
            min_side: int) -> tuple[np.ndarray, tuple[float, float], int]:
    """Returns [H, W, 3] uint8, the picture's height and width within it, and its orientation.

    A JPEG may be reduced, but not below `least` pixels. libjpeg then rounds up to whole pixels: at
    1/8, the 250 rows of a picture are 31.25 of 32 rows, and the rest is padding.
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
        pass  # libjpeg only warns of what simplejpeg refuses; Pillow refuses truncated files, too
    return _from_file(content, min_side)


def _from_file(content: bytes, min_side: int) -> tuple[np.ndarray, tuple[int, int], int]:
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            _check_size(image.height, image.width, min_side)
            image.load()  # a PNG may hold its orientation after its pixels
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
        # `convert` would clip grey of more than 8 bits; for 16-bit colours Pillow itself takes the
        # higher byte. 'I' holds 16 bits in a PNG or PPM, and 32 bits elsewhere.
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
    # Reading the orientation takes Pillow half as long as decoding, and few photographs have one.
    if b"Exif\0\0" not in content and b"tiff:Orientation" not in content:
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "MPO")) as image:
            return _orientation(image)
    except (OSError, SyntaxError):  # Pillow refuses a file that libjpeg has decoded
        return 1


def _orientation(image: Image.Image) -> int:
    """The Exif orientation, 1 to 8; 1 (upright) if there is none or an invalid one."""
    try:
        noted = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged Exif raises many types; viewers show such an image unturned
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
