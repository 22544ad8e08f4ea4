"""Descent on D_r and ascent on D_f in one step.

    minimise  alpha L(D_r) - (1 - alpha) L(D_f)

An epoch goes once over D_r; D_f is repeated or cut to fit. Half of a batch is D_r and half D_f,
each with a mean of its own.

The two halves pass through the network one after the other, so batch norm normalises each by its
own statistics. In a mixed batch the retained samples would be normalised together with the
forgotten ones in training, but without them in prediction. The running statistics move twice in a
step, first towards those of D_r, and end as an equal mixture. If D_f looks unlike the rest, this
alone spoils the network for all other samples. `forget_statistics=False` lets them follow D_r only.

Three things differ from the source's notebook; the first two are options here:

* it keeps the network in prediction mode: running statistics normalise and do not move, and there
  is no dropout (`as_predicting=True`);
* it adds alpha * pull / 2 * ||theta - theta_O||^2 over the weights that train, with its weight
  decay for `pull` and none in its optimiser (`pull`, 0 here);
* its alpha is 0.95 at small scale, and .9999 in the notebooks for larger sets and attacks.

Source: NegGrad+ in Kurmanji et al. 2023 (arXiv:2302.09880), section 4 and small-scale values; the
notebooks of github.com/meghdadk/SCRUB.
"""

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from unlearn_jax import train
from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation


def check(setting: Setting) -> None:
    """Refuses an alpha outside of 0 to 1, and a negative pull.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    check_ranges("neggrad_plus", setting.options, {"alpha": (0, 1), "pull": (0, math.inf)})


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """The weights of M_O, if `pull` is above 0."""
    return Prepared(before.variables, before.variables["params"] if setting.options.pull else None)


def make_step(setting: Setting) -> train.Step:
    """A step on both halves; it reports the loss on D_r."""
    model, loss, alpha = setting.model, setting.loss, setting.options.alpha

    def objective(params, batch_stats, batch, key, start):
        def mean_loss(part, batch_stats, key):
            outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                             batch.images[part],
                                             train=not setting.options.as_predicting, key=key)
            losses = loss.per_sample(outputs, batch.labels[part])
            return train.weighted_mean(losses, batch.weights[part]), new_stats

        half = batch.weights.shape[0] // 2
        key_retain, key_forget = jax.random.split(key)
        retain, batch_stats = mean_loss(slice(None, half), batch_stats, key_retain)
        forget, both_stats = mean_loss(slice(half, None), batch_stats, key_forget)
        if setting.options.forget_statistics:
            batch_stats = both_stats
        value = (alpha * retain - (1 - alpha) * forget) / loss.unit
        if start is not None:
            moved = jax.tree.map(lambda p, s: jnp.sum(jnp.square(p - s)), params, start)
            value += alpha * setting.options.pull / 2 * sum(jax.tree.leaves(moved))
        return value, retain, batch_stats

    return train.make_step(model, setting.optimizer, objective)


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """Each epoch is one pass over D_r, with as many samples of D_f beside it."""
    del setting, epoch
    return (Pass("retain+forget"),)


# 128 samples of either set in a batch of 256.
METHOD = Method(make_step=make_step, passes=passes, prepare=prepare, check=check,
                options=dict(alpha=0.95, forget_statistics=True, as_predicting=False, pull=0.0),
                later=("as_predicting", "pull"),
                source="Kurmanji et al. 2023, NegGrad+",
                published=dict(epochs=(10,), optimizer="sgd", learning_rate=0.01,
                               schedule="constant", momentum=0.0, weight_decay=0.0,
                               batch_size=256))
