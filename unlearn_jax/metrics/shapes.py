"""Checks that all metrics share: a wrong shape is refused, never broadcast."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:  # the report, which loads no JAX, checks shapes, too
    import jax

Array: TypeAlias = "jax.Array | np.ndarray"


class Refused(ValueError):
    """The data do not allow the measure: too few models or samples, or no variance.

    A plain ValueError means a mistake in the calling code.
    """


def check_rank(what: str, array: Array, rank: int, form: str) -> None:
    """Raises ValueError unless the array has `rank` axes; `form` names them in the message."""
    if array.ndim != rank:
        raise ValueError(f"{what} must have shape {form}, not {array.shape}")


def check_labels(outputs: Array, labels: Array) -> None:
    """Raises ValueError unless there is one label per column of `outputs`."""
    if labels.shape != (outputs.shape[1],):
        raise ValueError(f"labels must have shape ({outputs.shape[1]},) to go with outputs of "
                         f"shape {outputs.shape}, not {labels.shape}")


def check_equal(reference: Array, evaluated: Array) -> None:
    """Raises ValueError unless both have the same shape."""
    if reference.shape != evaluated.shape:
        raise ValueError(f"the reference has shape {reference.shape} and the evaluated models "
                         f"{evaluated.shape}; they must be the same")


def check_classes(logits: Array, labels: Array) -> None:
    """Raises ValueError unless logits are `[M, N, C]` with C > 1 and labels are N classes."""
    check_rank("logits", logits, 3, "[M, N, C]")
    if logits.shape[2] < 2:
        raise ValueError(f"logits must have at least two classes, not shape {logits.shape}")
    check_labels(logits, labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be class numbers (integers), not {labels.dtype}")


def check_finite(what: str, array: Array) -> None:
    """Raises ValueError if a value is not finite; the message names the first such row.

    It reads values, so it cannot be used under `jit`.
    """
    finite = np.isfinite(np.asarray(array))
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(finite), -1).all(-1)))
        raise ValueError(f"{what} must be finite; row {row} is not. Leave that member out")
