"""Where a reduced JPEG is cut, and images of 16 bits."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unlearn_jax.data.decode import decode_image


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
