"""Fisher forgetting: noise on the weights that D_r does not need, then fine-tuning on D_r.

    theta <- theta + sqrt(v) * N(0, 1),   v = alpha * min(1 / (F_r + 1e-8), cap)

F_r is the importance of a weight for D_r (methods/importance.py): the diagonal of the empirical
Fisher information. It takes the true labels, where the source takes the expectation over the
network's own labels; so it is defined for regression as well. The last layer has a cap of its own.
Then ft's step on D_r follows.

So the noise has a standard deviation of sqrt(alpha) F_r^(-1/2), as in public code; alpha and the
caps are from there. The paper derives (lambda sigma^2)^(1/4) F_r^(-1/4): a weight that matters
a hundred times less gets about three times the noise there, and ten times here, up to the cap.

Public code of this method sets the last layer's row of the forgotten class to zero; where a random
set is forgotten, that class is -1, which is the last one. Nothing here depends on a class. That
code also averages variances over a kernel's inputs. It multiplies them by 10 for norms and, where a
whole class is forgotten, for the last layer, which brings that layer's cap of 1e2 back to 1e3.
Neither is done here.

Sources: Golatkar, Achille and Soatto 2020, "Eternal sunshine of the spotless net"; alpha
and the caps from the public code of selective synaptic dampening (Foster et al. 2024);
fine-tuning after it: the reference study, section 2.3.4.
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from unlearn_jax.methods import ft
from unlearn_jax.methods.importance import importance
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.system.tree_paths import by_path, path_of

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

_FLOOR = 1e-8  # keeps the inverse finite where a weight does not matter at all
_LAST_LAYER = "output"


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_ranges("fisher", setting.options, {
        "alpha": (0, math.inf), "cap": (0, math.inf), "cap_last": (0, math.inf)})


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Adds the noise; `touched` marks the changed weights, by the path of their parameter."""
    (retain_M,) = importance(before, "retain")

    def one(variables: Any, retain: Any, key: jax.Array) -> tuple[Any, Any]:
        params, trains = variables["params"], setting.model.trainable(variables["params"])
        variance = jax.tree.map(lambda v, t: v if t else jnp.zeros_like(v),
                                variances(retain, **setting.options), trains)
        touched = jax.tree.map(lambda v: v > 0, variance)
        return {**variables, "params": noisy(key, params, variance)}, touched

    variables_M, touched_M = before.each(one, before.variables, retain_M, before.keys("noise"))
    return Prepared(variables_M, touched=by_path(touched_M))


def variances(retain: Any, alpha: float, cap: float, cap_last: float) -> Any:
    """The noise's variance for each weight, squared units of the weight.

    Args:
      retain: importance for D_r, F_r.
      alpha: overall size.
      cap: largest value of an inverse of F_r.
      cap_last: the same in the last layer, `output`.
    """
    def variance(path, f):
        last = path_of(path).split("/")[0] == _LAST_LAYER
        return alpha * jnp.minimum(1 / (f + _FLOOR), cap_last if last else cap)

    return jax.tree_util.tree_map_with_path(variance, retain)


def noisy(key: jax.Array, params: Any, variance: Any) -> Any:
    """Weights plus Gaussian noise with one variance for each weight."""
    flat, unravel = ravel_pytree(params)
    # One draw for all: XLA takes about a second to compile each separate one on a CPU.
    noise = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    return jax.tree.map(lambda p, n, v: p + jnp.sqrt(v) * n, params, noise, variance)


METHOD = Method(make_step=ft.make_step, prepare=prepare, check=check,
                options=dict(alpha=1e-6, cap=1e3, cap_last=1e2),
                strength="alpha", strengths=(0.1, 10.0),
                published=dict(ft.METHOD.published),
                source="Golatkar et al. 2020; the reference study, section 2.3.4")
