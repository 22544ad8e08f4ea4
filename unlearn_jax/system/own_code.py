"""Python from a file of the user's own: `path/to/file.py:NAME`, for methods and networks."""

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlearn_jax.errors import ConfigError
from unlearn_jax.system.interrupt import Interrupted

_LONGEST = 80  # characters of a name, which begins file names


@dataclasses.dataclass(frozen=True)
class OwnCode:
    """An object from a file, found by its name.

    Attributes:
      value: the object.
      name: FILE-NAME, fit for file names.
      code: digest of the file, since the name means another object after the text changes.
    """

    value: Any
    name: str
    code: str


@dataclasses.dataclass(frozen=True)
class CodeKey:
    """The config key that names a user's own code, for messages.

    Attributes:
      key: the key, such as `config.unlearn.method`.
      kind: what its values are, such as `method`.
      known: values of the key that need no file.
    """

    key: str
    kind: str
    known: tuple[str, ...]


def load(request: str, place: CodeKey, serves: Callable[[Any], bool]) -> OwnCode:
    """The object of a name in a file.

    Args:
      request: `path/to/file.py:NAME`.
      place: the config key.
      serves: whether an object of the file is of the wanted kind, for the message.

    Raises:
      ConfigError: the request has another form, or the file or the name cannot be used.
    """
    path, name = split(request, place)
    file = Path(path).expanduser()
    try:
        text = file.read_bytes()
    except OSError as e:
        raise ConfigError(f"{place.key} is {request!r}: {file}: {e.strerror}") from e
    spec = importlib.util.spec_from_file_location(f"unlearn_jax_outside_{file.stem}", file)
    assert spec is not None and spec.loader is not None, "the file's name ends with .py"
    module = importlib.util.module_from_spec(spec)
    named(spec.loader.exec_module, request, place)(module)
    found = vars(module).get(name)
    if found is None:
        names = [n for n, v in vars(module).items() if serves(v)]
        raise ConfigError(f"{place.key} is {request!r}: the file has no {name!r}; "
                          f"its {place.kind}s: {', '.join(names) or 'none'}")
    short = re.sub(r"[^A-Za-z0-9_+-]", "-", f"{file.stem}-{name}").lstrip("-_+")
    if len(short) > _LONGEST:
        raise ConfigError(f"{place.key} is {request!r}: files would be called after "
                          f"{short!r}; allowed: up to {_LONGEST} characters")
    return OwnCode(found, short, hashlib.blake2b(text, digest_size=8).hexdigest())


def split(request: str, place: CodeKey) -> tuple[str, str]:
    """The file and the name.

    Raises:
      ConfigError: the request has another form.
    """
    path, colon, name = request.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ConfigError(f"{place.key} is {request!r}; allowed: one of "
                          f"{', '.join(map(repr, place.known))}, or path/to/file.py:NAME")
    return path, name


def named(function: Callable[..., Any], request: str, place: CodeKey) -> Callable[..., Any]:
    """The function, and the functions that it returns, with the request noted on their errors.

    A call of sys.exit in it is an error, too: the program would end as if it had finished.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except Interrupted:
            raise
        except SystemExit as e:
            raise ConfigError(f"{place.key} is {request!r}: the file calls "
                              f"sys.exit({e.code!r}); a {place.kind} must raise an error "
                              "instead") from e
        except Exception as e:  # a user's code may raise anything; raised again with a note
            note = f"in the {place.kind} {request} ({place.key})"
            if note not in getattr(e, "__notes__", ()):
                e.add_note(note)
            raise
        return named(result, request, place) if inspect.isfunction(result) else result

    return call
