"""Perturbs the channels on which the loss of D_f depends most, then fine-tunes on D_r.

    score = mean over D_f of | sum over pixels of a * d loss / d a |

where a is a channel's map after its norm. The score is the change of a forget sample's loss, to
first order, when the channel is scaled. Scaling a channel after its norm means scaling the norm's
scale and bias, so for each sample

    sum over pixels of a * d loss / d a  =  scale * d loss / d scale + bias * d loss / d bias,

and no map is needed. For a convolution without a norm after it, kernel and bias take their place:
its map is linear in them. The tenth of all the network's channels with the highest scores is
perturbed as in methods/channels.py. Then ft's step on D_r follows.

Sources: the reference study, section 2.3.4, item 3 (its reference [20] names the idea GradMask);
Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", for
the first-order score.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods import ft
from unlearn_jax.methods.channels import (
    OPTIONS,
    Channels,
    channel_layers,
    check_options,
    perturbed,
)
from unlearn_jax.methods.importance import (
    every_sample,
    means,
    sample_batch_size,
    sample_gradients,
)
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.models import Model
from unlearn_jax.system.made_once import made_once
from unlearn_jax.system.tree_paths import path_of, true_paths
from unlearn_jax.train import Batch, Loss

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_options("gradmask", setting)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Perturbs channels; `touched` marks them, by layer."""
    return perturbed(setting, before, scores(before))


def scores(before: "Preparation") -> Channels:
    """By layer, `[M, C]`: the mean over D_f of the first-order change of the loss, over its unit.

    Raises:
      InputError: a member has no sample to forget.
    """
    (mean_M,) = means(before, "forget", _changes(before.model, before.loss), (every_sample,),
                      sample_batch_size(before), lasting=True)
    return mean_M


@made_once
def _changes(model: Model, loss: Loss) -> Callable[[Batch, Any], Channels]:
    params = true_paths(jax.tree.map(lambda _: True, model.shapes()["params"]))
    owners = {layer: model.norm_of(layer) or layer for layer in channel_layers(model)}
    parts = {layer: [path for part in ("kernel", "scale", "bias")
                     if (path := f"{owner}/{part}") in params] for layer, owner in owners.items()}
    wanted = {path for paths in parts.values() for path in paths}
    gradients = sample_gradients(model, loss, lambda params: (
        jax.tree_util.tree_map_with_path(lambda path, _: path_of(path) in wanted, params)))

    def changes(batch: Batch, variables: Any) -> Channels:
        found = gradients(batch, variables)
        return {layer: jnp.abs(sum(_by_channel(_at(variables["params"], path)[None]
                                               * _at(found, path)) for path in paths))
                for layer, paths in parts.items()}

    return changes


def _by_channel(x: jax.Array) -> jax.Array:
    """`[B, ..., C]` summed to `[B, C]`."""
    return x if x.ndim == 2 else jnp.sum(x, axis=tuple(range(1, x.ndim - 1)))


def _at(tree: Any, path: str) -> jax.Array:
    """The leaf at a path 'a/b/c'."""
    for part in path.split("/"):
        tree = tree[part]
    return tree


METHOD = Method(make_step=ft.make_step, prepare=prepare, check=check, options=dict(OPTIONS),
                strength="strength", strengths=(0.1, 3.0),
                published=dict(ft.METHOD.published),
                source="the reference study, section 2.3.4")
