"""Saliency unlearning: random labels on D_f, and only the weights that matter to D_f may move.

    mask = the `share` of all weights with the largest |sum over D_f of dL/dw|
    minimise  L(D_r and D_f, random labels on D_f)  over the masked weights

The gradients are those of M_O in prediction mode, with running statistics. They are summed over
samples, so they depend neither on batches nor on their order. Weights are ranked over the whole
network at once, without frozen ones; among equal gradients the first are taken. A weight outside of
the mask stays equal to the bit: neither momentum nor weight decay moves it. The running statistics
of batch norm are not weights, and they move.

Labels are drawn as in `rnd`, anew each epoch. The source draws uniformly from the classes, here
`unlearn.labels='uniform'`; in regression `offset` is possible. The source is inconsistent: in
equation 5 the label differs from the true one, but its code draws from all classes, the true one
included. `exclude_true=False` follows the code, True the equation; for a regression, True leaves
out the whole number nearest to the true label.

D_f and D_r are mixed, as in the public code for CIFAR-100; for CIFAR-10 and SVHN that code goes
over D_f and then over D_r in each epoch.

Source: Fan et al. 2024 (arXiv:2310.12508), equations 3 to 5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from unlearn_jax import train
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import rnd
from unlearn_jax.methods.method import Method, Prepared, Setting, over_all
from unlearn_jax.methods.probabilities import check_bins
from unlearn_jax.models import Model
from unlearn_jax.system.made_once import made_once

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation


def check(setting: Setting) -> None:
    """Refuses a share that selects nothing, and draws that are not defined for classes.

    Raises:
      InputError: names the key, its value and what is allowed.
    """
    share = setting.options.share
    if not 0 < share <= 1:
        raise ConfigError(f"config.unlearn.salun.share is {share!r}; allowed: above 0, up to 1")
    if setting.config.label_units != "years":
        raise ConfigError(f"config.unlearn.label_units is {setting.config.label_units!r}; "
                          "salun allows 'years'")
    rnd.check(setting)
    if setting.options.exclude_true:
        check_bins(setting)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Ranks the weights by the gradient of the loss on D_f."""
    model = setting.model
    sums = before.total("forget", _gradients(model, setting.loss), before.variables, lasting=True)
    mask = before.each(lambda g: most_salient(g, model.trainable(g), setting.options.share), sums)
    touched = {path: np.reshape(part, (len(part), -1))
               for path, part in traverse_util.flatten_dict(mask, sep="/").items()}
    return Prepared(before.variables, mask, touched)


@made_once
def _gradients(model: Model, loss: train.Loss) -> Callable[[train.Batch, Any], Any]:
    """The gradient of the summed loss of a batch."""
    def gradients(batch: train.Batch, variables: Any) -> Any:
        def summed(params):
            outputs, _ = model.apply({**variables, "params": params}, batch.images, train=False)
            return jnp.sum(loss.per_sample(outputs, batch.labels) * batch.weights)

        return jax.grad(summed)(variables["params"])

    return gradients


def most_salient(gradients: Any, trainable: Any, share: float) -> Any:
    """The mask of the largest gradients.

    Args:
      gradients: tree of one member.
      trainable: tree of the same form; entries that are False are never selected and not counted.
      share: share of the trainable weights, in (0, 1]; their number is rounded down, to at least 1.

    Returns:
      A tree of bool arrays of the shapes of `gradients`.
    """
    leaves, form = jax.tree.flatten(gradients)
    free = jax.tree.leaves(trainable)
    sizes = [g.size for g, trains in zip(leaves, free) if trains]
    scores = jnp.concatenate([jnp.abs(g).reshape(-1) for g, trains in zip(leaves, free) if trains])
    count = max(1, int(share * scores.size))
    chosen = jnp.zeros(scores.size, bool).at[jnp.argsort(-scores, stable=True)[:count]].set(True)
    parts = iter(jnp.split(chosen, np.cumsum(sizes)[:-1]))
    masks = [next(parts).reshape(g.shape) if trains else jnp.zeros(g.shape, bool)
             for g, trains in zip(leaves, free)]
    return jax.tree.unflatten(form, masks)


def make_step(setting: Setting) -> train.Step:
    """The step of `rnd` on masked weights; the context is the mask."""
    objective = train.supervised(setting.model, setting.loss)
    masked = train.make_step(setting.model, setting.optimizer, objective, mask=lambda mask: mask)
    return rnd.relabelled(masked, setting, setting.options.exclude_true)


METHOD = Method(make_step=make_step, passes=over_all, prepare=prepare, check=check,
                options=dict(share=0.5, exclude_true=False), later=("exclude_true",),
                shared_keys=("labels", "offset"),
                source="Fan et al. 2024, SalUn",
                published=dict(epochs=(10,), optimizer="sgd", learning_rate=0.013,
                               schedule="constant", momentum=0.9, weight_decay=5e-4,
                               batch_size=256, labels="uniform"))
