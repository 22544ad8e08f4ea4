"""Networks that a Python program hands over as objects: `config.model.name='python:NAME-DIGEST'`.

Such a network is identified by what it computes: the traced programs of its initialisation, of its
prediction and of its gradient. So a network in a notebook is as well identified as one in a file,
together with the functions and layers that it calls, and a comment or another cell that changes
trains nothing again. Another version of JAX may trace other programs; then the models are trained
again.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks import own
from unlearn_jax.system.own_code import OwnCode

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of functions, in the text of a program
_LONGEST = 40  # characters of a name


def hand_over(network: Callable[[int], Any] | nn.Module, num_outputs: int,
              image_size: int) -> str:
    """Makes a network known to this process.

    Args:
      network: a callable `(num_outputs) -> flax.linen.Module`, such as a module class, or a module
        that is made already.
      num_outputs: number of classes; 1 for a regression.
      image_size: pixels.

    Returns:
      The value of `config.model.name` that stands for it, in this process.

    Raises:
      ConfigError: it cannot be used, or it calls back into Python, so that its program does not
        tell what it computes.
    """
    made = network
    value = (lambda num_outputs: made) if isinstance(network, nn.Module) else network
    title = network if hasattr(network, "__name__") else type(network)
    short = re.sub(r"[^A-Za-z0-9_]+", "", getattr(title, "__name__", ""))[:_LONGEST] or "network"
    request = own.FROM_PYTHON + short
    module = own.called(OwnCode(value, short, ""), request, num_outputs)
    code = _digest(module, request, image_size)
    request = f"{request}-{code}"
    own.HANDED_OVER[request] = OwnCode(value, short, code)
    return request


def _digest(module: nn.Module, request: str, image_size: int) -> str:
    """Digest of the traced programs of a network, of their constants and of its variables."""
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)

    # Keys are made inside the trace: a concrete key would start JAX's devices.
    def init(x):
        return module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x, False)

    def predict(variables, x):
        return module.apply(variables, x, False)

    def total(params, others, x):
        outputs, updates = module.apply(
            {**others, "params": params}, x, True, mutable=["batch_stats"],
            rngs={"params": jax.random.key(0), "dropout": jax.random.key(1)})
        return jnp.sin(outputs).sum(), updates

    def gradient(variables, x):
        others = {name: value for name, value in variables.items() if name != "params"}
        return jax.grad(total, has_aux=True)(variables["params"], others, x)

    digest = hashlib.blake2b(digest_size=8)
    try:
        variables = jax.eval_shape(init, images)
        traced = [jax.make_jaxpr(init)(images), jax.make_jaxpr(predict)(variables, images),
                  jax.make_jaxpr(gradient)(variables, images)]
    except Exception as e:  # a user's code may raise anything
        raise own.refusal(request, "its trace", e) from e
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}|".encode())
    for program in traced:
        digest.update(_ADDRESS.sub("", str(program)).encode())
        for part in _parts(program):
            if isinstance(part, str):
                raise ConfigError(f"config.model.name is {request!r}: it calls back into Python "
                                  f"({part}), so that its program does not tell what it computes; "
                                  "allowed: such a network in a file, path/to/file.py:NAME")
            digest.update(f"{part.dtype}{part.shape}|".encode() + part.tobytes())
    return digest.hexdigest()


def _parts(program: Any) -> Iterator[np.ndarray | str]:
    """The constants of a program and of the programs in it; the names of calls into Python."""
    if isinstance(program, ClosedJaxpr):
        for value in program.consts:
            yield np.asarray(value)
        program = program.jaxpr
    if isinstance(program, Jaxpr):
        for equation in program.eqns:
            if "callback" in equation.primitive.name:
                yield equation.primitive.name
            for value in equation.invars:
                if isinstance(value, Literal):
                    yield np.asarray(value.val)
            for name in sorted(equation.params):
                yield from _parts(equation.params[name])
    elif isinstance(program, (tuple, list)):
        for inner in program:
            yield from _parts(inner)
