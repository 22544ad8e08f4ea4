"""Methods from a file outside of the package: `--config.unlearn.method=path/to/file.py:NAME`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.method import Method
from unlearn_jax.system import own_code

_FUNCTIONS = ("make_step", "passes", "prepare", "check")  # functions of a Method
_KEY = "config.unlearn.method"


@dataclasses.dataclass(frozen=True)
class Found:
    """A method, with its name in the results and in the store.

    Attributes:
      name: its name in the package; FILE-NAME for a method from a user's file.
      method: the method itself.
      code: digest of the user's file, so that a file with another text is another method; '' for
        methods of the package.
    """

    name: str
    method: Method
    code: str


def load(request: str, known: tuple[str, ...]) -> Found:
    """A method from a file.

    Args:
      request: `path/to/file.py:NAME`; NAME is a `Method`, or a function `make_step(setting)`,
        which stands for `Method(make_step=...)`: it starts from M_O and walks over D_r.
      known: names of the methods of the package, for the message.

    Raises:
      ConfigError: the request has another form, or the file or the name cannot be used.
    """
    found = own_code.load(request, _place(known), lambda value: isinstance(value, Method))
    value = found.value
    method = value if isinstance(value, Method) else Method(make_step=value)
    if not callable(value) and method is not value:
        raise ConfigError(f"{_KEY} is {request!r}: {request.rpartition(':')[2]!r} is neither a "
                          "Method nor a function make_step(setting)")
    wrapped: dict[str, Any] = {
        f: named(getattr(method, f), request) for f in _FUNCTIONS if getattr(method, f)}
    return Found(found.name, dataclasses.replace(method, **wrapped), found.code)


def named(function: Callable[..., Any], request: str) -> Callable[..., Any]:
    """Wraps a function of a method file, so that its errors name the method.

    Functions that it returns are wrapped, too.

    Args:
      function: a function of the file.
      request: the method as the config names it, `FILE.py:NAME`.
    """
    return own_code.named(function, request, _place())


def _place(known: tuple[str, ...] = ()) -> own_code.CodeKey:
    return own_code.CodeKey(_KEY, "method", known)
