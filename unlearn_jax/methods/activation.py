"""Perturbs the channels that D_f activates more than D_r does, then fine-tunes on D_r.

    score = mean over D_f of a  -  mean over D_r of a

where a is a channel's activation for a sample: the mean over pixels after the norm and before the
ReLU, in prediction mode. The tenth of all the network's channels with the highest scores is
perturbed as in methods/channels.py. A channel that D_f activates no more than D_r is never
perturbed. Then ft's step on D_r follows.

Source: the reference study, section 2.3.4, item 2.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from unlearn_jax.methods import ft
from unlearn_jax.methods.channels import (
    OPTIONS,
    Channels,
    channel_layers,
    check_options,
    perturbed,
)
from unlearn_jax.methods.importance import forgotten, means, retained
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.models import Model
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import Batch

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    check_options("activation", setting)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Perturbs channels; `touched` marks them, by layer."""
    return perturbed(setting, before, scores(before))


def scores(before: "Preparation") -> Channels:
    """By layer, `[M, C]`: how far a channel's mean over D_f exceeds that over D_r; 0 where a
    member has no sample to forget."""
    forget_M, retain_M = means(before, "all", _activations(before.model), (forgotten, retained),
                               lasting=True)
    empty = np.array([not len(member.forget) for member in before.members])
    return {layer: np.where(empty[:, None], 0.0, forget_M[layer] - retain_M[layer])
            for layer in channel_layers(before.model)}


@made_once
def _activations(model: Model) -> Callable[[Batch, Any], Channels]:
    layers = channel_layers(model)

    def activations(batch: Batch, variables: Any) -> Channels:
        _, _, features = model.features(variables, batch.images, train=False)
        return {layer: jnp.mean(features[layer].astype(jnp.float32), axis=(1, 2))
                for layer in layers}

    return activations


METHOD = Method(make_step=ft.make_step, prepare=prepare, check=check, options=dict(OPTIONS),
                strength="strength", strengths=(0.1, 3.0),
                published=dict(ft.METHOD.published),
                source="the reference study, section 2.3.4")
