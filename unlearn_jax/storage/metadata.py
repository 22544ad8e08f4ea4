"""A checkpoint's `metadata.json`: the user's metadata, and each leaf's shape, dtype and digest.

It needs neither JAX nor Orbax, so that listing checkpoints is fast and still works in ten years.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers np.dtype('bfloat16') and the like
import numpy as np

from unlearn_jax.errors import InputError
from unlearn_jax.storage import store

FILE = "metadata.json"
ARRAYS = "arrays"
_FORMAT = 1


class CheckpointError(InputError):
    """A checkpoint cannot be written, read or used as asked; the message names the leaf."""


class DamagedError(CheckpointError):
    """A checkpoint differs from what was saved."""


def text(user: dict[str, Any], leaves: dict[str, dict[str, Any]], empty: list[str],
         time: str) -> str:
    """The content of a new `metadata.json`.

    Args:
      user: nested dict of plain values; numpy scalars and arrays become numbers and lists,
        tuples become lists. NaN and infinities are kept.
      leaves: {leaf path: {'shape': [...], 'dtype': name, 'digest': hex}}.
      empty: paths of empty dicts.
      time: UTC, ISO 8601.

    Raises:
      TypeError: `user` holds another type; the message names its path.
    """
    content = {"format": _FORMAT, "time": time, "metadata": _encode(user, "metadata"),
               "leaves": leaves, "empty": empty}
    # A digest of the metadata itself: a flipped bit in a seed is as bad as one in a weight.
    return json.dumps(content | {"digest": _digest(content)}, indent=1) + "\n"


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the `metadata.json` of the checkpoint directory `path`.

    Returns:
      A dict with metadata (the user's), leaves, empty and time, as given to `text`.

    Raises:
      CheckpointError: not a checkpoint, its metadata is damaged, or it cannot be read (for example
        because another process has removed it meanwhile).
    """
    path = Path(path)
    try:
        return _read(path)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be read: {e.strerror}") from e


def _read(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: "
                              + ("not a directory" if path.exists() else "it does not exist"))
    if not any(path.iterdir()):
        raise CheckpointError(f"{path} is not a checkpoint: the directory is empty")
    if not is_checkpoint(path):
        half = (path / FILE).exists() or (path / ARRAYS).exists()
        raise (DamagedError if half else CheckpointError)(
            f"{path} is not a (complete) checkpoint: it needs {FILE} and {ARRAYS}/")
    try:
        content = json.loads((path / FILE).read_bytes())
        digest = content.pop("digest")
        version = content["format"]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DamagedError(f"{path} is damaged: {FILE} cannot be read") from e
    if digest != _digest(content):
        raise DamagedError(f"{path} is damaged: {FILE} does not match its digest")
    if version != _FORMAT:
        raise CheckpointError(f"{path} has format {version}; this version reads {_FORMAT}")
    return content | {"metadata": _decode(content["metadata"])}


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether the directory looks like a checkpoint (which may still be damaged)."""
    return Path(path, FILE).is_file() and Path(path, ARRAYS).is_dir()


def specs(content: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """{leaf path: (shape, dtype)} of what `read` returned."""
    return {name: (tuple(leaf["shape"]), np.dtype(leaf["dtype"]))
            for name, leaf in content["leaves"].items()}


def _encode(value: Any, path: str) -> Any:
    """A value as plain JSON; NaN and infinities, which JSON lacks, become {'$float': 'nan'}."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r}; allowed: str")
        return {key: _encode(v, f"{path}.{key}") for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(float(value))}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{path} is {value!r} of type {type(value).__name__}; allowed: str, bool, "
                    "int, float, None, numpy arrays, and dict, list, tuple of them")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$float"} and value["$float"] in ("nan", "inf", "-inf"):
            return float(value["$float"])
        return {key: _decode(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_decode(v) for v in value]
    return value


def _digest(content: dict[str, Any]) -> str:
    return hashlib.blake2b(store.canonical_json(content).encode(), digest_size=16).hexdigest()
