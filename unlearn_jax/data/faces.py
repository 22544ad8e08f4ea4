"""Drawing of the synthetic faces: from a table of traits to pixels.

The picture plane runs from -1 to 1 on both axes, v pointing down; a face is drawn in its own
frame (moved, turned, scaled) and mirrored about its middle, so that one stroke gives both eyes.
Pixels come from sums, products, quotients and square roots alone. Every machine rounds these the
same way, so that a seed gives the same bytes everywhere.
"""

import dataclasses

import numpy as np

# pixels drawn at once; few enough to stay in the processor's cache
CHUNK_PIXELS = 65536


@dataclasses.dataclass(frozen=True)
class Faces:
    """Traits of N faces, each float32 [N], colours [N, 3] in 0..1, groups of marks [N, K].

    Lengths are in units of half the picture; depths and covers are shares from 0 to 1.
    """

    # where the head is
    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    roll: np.ndarray  # tangent of half the angle
    yaw: np.ndarray  # how far the features move to one side of the head
    # head
    head_width: np.ndarray
    head_length: np.ndarray
    chin: np.ndarray  # narrowing towards the chin
    skin: np.ndarray  # colour
    blush: np.ndarray
    # hair
    hair: np.ndarray  # colour, greying included
    hair_volume: np.ndarray
    hair_length: np.ndarray
    hairline: np.ndarray  # height of the forehead's upper edge
    temples: np.ndarray  # how steeply the hairline comes down at the sides
    beard: np.ndarray
    # features
    feature_height: np.ndarray  # of the eyes
    eye_gap: np.ndarray
    eye_size: np.ndarray
    iris: np.ndarray  # colour
    brow: np.ndarray  # thickness
    brow_slope: np.ndarray
    nose_length: np.ndarray
    nose_width: np.ndarray
    mouth_width: np.ndarray
    lip: np.ndarray  # thickness
    lip_colour: np.ndarray
    smile: np.ndarray
    # skin lines: depths
    forehead: np.ndarray  # [N, 3]
    eye_bags: np.ndarray
    crow_feet: np.ndarray
    folds: np.ndarray
    jowls: np.ndarray
    texture: np.ndarray
    # particular to a person or a photograph
    moles: np.ndarray  # [N, 3 * MOLES]: u, v, depth of each
    glasses: np.ndarray  # opacity of the frame
    frame: np.ndarray  # colour
    clothes: np.ndarray  # colour
    wall: np.ndarray  # colour
    pattern: np.ndarray  # colour
    stripes: np.ndarray  # [N, 3]: waves along x and y, phase
    light: np.ndarray  # from the right when positive
    exposure: np.ndarray
    grain: np.ndarray


MOLES = 4


