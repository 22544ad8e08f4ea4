"""Fine-tuning on D_r with an L1 penalty that is strong at first and falls to zero.

    minimise  L(D_r) + alpha (1 - t / E) ||theta||_1

t is the number of epochs taken and E that of the run. theta holds all weights that train: kernels,
biases and batch norm alike. L is the loss over its unit, which for cross-entropy is the loss
itself. The penalty depends on the length of the run, so each budget is a run of its own.

Source: Jia et al. 2023 (arXiv:2304.04934), equation 4, with the falling penalty of its public
code (`FT_prune`). That code and SalUn's take alpha from the command line, with a default of 0.2 for
other methods. 1e-4 is from github.com/JingWu321/Scissorhands, which compares with this method. With
a smaller alpha the method is closer to `ft`, so comparisons search alpha.
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


METHOD = Method(make_step=make_step, check=check, options=dict(alpha=1e-4), budgets_run_apart=True,
                strength="alpha", strengths=(0.25, 16.0),
                source="Jia et al. 2023, l1-sparse MU",
                published=dict(epochs=(10,), optimizer="sgd", learning_rate=0.01,
                               schedule="constant", momentum=0.9, weight_decay=5e-4,
                               batch_size=256))
