"""Position embeddings of a vision transformer for another number of patches."""

import math

import numpy as np


def resized_positions(value: np.ndarray, tokens: int) -> np.ndarray:
    """Position embeddings, interpolated for another number of patches.

    The embedding of the class token stays. Those of the patches are resized as a picture, by cubic
    interpolation, with antialiasing where the picture shrinks (timm's `resample_abs_pos_embed`;
    Keys 1981 with a = -1/2).

    Args:
      value: `[1, 1 + n * n, C]`.
      tokens: 1 + m * m.

    Returns:
      `[1, tokens, C]`.
    """
    old, new = (math.isqrt(count - 1) for count in (value.shape[1], tokens))
    weights = _cubic(old, new)
    grid = value[0, 1:].reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("ih,jw,hwc->ijc", weights, weights, grid)
    return np.concatenate([value[:, :1], grid.reshape(1, new * new, -1)], axis=1,
                          dtype=np.float32)


def can_resize(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether `resized_positions` maps embeddings of one shape to another."""
    return (len(shape) == 3 and (shape[0], shape[2]) == (wanted[0], wanted[2])
            and shape[1] > 1 and math.isqrt(shape[1] - 1)**2 == shape[1] - 1)


def _cubic(old: int, new: int) -> np.ndarray:
    """Weights `[new, old]` of the old positions in each new one; rows add up to 1."""
    wide = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    t = np.abs(centres[:, None] - np.arange(old)) / wide
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t < 1, near, np.where(t < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