def draw(faces: Faces, image_size: int, noise: np.random.Generator) -> np.ndarray:
    """Draws every face.

    Args:
      faces: traits of N faces.
      image_size: height and width in pixels.
      noise: gives the grain; face i takes the i-th block of image_size**2 numbers.

    Returns:
      [N, image_size, image_size, 3] uint8, red, green, blue.
    """
    n = len(faces.x)
    images = np.empty((n, image_size, image_size, 3), np.uint8)
    axis = ((np.arange(image_size, dtype=np.float32) + 0.5) * np.float32(2 / image_size) - 1)
    step = max(CHUNK_PIXELS // image_size**2, 1)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        # [n] -> [n, 1, 1] and [n, 3] -> [3, n, 1, 1], to broadcast over the pixels
        part = Faces(**{
            f.name: np.moveaxis(getattr(faces, f.name)[rows], 0, -1)[..., None, None]
            for f in dataclasses.fields(Faces)})
        grain = noise.random((rows.stop - start, image_size, image_size), np.float32)
        planes = _draw_chunk(part, axis[None, None, :], axis[None, :, None], grain)
        planes *= 255
        planes += 0.5
        images[rows] = np.moveaxis(np.clip(planes, 0, 255, out=planes), 0, -1).astype(np.uint8)
    return images


def _draw_chunk(t: Faces, x: np.ndarray, y: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """One chunk of faces as [3, n, H, W] float32 in about 0..1."""
    planes = _background(t, x, y)
    # the frame of the face; (1 - r^2, 2r) / (1 + r^2) is a rotation without sine and cosine
    cos, sin = (1 - t.roll**2) / (1 + t.roll**2), 2 * t.roll / (1 + t.roll**2)
    dx, dy = x - t.x, y - t.y
    u = (cos * dx + sin * dy) / t.scale
    v = (cos * dy - sin * dx) / t.scale
    pixel = 2 / (x.shape[2] * t.scale)
    m = np.abs(u - 0.12 * t.yaw)  # features are mirrored about the face's middle
    head_q = _radius(u, v, t.head_width * (1 - t.chin * np.maximum(v, 0) ** 2), t.head_length)
    head = _edge((head_q - 1) * t.head_width, pixel)

    _paint_behind(planes, t, u, v, pixel)
    skin = t.skin * (1.04 - 0.2 * head_q * head_q)
    _paint(planes, head, skin)
    _paint(planes, head * 0.5 * t.blush * _dot(m - 0.3, v - 0.22, 0.2), t.lip_colour)
    marks = _skin_marks(t, u, m, v, pixel)
    planes *= 1 - np.minimum(marks, 0.85) * head
    _paint_features(planes, t, u, m, v, pixel)
    bare = head * (1 - _paint_hair(planes, t, u, m, v, pixel, head))
    _paint_glasses(planes, t, m, v, pixel)
    planes *= t.exposure * (1 + t.light * (u + 0.3 * v))
    planes += (grain - 0.5) * (t.grain + t.texture * bare)
    return planes


def _background(t: Faces, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    wave = x * t.stripes[0] + y * t.stripes[1] + t.stripes[2]
    wave = np.abs(wave - np.floor(wave) - 0.5) * 2
    return t.wall + (t.pattern - t.wall) * wave


def _paint_behind(planes, t, u, v, pixel) -> None:
    """Paints the hair behind the head, neck, clothes and ears."""
    lower = np.where(v > 0, v / (1 + t.hair_length), v)
    width = t.head_width * (0.98 + 0.24 * t.hair_volume)
    height = t.head_length * (0.96 + 0.2 * t.hair_volume)
    _paint(planes, _ellipse(u, lower, width, height, pixel), t.hair * 0.8)
    _paint(planes, _edge(np.abs(u) - 0.6 * t.head_width, pixel) * _edge(-v, pixel), t.skin * 0.72)
    _paint(planes, _ellipse(u, v - 1.3, 1.0, 0.48, pixel), t.clothes)
    ears = _ellipse(np.abs(u) - t.head_width, v - t.feature_height - 0.12, 0.09, 0.16, pixel)
    _paint(planes, ears, t.skin * 0.88)


def _skin_marks(t: Faces, u, m, v, pixel) -> np.ndarray:
    """Share of the light that lines and folds take away, [n, H, W]."""
    eyes, nose, mouth = _heights(t)
    marks = 0
    top = t.hairline
    for k, place in enumerate((0.3, 0.52, 0.74)):
        line = v - (top + (eyes - 0.1 - top) * place) - 0.25 * m * m
        marks = marks + t.forehead[k] * _stroke(line, 0.035, pixel) * _bump(m / 0.38)
    away = m - t.eye_gap
    bag = v - eyes - 0.13 + 1.6 * away * away
    marks += t.eye_bags * _stroke(bag, 0.045, pixel) * _bump(away / 0.17)
    out = away - 0.2
    for slope in (-0.5, 0.5):
        crow = v - eyes - slope * (out + 0.06)
        marks += t.crow_feet * _stroke(crow, 0.03, pixel) * _bump(out / 0.1)
    drop = (v - nose) / (mouth - nose)
    fold = m - 0.14 - 0.13 * drop
    marks += t.folds * _stroke(fold, 0.045, pixel) * _bump((drop - 0.65) / 1.0)
    jowl = m - 0.36 + 0.5 * (v - mouth - 0.12)
    marks += t.jowls * _stroke(jowl, 0.05, pixel) * _bump((v - mouth - 0.12) / 0.2)
    for k in range(MOLES):
        du, dv = u - t.moles[3 * k], v - t.moles[3 * k + 1]
        marks += t.moles[3 * k + 2] * _stroke_dot(du, dv, 0.05, pixel)
    return marks


def _paint_features(planes, t: Faces, u, m, v, pixel) -> None:
    """Paints nose, mouth, eyes and brows."""
    eyes, nose, mouth = _heights(t)
    middle = u - 0.12 * t.yaw
    side = _stroke(middle - t.nose_width * 0.8, 0.05, pixel) * _bump((v - nose + 0.12) / 0.26)
    under = _stroke(v - nose - 0.02, 0.045, pixel) * _bump(m / (t.nose_width * 1.7))
    planes *= 1 - 0.28 * side - 0.5 * under

    curve = v - mouth + t.smile * (m * m - 0.02)
    _paint(planes, _ellipse(m, curve, t.mouth_width, t.lip, pixel), t.lip_colour)
    planes *= 1 - 0.55 * _stroke(curve, 0.02, pixel) * _bump(m / (t.mouth_width * 1.1))

    away = m - t.eye_gap
    width, height = 0.13 * t.eye_size, 0.075 * t.eye_size
    _paint(planes, _ellipse(away, v - eyes, width, height, pixel), np.float32(0.93))
    open_eye = _edge((np.abs(v - eyes) - height), pixel)
    _paint(planes, open_eye * _ellipse(away, v - eyes, height, height, pixel), t.iris)
    _paint(planes, open_eye * _stroke_dot(away, v - eyes, 0.5 * height, pixel), np.float32(0.05))
    lid = v - eyes + height - 2.2 * away * away
    planes *= 1 - 0.6 * _stroke(lid, 0.025, pixel) * _bump(away / (width * 1.25))

    brow = v - eyes + 0.19 - t.brow_slope * away - 1.2 * away * away
    _paint(planes, 0.85 * _stroke(brow, t.brow, pixel) * _bump(away / 0.22), t.hair * 0.7)


def _paint_hair(planes, t: Faces, u, m, v, pixel, head) -> np.ndarray:
    """Paints the beard and the hair in front of the head; returns the cover of the hair."""
    _, nose, mouth = _heights(t)
    chin = _radius(m, v - mouth - 0.06, 0.42, 0.36)
    lips = _ellipse(m, v - mouth, t.mouth_width, t.lip + 0.02, pixel)
    beard = np.clip((v - nose - 0.06) / 0.1, 0, 1) * np.clip((chin - 0.35) / 0.3, 0.35, 1)
    _paint(planes, t.beard * head * beard * (1 - lips), t.hair * 0.85)

    line = t.hairline + t.temples * u * u
    strands = u * 9 + v * 2
    strands = np.abs(strands - np.floor(strands) - 0.5)
    crown = _ellipse(u, v, t.head_width * 1.03, t.head_length * 1.02, pixel)
    crown = crown * _edge(v - line, pixel + 0.05)
    _paint(planes, crown, t.hair * (0.9 + 0.3 * strands))
    return crown


def _paint_glasses(planes, t: Faces, m, v, pixel) -> None:
    eyes, _, _ = _heights(t)
    ring = np.abs(_radius(m - t.eye_gap, v - eyes, 0.2, 0.16) - 1) * 0.17
    bridge = _stroke(v - eyes, 0.04, pixel) * _edge(m - t.eye_gap + 0.2, pixel)
    bar = _stroke(v - eyes + 0.04, 0.04, pixel) * _edge(t.eye_gap + 0.2 - m, pixel)
    bar = bar * _edge(m - t.head_width, pixel)
    frame = np.maximum(_stroke(ring, 0.045, pixel), np.maximum(bridge, bar))
    _paint(planes, t.glasses * frame, t.frame)


def _heights(t: Faces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights of the eyes, the nose's tip and the mouth."""
    nose = t.feature_height + t.nose_length
    return t.feature_height, nose, nose + 0.45 * (t.head_length - nose)


def _paint(planes: np.ndarray, cover: np.ndarray, colour: np.ndarray | np.float32) -> None:
    planes += cover * (colour - planes)


def _radius(u, v, width, height) -> np.ndarray:
    """Distance from the middle: 1 on the ellipse with these half axes, less inside."""
    return np.sqrt((u / width) ** 2 + (v / height) ** 2)


def _edge(distance, pixel) -> np.ndarray:
    """Cover of a shape from the signed distance to its edge: 1 inside, blended over one pixel."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def _ellipse(u, v, width, height, pixel) -> np.ndarray:
    return _edge((_radius(u, v, width, height) - 1) * np.minimum(width, height), pixel)


def _bump(z) -> np.ndarray:
    """A smooth hill of height 1 at 0 that ends at -1 and 1."""
    return np.maximum(1 - z * z, 0) ** 2


def _stroke(distance, width, pixel) -> np.ndarray:
    """Cover of a soft line; thinner than a pixel it fades instead of flickering."""
    wide = np.sqrt(width * width + pixel * pixel)
    return _bump(distance / wide) * (width / wide)


def _dot(du, dv, radius) -> np.ndarray:
    return np.maximum(1 - (du * du + dv * dv) / (radius * radius), 0) ** 2


def _stroke_dot(du, dv, radius, pixel) -> np.ndarray:
    """Cover of a soft dot; smaller than a pixel it fades."""
    wide = radius * radius + pixel * pixel
    return np.maximum(1 - (du * du + dv * dv) / wide, 0) ** 2 * (radius * radius / wide)
