"""Selective synaptic dampening: shrinks weights that matter far more for D_f than for all data.

    where I_f > alpha * I_D:  theta <- theta * min(dampening * I_D / I_f, 1)

I_f and I_D are the importance of a weight (methods/importance.py) for D_f and for the whole
training set D, D_f included. Nothing is trained: the only budget is 0 epochs. As in the source,
every parameter that trains may be dampened: kernels, biases, the scales and biases of norms, and
the head; running statistics stay as they are.

The option `importance` chooses how a weight's importance is computed. `sample` follows the source's
text: each sample's gradient is squared by itself. `batch` follows the source's code: the mean
gradient of a batch of `unlearn.batch_size` samples is squared (there 64). The published alpha of 10
was chosen with the code. The samples of D_f share what is new in them, so their gradients point in
one direction, and their mean gradient is large where that of mixed batches is small. So for some
forget sets `batch` selects weights at alpha 10 and `sample` selects none. One thing differs from
the code. It walks over D_r and then D_f in the order of the data; here D is shuffled by the
member's seed, so a batch of D holds about the same share of D_f as D.

D holds D_f, so with `sample` I_f is at most n_D / n_f times I_D: with alpha 10, a forget set of a
tenth of the training set or more dampens nothing. A warning is given then. For a small forget set
an alpha of about 1 selects weights by chance: if all gradients are draws of one Laplace
distribution, the mean square of 22 of 1,078 samples exceeds half of that of all in 90 % of the
weights, twice of it in 4 %, ten times of it in none. No single alpha suits both. So `share`, if
above 0, replaces alpha: this share of the weights is selected, those with the largest I_f / I_D. A
comparison then searches `share` together with the dampening. Otherwise it searches alpha, from 8
times the configured value to half of it.

Source: Foster, Schoepf and Brintrup 2024, "Fast machine unlearning without retraining through
selective synaptic dampening". Its lambda is `dampening` here.
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods.importance import (
    batch_importance,
    every_sample,
    forgotten,
    importance,
)
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.methods.salun import most_salient
from unlearn_jax.system.tree_paths import by_path

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

_IMPORTANCES = ("sample", "batch")


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_ranges("ssd", setting.options, {"alpha": (0, math.inf), "dampening": (0, math.inf),
                                          "share": (0, 1)})
    if setting.options.importance not in _IMPORTANCES:
        allowed = ", ".join(map(repr, _IMPORTANCES))
        raise ConfigError(f"config.unlearn.ssd.importance is {setting.options.importance!r}; "
                          f"allowed: one of {allowed}")


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Dampens weights; `touched` marks them, by the path of their parameter."""
    o = setting.options
    if o.importance == "batch":
        whole_M, forgotten_M = (batch_importance(before, over) for over in ("all", "forget"))
    else:
        _warn_of_nothing(setting, before)
        whole_M, forgotten_M = importance(before, "all", (every_sample, forgotten))

    def one(variables: Any, whole: Any, forget: Any) -> tuple[Any, Any]:
        params = variables["params"]
        trains = setting.model.trainable(params)
        chosen = most_needed(whole, forget, o.share, trains) if o.share else None
        params, selected = dampened(params, whole, forget, o.alpha, o.dampening, trains, chosen)
        return {**variables, "params": params}, selected

    variables_M, selected_M = before.each(one, before.variables, whole_M, forgotten_M)
    return Prepared(variables_M, touched=by_path(selected_M))


def _warn_of_nothing(setting: Setting, before: "Preparation") -> None:
    """Warns if no weight's importance for D_f can reach alpha times its importance for D."""
    alpha = setting.options.alpha
    for member in before.members:
        share = len(member.forget) / len(Pass("all").rows(member))
        if not setting.options.share and alpha * share >= 1:
            logging.warning(
                "ssd: %s: alpha=%g selects no weight, as D_f is %.0f %% of the training set and "
                "I_f at most %.3g times I_D", member, alpha, 100 * share, 1 / share)


def most_needed(whole: Any, forget: Any, share: float, trains: Any) -> Any:
    """One member's weights with the largest importance for D_f relative to D.

    Args:
      whole, forget: importance for D and for D_f.
      share: share of the weights that train; those with the largest I_f / I_D are selected. Their
        number is rounded down, to at least 1.
      trains: False for parameters that are never selected and not counted.

    Returns:
      A tree of bool arrays. Weights with an importance of 0 for D_f are not selected.
    """
    ratios = jax.tree.map(lambda i_d, i_f: jnp.where(i_f > 0, i_f / i_d, 0.0), whole, forget)
    best = most_salient(ratios, trains, share)
    return jax.tree.map(lambda chosen, i_f: chosen & (i_f > 0), best, forget)


def dampened(params: Any, whole: Any, forget: Any, alpha: float, dampening: float,
             trains: Any, selected: Any = None) -> tuple[Any, Any]:
    """One member's dampened weights.

    Args:
      params: the weights.
      whole, forget: their importance for D and for D_f.
      alpha: a weight is selected if its importance for D_f is more than alpha times that for D.
      dampening: lambda; a selected weight shrinks more if lambda is smaller; no weight ever grows.
      trains: False for parameters that stay as they are.
      selected: the weights to dampen, instead of those that alpha selects.

    Returns:
      The weights, and the selection.
    """
    if selected is None:
        selected = jax.tree.map(lambda i_d, i_f, t: (i_f > alpha * i_d) & t, whole, forget, trains)

    def shrink(theta, i_d, i_f, chosen):
        factor = jnp.minimum(dampening * i_d / jnp.where(chosen, i_f, 1.0), 1.0)
        return jnp.where(chosen, theta * factor, theta)

    return jax.tree.map(shrink, params, whole, forget, selected), selected


def searched_options(options: ml_collections.ConfigDict) -> dict[str, tuple[float, float]]:
    """The options that a comparison searches: share and lambda if share is above 0, else alpha."""
    if options.share:
        return {"share": (0.1, 10.0), "dampening": (2.0, 0.5)}
    return {"alpha": (8.0, 0.5)}  # smaller selects more


METHOD = Method(prepare=prepare, check=check, searched_options=searched_options,
                options=dict(alpha=10.0, dampening=1.0, importance="sample", share=0.0),
                later=("importance", "share"), shared_keys=("batch_size",),
                published=dict(epochs=(0,)),
                source="Foster et al. 2024")
