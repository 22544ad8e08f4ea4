"""Channels of convolutions: scored, chosen, perturbed. Shared by `activation` and `gradmask`.

A channel is an output channel of a convolution on the main path, after its norm and before the
ReLU. Its layer has the name that `Model.features` gives it: `stem_conv`, `stage1_block1/conv1`, ...
Convolutions of shortcuts are left out, and so are convolutions with a frozen kernel. In a network
other than the ResNets, all convolutions have channels, and so have dense layers within feature
maps; a channel is measured after the norm that directly follows.

Perturbing a channel, the option `perturb`:

* `noise`: adds Gaussian noise to the channel's kernel (its bias, where it has one) and to the scale
  and bias of its norm. The standard deviation is the option `strength` times the root mean square
  of the whole parameter, over all channels of the layer;
* `reset`: gives them the values of a fresh network, the norm's running mean and variance included.

Frozen parameters stay as they are.
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.method import Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.models import Model
from unlearn_jax.system.tree_paths import path_of, true_paths

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

OPTIONS = dict(share=0.1, perturb="noise", strength=1.0)
_PERTURBATIONS = ("noise", "reset")

# By layer, `[C]`: scores of channels, or the choice of channels as bool.
Channels = dict[str, Any]  # arrays, by layer


def check_options(name: str, setting: Setting) -> None:
    """Refuses impossible options of a method that perturbs channels, and a network without any.

    Args:
      name: name of the method.
      setting: with the keys of `OPTIONS` among its options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    options = setting.options
    check_ranges(name, options, {"share": (0, 1), "strength": (0, math.inf)})
    if options.perturb not in _PERTURBATIONS:
        allowed = ", ".join(map(repr, _PERTURBATIONS))
        raise ConfigError(f"config.unlearn.{name}.perturb is {options.perturb!r}; allowed: "
                          f"one of {allowed}")
    if not channel_layers(setting.model):
        raise ConfigError(f"config.model.frozen is {setting.model.frozen!r}; {name} needs at least "
                          "one convolution that trains, or dense layer within feature maps")


def channel_layers(model: Model) -> dict[str, int]:
    """The convolutions that have channels to choose from, with their numbers of channels."""
    shapes = model.shapes()
    trains = true_paths(model.trainable(shapes["params"]))
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.uint8)
    features = jax.eval_shape(lambda v, x: model.features(v, x, train=False)[2], shapes, images)
    # A feature without a kernel of its own is a block's output.
    return {name: x.shape[-1] for name, x in features.items() if f"{name}/kernel" in trains}


def perturbed(setting: Setting, before: "Preparation", scores_M: Channels) -> Prepared:
    """Perturbs the channels with the highest scores; the option `share` sets their share of all.

    Args:
      setting: with the keys of `OPTIONS` among its options.
      before: the population.
      scores_M: by layer, `[M, C]`; channels that score 0 or less are left alone.

    Returns:
      The variables, and the touched channels, by layer.
    """
    options, model = setting.options, setting.model
    trains = _trains(model, before.variables, options.perturb == "reset")
    norms = {layer: model.norm_of(layer) for layer in scores_M}

    def one(variables: Any, key: jax.Array, scores: Channels) -> tuple[Any, Channels]:
        chosen = top_channels(scores, options.share)
        if options.perturb == "reset":
            others = model.init(key)
        else:
            others = {**variables, "params": noisy(key, variables["params"], options.strength)}
        return perturb(variables, chosen, others, trains, norms), chosen

    variables_M, chosen_M = before.each(one, before.variables, before.keys("channels"), scores_M)
    return Prepared(variables_M, touched=chosen_M)


def _trains(model: Model, variables: Any, statistics: bool) -> Any:
    """True for variables that may be perturbed; statistics only with the scale of their norm."""
    params = model.trainable(variables["params"])
    free = true_paths(params)
    return {"params": params, "batch_stats": jax.tree_util.tree_map_with_path(
        lambda path, _: statistics and f"{path_of(path[:-1])}/scale" in free,
        variables["batch_stats"])}


def top_channels(scores: Channels, share: float) -> Channels:
    """The channels with the highest scores above 0, over all layers together.

    Args:
      scores: by layer, `[C]`.
      share: share of all channels, rounded up to a whole number.

    Returns:
      By layer, `[C]` bool.
    """
    flat, unravel = ravel_pytree(scores)
    count = math.ceil(round(share * flat.size, 6))
    best = jnp.argsort(-flat)[:count]
    chosen = unravel(jnp.zeros_like(flat).at[best].set(1.0))
    return jax.tree.map(lambda c, s: (c > 0) & (s > 0), chosen, scores)


def perturb(variables: Any, chosen: Channels, others: Any, trains: Any,
            norms: dict[str, str]) -> Any:
    """One member's variables with chosen channels taken from elsewhere.

    Args:
      variables: variables of the member.
      chosen: by layer, `[C]` bool.
      others: a tree like the variables.
      trains: a tree like the variables, False for values that stay as they are.
      norms: by layer, the path of the norm that follows it; '': no norm follows.
    """
    owners = {**chosen, **{norms[layer]: mask for layer, mask in chosen.items() if norms[layer]}}

    def choose(path, x, other, free):
        mask = owners.get(path_of(path[1:-1]))
        # Channels are the last axis of kernels and the only one of the others.
        return x if mask is None or not free else jnp.where(
            mask.reshape(*[1] * (x.ndim - 1), -1), other, x)

    return jax.tree_util.tree_map_with_path(choose, variables, others, trains)


def noisy(key: jax.Array, params: Any, strength: float) -> Any:
    """Parameters with noise of `strength` times the root mean square of each."""
    flat, unravel = ravel_pytree(params)
    # One draw for all: XLA takes about a second to compile each separate one on a CPU.
    noise = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    return jax.tree.map(lambda x, n: x + strength * jnp.sqrt(jnp.mean(x * x)) * n, params, noise)
