"""Tensors of a file of weights, whose values are read only after their shapes are checked."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

# Floats that can be read without a separate scale, by the names of safetensors.
FLOATS = ("F16", "BF16", "F32", "F64")
_FLOATS = {*FLOATS, "float16", "bfloat16", "float32", "float64"}  # and by those of NumPy


@dataclasses.dataclass(frozen=True)
class FileTensor:
    """One tensor of a file.

    Attributes:
      shape: its shape.
      dtype: the name of its type: that of safetensors, such as `F32`, or that of NumPy.
      read: returns its values.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def is_float(self) -> bool:
        """Whether it holds floats that can be read without a separate scale."""
        return self.dtype in _FLOATS

    @property
    def counts(self) -> bool:
        """Whether it holds whole numbers: a counter, a random seed."""
        return self.dtype.lower().startswith(("i", "u", "bool"))


def safetensors_tensors(file: Any) -> dict[str, FileTensor]:
    """The tensors of an open safetensors file, by name."""

    def tensor(name: str) -> FileTensor:
        view = file.get_slice(name)
        return FileTensor(tuple(view.get_shape()), view.get_dtype(),
                          lambda: file.get_tensor(name))

    return {name: tensor(name) for name in list(file.keys())}
