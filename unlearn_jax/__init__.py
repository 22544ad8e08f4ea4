"""Machine unlearning on image models: train, unlearn and audit whole populations.

    import unlearn_jax as ul

    data = ul.Data(images, labels, forget={"class 3": positions})
    run = ul.study(data, network="resnet10", methods=("ft", "scrub"))

docs/python.md explains the names in `__all__`. They are loaded when they are used, so that an
import of the package is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from unlearn_jax import moved

if TYPE_CHECKING:
    from unlearn_jax.api import CompletedStudy, Data, open_study, study
    from unlearn_jax.errors import InputError

__all__ = ["CompletedStudy", "Data", "InputError", "open_study", "study"]

moved.install()


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "unlearn_jax.errors" if name == "InputError" else "unlearn_jax.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    """The public names, too, before they are loaded."""
    return sorted({*globals(), *__all__})
