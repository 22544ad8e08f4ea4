"""Methods from a file outside of the package: `--config.unlearn.method=path/to/file.py:NAME`."""

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
from unlearn_jax.methods.method import Method
from unlearn_jax.system.interrupt import Interrupted

_FUNCTIONS = ("make_step", "passes", "prepare", "check")  # of a Method
_LONGEST = 80  # characters of a name, which begins the names of files


@dataclasses.dataclass(frozen=True)
class Found:
    """A method under the name that results and the store know it by.

    Attributes:
      name: of a method of one's own: FILE-NAME.
      method: what it is.
      code: digest of the file of a method of one's own, '' for those of the package: with
        another text it is another method.
    """

    name: str
    method: Method
    code: str


def load(request: str, known: tuple[str, ...]) -> Found:
    """A method from a file.

    Args:
      request: `path/to/file.py:NAME`; NAME is a `Method`, or a function `make_step(setting)`,
        which stands for `Method(make_step=...)`: from M_O, over D_r.
      known: names of the methods of the package, for the message.

    Raises:
      ConfigError: the request has another form, or the file or the name cannot be used.
    """
    allowed = f"one of {', '.join(map(repr, known))}, or path/to/file.py:NAME"
    path, colon, name = request.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ConfigError(f"config.unlearn.method is {request!r}; allowed: {allowed}")
    file = Path(path).expanduser()
    try:
        text = file.read_bytes()
    except OSError as e:
        raise ConfigError(f"config.unlearn.method is {request!r}: {file}: {e.strerror}") from e
    spec = importlib.util.spec_from_file_location(f"unlearn_jax_outside_{file.stem}", file)
    assert spec is not None and spec.loader is not None, "the file's name ends with .py"
    module = importlib.util.module_from_spec(spec)
    named(spec.loader.exec_module, request)(module)
    found = vars(module).get(name)
    if found is None:
        names = [n for n, v in vars(module).items() if isinstance(v, Method)]
        raise ConfigError(f"config.unlearn.method is {request!r}: the file has no {name!r}; "
                          f"its methods: {', '.join(names) or 'none'}")
    method = found if isinstance(found, Method) else Method(make_step=found)
    if not callable(found) and method is not found:
        raise ConfigError(f"config.unlearn.method is {request!r}: {name!r} is neither a Method nor "
                          "a function make_step(setting)")
    wrapped: dict[str, Any] = {
        f: named(getattr(method, f), request) for f in _FUNCTIONS if getattr(method, f)}
    method = dataclasses.replace(method, **wrapped)
    short = re.sub(r"[^A-Za-z0-9_+-]", "-", f"{file.stem}-{name}").lstrip("-_+")
    if len(short) > _LONGEST:
        raise ConfigError(f"config.unlearn.method is {request!r}: files would be called after "
                          f"{short!r}; allowed: up to {_LONGEST} characters")
    return Found(short, method, hashlib.blake2b(text, digest_size=8).hexdigest())


def named(function: Callable[..., Any], request: str) -> Callable[..., Any]:
    """The function, and what functions it returns, with the method's name noted on their errors.

    A call of sys.exit in it is an error, too: the program would end as if all were done.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except Interrupted:
            raise
        except SystemExit as e:
            raise ConfigError(f"config.unlearn.method is {request!r}: the file calls "
                              f"sys.exit({e.code!r}); a method must raise an error instead") from e
        except Exception as e:  # whatever a user's code raises, which goes on as it is
            note = f"in the method {request} (config.unlearn.method)"
            if note not in getattr(e, "__notes__", ()):
                e.add_note(note)
            raise
        return named(result, request) if inspect.isfunction(result) else result

    return call
