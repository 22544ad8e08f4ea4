"""Blindspot: learns on D_f from a proxy that never saw D_f, and on D_r from the labels.

A proxy is trained from fresh weights on D_r for two epochs, so it has never seen D_f. It stays
fixed from then on. One pass over D_r and D_f, mixed, minimises the mean over samples of

    forget:  |f(x) - proxy(x)| + attention * sum over blocks of d(A(f), A(proxy))
    retain:  |f(x) - y|

in label units, over the output scale. A is a block's attention map: the sum over channels of the
squares of its output, by pixel, as a vector of length one. The option `distance` chooses d.
`squares` is the mean over pixels of squared differences; the published weight of 50 belongs to it.
`l2` is the length of the difference, which is some hundred times as large.

Classification, for which the source has no form: |f - proxy| becomes the sum over classes of the
differences between probabilities (from 0 to 2), and retain samples have the training loss.

Frozen layers of the proxy are those of M_O: they never train, so they hold no memory of D_f.

Source: Tarun et al. 2022, "Deep regression unlearning" (arXiv:2210.08196), and its public code,
which uses batches of 256 faces of 32 pixels.
"""

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.method import Method, Prepared, Setting, over_all
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.models import Model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.system.tree_paths import path_of, true_paths
from unlearn_jax.train import Step, make_train_step, weighted_mean
from unlearn_jax.train import make_step as make_gradient_step

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

_DISTANCES = ("squares", "l2")
_TINY = 1e-12  # keeps lengths, and their gradients, finite at zero


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    options = setting.options
    check_ranges("blindspot", options, {"attention": (0, math.inf), "proxy_epochs": (1, math.inf),
                                        "proxy_learning_rate": (0, math.inf)})
    if options.distance not in _DISTANCES:
        raise ConfigError(f"config.unlearn.blindspot.distance is {options.distance!r}; allowed: "
                          f"one of {', '.join(map(repr, _DISTANCES))}")
    if options.attention and not setting.model.blocks:
        raise ConfigError(f"config.unlearn.blindspot.attention is {options.attention}, but the "
                          "network has no feature maps to compare; allowed: 0")


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Trains the proxy, `[M, ...]` variables, which is the context."""
    options = setting.options
    settings = OptimizerSettings("adam", options.proxy_learning_rate, "constant", 0.0, 0.0, 0.0)
    step = make_train_step(setting.model, make_optimizer(settings), setting.loss)

    def start(variables: Any, key: jax.Array) -> Any:
        return fresh_where_trained(setting.model, variables, key)

    proxy_M = before.train("proxy", step, settings,
                           before.each(start, before.variables, before.keys("proxy")), "retain",
                           options.proxy_epochs)
    return Prepared(before.variables, context=proxy_M)


def fresh_where_trained(model: Model, variables: Any, key: jax.Array) -> Any:
    """Fresh variables of one member; its frozen layers keep their values."""
    fresh = model.init(key)
    free = true_paths(model.trainable(variables["params"]))
    layers = {path.rpartition("/")[0] for path in free}

    def choose(path, old, new):
        collection, name = path_of(path[:1]), path_of(path[1:])
        trained = name in free if collection == "params" else name.rpartition("/")[0] in layers
        return new if trained else old

    return jax.tree_util.tree_map_with_path(choose, variables, fresh)


def make_step(setting: Setting) -> Step:
    """The step towards the proxy on forget samples and towards the label on retain samples."""
    options, classes = setting.options, setting.labels.num_classes
    blocks = setting.model.blocks
    # The weight of 50 is relative to an L1 loss in label units, whatever M_O was trained with.
    unit = 1.0 if classes else setting.labels.scale

    def objective(params, batch_stats, batch, key, proxy):
        student = {"params": params, "batch_stats": batch_stats}
        outputs, new_stats, mine = setting.model.features(student, batch.images, train=True,
                                                          key=key)
        aims, _, theirs = setting.model.features(proxy, batch.images, train=False)
        if classes:
            retain = setting.loss.per_sample(outputs, batch.labels)
            forget = jnp.sum(jnp.abs(jax.nn.softmax(outputs) - jax.nn.softmax(aims)), axis=-1)
        else:
            retain, forget = jnp.abs(outputs - batch.labels), jnp.abs(outputs - aims)
        if options.attention:
            mine = {name: x for name, x in mine.items() if name in blocks}
            forget += options.attention * attention_distance(mine, theirs, options.distance)
        value = weighted_mean(jnp.where(batch.forget, forget, retain), batch.weights)
        return value / unit, value, new_stats

    return make_gradient_step(setting.model, setting.optimizer, objective)


def attention_distance(features: dict[str, jax.Array], others: dict[str, jax.Array],
                       distance: str) -> jax.Array:
    """The distance between two networks' attention maps, summed over blocks.

    Args:
      features, others: outputs of blocks, as from `Model.features`; `others` may hold more.
      distance: `squares` or `l2`.

    Returns:
      `[B]`, no unit.
    """
    def one(name):
        difference = attention(features[name]) - attention(others[name])
        if distance == "squares":
            return jnp.mean(jnp.square(difference), axis=-1)
        return jnp.sqrt(jnp.sum(jnp.square(difference), axis=-1) + _TINY)

    return sum(one(name) for name in features)


def attention(x_BHWC: jax.Array) -> jax.Array:
    """Attention maps `[B, H * W]` of length one; 0 where all channels are 0.

    Zagoruyko and Komodakis 2017, "Paying more attention to attention", the sum of squares.
    """
    maps = jnp.sum(jnp.square(x_BHWC.astype(jnp.float32)), axis=-1).reshape(len(x_BHWC), -1)
    return maps / jnp.sqrt(jnp.sum(jnp.square(maps), axis=-1, keepdims=True) + _TINY)


METHOD = Method(make_step=make_step, passes=over_all, prepare=prepare, check=check, options=dict(
    attention=50.0, distance="squares", proxy_epochs=2, proxy_learning_rate=0.01),
                published=dict(epochs=(1,), optimizer="adam", learning_rate=1e-3,
                               schedule="constant", batch_size=256, weight_decay=0.0),
                source="Tarun et al. 2022 (arXiv:2210.08196)")
