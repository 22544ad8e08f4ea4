"""Networks from a file outside the package: `--config.model.name=path/to/file.py:NAME`.

NAME is a callable `(num_outputs) -> flax.linen.Module`, such as a module class whose first field is
`num_outputs`. The module's `__call__(x, train)` maps images `[B, H, W, 3]`, preprocessed by
`config.model.preprocess`, to `[B, num_outputs]`. It may have parameters, batch statistics, dropout
and any norm. A Python program may hand over the callable itself (`handed.py`).
"""

import functools
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks.network import Network
from unlearn_jax.system import own_code
from unlearn_jax.system.own_code import CodeKey, OwnCode

_KEY = "config.model.name"
_COLLECTIONS = ("params", "batch_stats")
FROM_PYTHON = "python:"  # begins the name of a network that a Python program hands over
HANDED_OVER: dict[str, OwnCode] = {}  # by that name; `handed.py` enters them
_SERVES = ("a callable (num_outputs) -> flax.linen.Module whose __call__(x, train) maps images "
           "[B, H, W, 3] to [B, num_outputs]")
# Keys that only networks of the package read, with the value that has no effect.
_UNREAD = {"pretrained": "", "projection": 0, "head_widths": (), "head_dropout": (),
           "dtype": "float32"}


def find(request: str, known: tuple[str, ...]) -> OwnCode:
    """A network's callable from a file; the same object as long as the file stays the same.

    Args:
      request: `path/to/file.py:NAME`, or `python:NAME` for a network that was handed over.
      known: names of the networks of the package, for the message.

    Raises:
      ConfigError: the request has another form, or the file or the name cannot be used.
    """
    if request in HANDED_OVER:
        return HANDED_OVER[request]
    if request.startswith(FROM_PYTHON):
        raise ConfigError(f"{_KEY} is {request!r}, a network that a Python program handed to "
                          "unlearn_jax.study; allowed here: that program, or the network in a "
                          "file, path/to/file.py:NAME")
    place = _place(known)
    path, _ = own_code.split(request, place)
    try:
        text = Path(path).expanduser().read_bytes()
    except OSError:
        text = b""  # `load` raises the error
    return _load(request, place, text)


@functools.lru_cache(maxsize=16)
def _load(request: str, place: CodeKey, text: bytes) -> OwnCode:
    del text
    return own_code.load(request, place,
                         lambda v: isinstance(v, type) and issubclass(v, nn.Module))


def check_keys(model_cfg: Any) -> None:
    """Refuses keys of the section `model` that a network from a file does not read.

    Raises:
      ConfigError: the message names the key.
    """
    for key, nothing in _UNREAD.items():
        if model_cfg[key] != nothing:
            raise ConfigError(f"config.model.{key} is {model_cfg[key]!r}, which the network "
                              f"{model_cfg.name} does not read; allowed: {nothing!r}")


def make(model_cfg: Any, num_outputs: int, known: tuple[str, ...]) -> nn.Module:
    """The network from a file.

    Args:
      model_cfg: the `model` section of the config.
      num_outputs: logits, or 1.
      known: as for `find`.

    Raises:
      ConfigError: the file or a key cannot be used, or the callable raises an error or returns
        something else.
    """
    found = find(model_cfg.name, known)
    check_keys(model_cfg)
    return called(found, model_cfg.name, num_outputs)


def called(found: OwnCode, request: str, num_outputs: int) -> nn.Module:
    """The network that a user's callable makes.

    Raises:
      ConfigError: it raises an error, or returns something else than a network.
    """
    if not callable(found.value):
        raise ConfigError(f"{_KEY} is {request!r}, which is {type(found.value).__name__} "
                          f"{found.value!r}; allowed: {_SERVES}")
    try:
        module = own_code.named(found.value, request, _place())(num_outputs)
    except ConfigError:
        raise
    except Exception as e:  # a user's code may raise anything
        raise refusal(request, f"a call with num_outputs={num_outputs}", e) from e
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{_KEY} is {request!r}, which returns {type(module).__name__}; allowed: "
                          f"{_SERVES} (an nnx.Module enters by flax.nnx.bridge.ToLinen)")
    try:
        hash(module)
    except TypeError as e:
        raise ConfigError(f"{_KEY} is {request!r}: a field of the module cannot be hashed "
                          f"({' '.join(str(e.__cause__ or e).split())}); allowed: numbers, "
                          "strings, and tuples of them") from e
    return module


