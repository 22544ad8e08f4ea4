"""Perturbs the channels on which the loss of D_f depends most, then fine-tunes on D_r.

    score = mean over D_f of | sum over pixels of a * d loss / d a |

where a is a channel's map after its norm: by how much the loss of a forget sample changes, to first
order, when the channel is scaled. Scaling a channel after its norm is scaling the norm's scale and
bias, so that for each sample

    sum over pixels of a * d loss / d a  =  scale * d loss / d scale + bias * d loss / d bias,

and no map is needed. The highest tenth of all channels of the network is perturbed, as
methods/channels.py says; after it, ft's step on D_r.

Sources: the reference study, section 2.3.4, item 3 (its reference [20] names the idea GradMask);
Molchanov et al. 2017, "Pruning convolutional neural networks for resource efficient inference", for
the first-order score.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods import ft
from unlearn_jax.methods.channels import (
    OPTIONS,
    Channels,
    channel_layers,
    check_options,
    norm_of,
    perturbed,
)
from unlearn_jax.methods.importance import (
    every_sample,
    means,
    sample_batch_size,
    sample_gradients,
)
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.paths import path_of
from unlearn_jax.train import Batch

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

_PARTS = ("scale", "bias")


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_options("gradmask", setting)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Perturbs; `touched` says which channels, by layer."""
    return perturbed(setting, before, scores(before))


def scores(before: "Preparation") -> Channels:
    """By layer, `[M, C]`: the mean over D_f of the first-order change of the loss, over its unit.

    Raises:
      InputError: a member has no sample to forget.
    """
    layers = {layer: norm_of(layer) for layer in channel_layers(before.model)}
    wanted = {f"{norm}/{part}" for norm in layers.values() for part in _PARTS}
    gradients = sample_gradients(before.model, before.loss, lambda params: (
        jax.tree_util.tree_map_with_path(lambda path, _: path_of(path) in wanted, params)))

    def changes(batch: Batch, variables: Any) -> Channels:
        found = gradients(batch, variables)
        return {layer: jnp.abs(sum(_at(variables["params"], f"{norm}/{part}")[None]
                                   * _at(found, f"{norm}/{part}") for part in _PARTS))
                for layer, norm in layers.items()}

    (mean_M,) = means(before, "forget", changes, (every_sample,), sample_batch_size(before))
    return mean_M


def _at(tree: Any, path: str) -> jax.Array:
    """The leaf at a path 'a/b/c'."""
    for part in path.split("/"):
        tree = tree[part]
    return tree


METHOD = Method(make_step=ft.make_step, prepare=prepare, check=check, options=dict(OPTIONS),
                strength="strength", strengths=(0.1, 3.0),
                published=dict(ft.METHOD.published),
                source="the reference study, section 2.3.4")
