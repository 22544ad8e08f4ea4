"""Fine-tuning on D_r that makes the network sparse at first and lets it recover at last.

    minimise  L(D_r) + alpha (1 - t / E) ||theta||_1

t counts the epochs taken, E those of the run, and theta all weights that train: kernels, biases
and batch norm alike. L is the loss over its unit, which for cross-entropy is the loss itself. As
the penalty falls with the length of the run, each budget is a run of its own.

Source: Jia et al. 2023 (arXiv:2304.04934), equation 4, with the falling penalty of its public
code (`FT_prune`). That code and SalUn's leave alpha to the command line, with a default of 0.2 for
other methods. 1e-4 is that of github.com/JingWu321/Scissorhands, which compares with this method;
the smaller it is, the more this is `ft`, so that comparisons search it.
"""

import math

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import train
from unlearn_jax.methods.method import Method, Setting
from unlearn_jax.methods.options import check_ranges


def check(setting: Setting) -> None:
    """Refuses a penalty that rewards large weights.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    check_ranges("l1_sparse", setting.options, {"alpha": (0, math.inf)})


def make_step(setting: Setting) -> train.Step:
    """The supervised step with the penalty; it reports the loss without it."""
    plain, alpha = train.supervised(setting.model, setting.loss), setting.options.alpha

    def objective(params, batch_stats, batch, key, context):
        value, reported, new_stats = plain(params, batch_stats, batch, key, context)
        # The slope of `jnp.abs` at zero is one: it would push biases that start there below it.
        signs = jax.lax.stop_gradient(jax.tree.map(jnp.sign, params))
        norm = optax.tree.vdot(signs, params)
        return value + alpha * (1 - batch.epoch / batch.epochs) * norm, reported, new_stats

    return train.make_step(setting.model, setting.optimizer, objective)


METHOD = Method(make_step=make_step, check=check, options=dict(alpha=1e-4), own_runs=True,
                strength="alpha", strengths=(0.25, 16.0),
                source="Jia et al. 2023, l1-sparse MU",
                published=dict(epochs=(10,), optimizer="sgd", learning_rate=0.01,
                               schedule="constant", momentum=0.9, weight_decay=5e-4,
                               batch_size=256))