@functools.lru_cache(maxsize=64)
def check_traces(module: Network, request: str, image_size: int) -> None:
    """Traces the network as training and prediction do, without computing anything.

    Raises:
      ConfigError: training or prediction would fail, or be wrong without an error; the message says
        what is allowed.
    """
    wanted = module.num_classes or 1
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    inner = jax.eval_shape  # no numbers are computed anywhere below

    # Keys are made inside the trace: a concrete key would start JAX's devices, and a config is
    # checked before that.
    def keys():
        return {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def init(x):
        return module.inner.init(keys(), x, False)

    def forward(train, variables, x):
        return module.inner.apply(variables, x, train, rngs=keys(),
                                  mutable=["batch_stats"] if train else False)

    variables = _traced(request, "its initialisation", inner, init, images)
    _check_variables(request, variables)
    for train in (False, True):
        what = f"its __call__(x, train={train})"
        run = functools.partial(forward, train)
        outputs = _traced(request, what, inner, run, variables, images)
        outputs, updates = outputs if train else (outputs, {})
        shape = getattr(outputs, "shape", None)
        if shape != (2, wanted) or not jnp.issubdtype(outputs.dtype, jnp.floating):
            got = f"{outputs.dtype} {list(shape)}" if shape is not None else type(outputs).__name__
            raise ConfigError(f"{_KEY} is {request!r}: {what} maps images {list(images.shape)} to "
                              f"{got}; allowed: floats [2, {wanted}], one row an image"
                              + ("" if module.num_classes else " (a regression has one output)"))
        if train and jax.tree.map(_kind, updates.get("batch_stats", {})) != jax.tree.map(
                _kind, variables.get("batch_stats", {})):
            raise ConfigError(f"{_KEY} is {request!r}: training changes the shapes or types of "
                              "its batch statistics; allowed: those that initialisation makes")
        first, second = (_traced(request, what, lambda f, *a: str(jax.make_jaxpr(
            lambda *b: f(*b))(*a)), run, variables, images) for _ in range(2))
        if first != second:
            raise ConfigError(f"{_KEY} is {request!r}: {what} computes something else when called "
                              "again, so it keeps state in Python; allowed: state in "
                              "self.variable('batch_stats', ...)")


def _check_variables(request: str, variables: Any) -> None:
    others = sorted(set(variables) - set(_COLLECTIONS))
    if others:
        raise ConfigError(f"{_KEY} is {request!r}: it keeps variables in the collections "
                          f"{', '.join(map(repr, others))}; allowed: "
                          + ", ".join(map(repr, _COLLECTIONS)))
    if not jax.tree.leaves(variables.get("params", {})):
        raise ConfigError(f"{_KEY} is {request!r}: it has no parameters; allowed: {_SERVES}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if leaf.dtype != jnp.float32:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ConfigError(f"{_KEY} is {request!r}: {name} is {leaf.dtype}; allowed: float32 "
                              "(a layer's dtype sets the arithmetic, its param_dtype stays)")


def _traced(request, what, run, *args):
    """The result of `run`; an error in the network's code becomes a `ConfigError`."""
    try:
        return run(*args)
    except Exception as e:  # a user's code may raise anything
        raise refusal(request, what, e) from e


def refusal(request: str, what: str, error: Exception) -> ConfigError:
    file = Path(request.rpartition(":")[0]).expanduser()
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if Path(frame.filename) == file]
    where = f" (line {lines[-1]})" if lines else ""
    text = " ".join(str(error).split())
    return ConfigError(f"{_KEY} is {request!r}: {what} raises {type(error).__name__}{where}: "
                       f"{text}; allowed: {_SERVES}")


def _kind(x: Any) -> tuple[Any, Any]:
    return x.shape, x.dtype


def _place(known: tuple[str, ...] = ()) -> CodeKey:
    return CodeKey(_KEY, "network", known)
