"""Where a reduced JPEG is cut, images of 16 bits, formats, and what lies on its side."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from unlearn_jax.data.decode import UnusableImage, decode_image, has_image_name


def encode(pixels, kind="JPEG", **options):
    f = io.BytesIO()
    Image.fromarray(pixels).save(f, kind, **options)
    return f.getvalue()


def smooth(height, width):
    """Waves of 60 to 130 pixels, which no scale loses."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 120 * np.sin(x / 10), 127 + 120 * np.sin(y / 10),
                     127 + 120 * np.cos(x / 15 - y / 20)], -1).astype(np.uint8)


@pytest.mark.parametrize("height, width, size", [
    (250, 250, 32), (201, 201, 48), (300, 201, 48), (201, 300, 48), (218, 178, 32),
    (200, 200, 48), (256, 256, 32),  # these are multiples of the scale
])
def test_a_reduced_jpeg_shows_what_the_full_one_shows(height, width, size):
    content = encode(smooth(height, width), quality=95, subsampling=0)
    with Image.open(io.BytesIO(content)) as image:
        full = decode_image(np.asarray(image), size)
    difference = decode_image(content, size).astype(float) - full
    assert np.sqrt((difference ** 2).mean()) < 6


def png16(pixels):
    """[H, W, C] uint16 as a PNG file; Pillow writes only grey ones."""
    height, width, channels = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8),  # each begins with its filter
                           pixels.astype(">u2").reshape(height, -1).view(np.uint8)], 1)

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b""))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])  # grey and RGB, without and with transparency
def test_of_16_bits_a_channel_the_high_8_are_taken(channels):
    wide = np.random.default_rng(0).integers(0, 2**16, (40, 40, channels), np.uint16)
    colours = wide[..., :channels if channels % 2 else channels - 1]
    assert (decode_image(png16(wide), 40) == colours >> 8).all()


def noted(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


CORNER = smooth(80, 80)
CORNER[:24, :40] = 255, 0, 0  # so that no turn shows what another one does


@pytest.mark.parametrize("size", [80, 40, 10])
@pytest.mark.parametrize("kind, options", [
    ("JPEG", dict(quality=95, subsampling=0)), ("PNG", {}), ("TIFF", {}),
    ("WEBP", dict(lossless=True)),
])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_upright(kind, options, size, orientation):
    content = encode(CORNER, kind, exif=noted(orientation), **options)
    with Image.open(io.BytesIO(content)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    expected = decode_image(upright, size).astype(float)
    found = decode_image(content, size)
    assert found.flags.c_contiguous and np.abs(found - expected).mean() < 6
    if orientation > 1:
        assert np.abs(found - decode_image(CORNER, size).astype(float)).mean() > 20


def test_an_oblong_photograph_is_cut_where_it_is_once_upright():
    pixels = smooth(201, 300)
    for orientation in (3, 6, 8):  # 3 turns the padding of a reduced JPEG to the other side
        content = encode(pixels, exif=noted(orientation), quality=95, subsampling=0)
        with Image.open(io.BytesIO(content)) as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        difference = decode_image(content, 48).astype(float) - decode_image(upright, 48)
        assert np.sqrt((difference ** 2).mean()) < 6


@pytest.mark.filterwarnings("ignore:.*EXIF data")  # by which Pillow says the same
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff",
                                  b"Exif\0\0nonsense",
                                  noted(0).tobytes(), noted(9).tobytes()])
def test_what_is_no_orientation_turns_nothing(exif):
    content = encode(CORNER, exif=exif, quality=95)
    assert (decode_image(content, 40) == decode_image(encode(CORNER, quality=95), 40)).all()


@pytest.mark.parametrize("kind, options", [
    ("WEBP", dict(lossless=True)), ("BMP", {}), ("TIFF", {}), ("GIF", {}), ("PPM", {}), ("TGA", {}),
    ("TIFF", dict(compression="tiff_lzw")), ("PCX", {}), ("JPEG2000", {}), ("DDS", {}), ("SGI", {}),
    ("AVIF", dict(quality=95)), ("ICO", dict(sizes=[(80, 80)])), ("QOI", {}),
])
def test_what_pillow_opens_is_read(kind, options):
    found = decode_image(encode(CORNER, kind, **options), 40).astype(float)
    assert np.abs(found - decode_image(CORNER, 40)).mean() < 10


def test_of_several_frames_the_first_is_taken():
    frames = [Image.new("RGB", (40, 40), (level,) * 3) for level in (200, 20)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        f = io.BytesIO()
        frames[0].save(f, kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode_image(f.getvalue(), 32).astype(int) - 200).max() < 4


@pytest.mark.parametrize("array", [np.full((40, 40), 0.5, np.float32),
                                   np.full((40, 40), 200, np.int32)])
def test_numbers_that_are_not_of_8_or_16_bits_are_refused(array):
    with pytest.raises(UnusableImage, match="neither 8 nor 16 bits a channel"):
        decode_image(encode(array, "TIFF"), 32)
    grey = np.full((40, 40), 200 << 8, np.uint16)
    assert (decode_image(encode(grey, "TIFF"), 32) == 200).all()


def test_postscript_is_not_handed_to_another_program():
    with pytest.raises(UnusableImage, match="not an image of a format that is read"):
        decode_image(encode(CORNER, "EPS"), 32)


def test_damage_of_every_format_has_a_reason():
    rng = np.random.default_rng(0)
    for kind in ("WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "PCX", "JPEG2000", "AVIF", "ICO",
                 "DDS", "SGI", "QOI", "PNG", "JPEG"):
        whole = np.frombuffer(encode(CORNER, kind), np.uint8)
        for _ in range(25):
            damaged = whole[:rng.integers(1, len(whole))].copy()
            damaged[rng.integers(0, len(damaged), 4)] = rng.integers(0, 256, 4)
            try:
                image = decode_image(damaged.tobytes(), 32)
            except UnusableImage as e:
                assert str(e)
            else:
                assert image.shape == (32, 32, 3) and image.dtype == np.uint8


def test_names_of_images():
    assert all(map(has_image_name, ["a/1.jpg", "1.JPEG", "1.jfif", "1.webp", "1.tif", "1.bmp"]))
    assert not any(map(has_image_name, ["a.jpg/1", "notes.txt", "labels.csv", "x.zip", "1.pdf",
                                        "1.eps", "jpg"]))
