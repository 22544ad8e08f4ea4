"""Selective synaptic dampening: shrink the weights that D_f needs far more than everybody does.

    where I_f > alpha * I_D:  theta <- theta * min(dampening * I_D / I_f, 1)

I_f and I_D are the importance of a weight (methods/importance.py) for D_f and for the whole
training set D, D_f included. Nothing is trained: the only budget is 0 epochs. As in the source,
every parameter that trains may be dampened: kernels, biases, the scales and biases of norms, and
the head; running statistics stay as they are. The source's code squares the gradients of batch
means; here, as in its text, each sample's gradient is squared by itself.

As D holds D_f, I_f is at most n_D / n_f times I_D: with the published alpha of 10, a forget set of
a tenth of the training set or more dampens nothing. A warning says so. For a small one an alpha of
about 1 selects weights by chance: where all gradients are draws of one Laplace distribution, the
mean square of 22 of 1,078 samples exceeds half of that of all in 90 % of the weights, twice of it
in 4 %, ten times of it in none. No one alpha suits both, so that comparisons search from 8 times
the configured one to half of it.

Source: Foster, Schoepf and Brintrup 2024, "Fast machine unlearning without retraining through
selective synaptic dampening", whose lambda is `dampening` here.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from unlearn_jax.methods.importance import every_sample, forgotten, importance
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.methods.paths import by_path
from unlearn_jax.population import Pass
from unlearn_jax.prepare import Preparation


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_ranges("ssd", setting.options, {"alpha": (0, math.inf), "dampening": (0, math.inf)})


def prepare(setting: Setting, before: Preparation) -> Prepared:
    """Dampens; `touched` says which weights, by the path of their parameter."""
    alpha, dampening = setting.options.alpha, setting.options.dampening
    for member in before.members:
        share = len(member.forget) / len(Pass("all").rows(member))
        if alpha * share >= 1:
            logging.warning(
                "ssd: %s: alpha=%g selects no weight, as D_f is %.0f %% of the training set and "
                "I_f at most %.3g times I_D", member, alpha, 100 * share, 1 / share)
    whole_M, forgotten_M = importance(before, "all", (every_sample, forgotten))

    def one(variables: Any, whole: Any, forget: Any) -> tuple[Any, Any]:
        params = variables["params"]
        params, selected = dampened(params, whole, forget, alpha, dampening,
                                    setting.model.trainable(params))
        return {**variables, "params": params}, selected

    variables_M, selected_M = before.each(one, before.variables, whole_M, forgotten_M)
    return Prepared(variables_M, touched=by_path(selected_M))


def dampened(params: Any, whole: Any, forget: Any, alpha: float, dampening: float,
             trains: Any) -> tuple[Any, Any]:
    """One member's dampened weights.

    Args:
      params: the weights.
      whole, forget: their importance for D and for D_f.
      alpha: how many times more important for D_f a weight is that gets selected.
      dampening: lambda; the smaller, the more a selected weight shrinks; none ever grows.
      trains: False for parameters that stay as they are.

    Returns:
      The weights, and which were selected.
    """
    selected = jax.tree.map(lambda i_d, i_f, t: (i_f > alpha * i_d) & t, whole, forget, trains)

    def shrink(theta, i_d, i_f, chosen):
        factor = jnp.minimum(dampening * i_d / jnp.where(chosen, i_f, 1.0), 1.0)
        return jnp.where(chosen, theta * factor, theta)

    return jax.tree.map(shrink, params, whole, forget, selected), selected


METHOD = Method(prepare=prepare, check=check, options=dict(alpha=10.0, dampening=1.0),
                strength="alpha", strengths=(8.0, 0.5),  # smaller selects more
                published=dict(epochs=(0,)),
                source="Foster et al. 2024")
