"""Selective reset: the first and the last layer get fresh weights and learn from M_O and D_r.

Source: the sixth place of the NeurIPS 2023 unlearning challenge (kaggle.com/competitions/
neurips-2023-machine-unlearning/discussion/458740); the reference study, section 2.4. The layers
`layers` of M_O are initialised anew; then, with M_O as the teacher,

    warm-up, before the first epoch: `warmup` passes over half of the validation samples that are
        not to be forgotten, which minimise       KL_T(teacher ‖ student)
    each epoch: a pass over D_r, minimises L + H_T(teacher, student) + KL_T(teacher ‖ student)

L is the loss that M_O was trained with, over its unit; KL_T and the soft cross-entropy H_T are
between probabilities softened by the temperature T, without a factor T² (probabilities.py; a
regression's are a Gaussian of width `unlearn.spread`). H_T and KL_T differ by a term that does not
depend on the student: together they are KL_T twice. The teacher predicts with its running
statistics.

The source warms up on all of validation. Here half of it is kept for the choice of trials in a
comparison (splits.py): on samples that it trained on, a method looks better than it is.

The warm-up's rate is `warmup_rate` times that of the epochs (published: 9e-4 and 1e-3). Its
optimiser state is dropped after it. The schedule covers all steps: a cosine already falls a little
during the warm-up, and it falls by step. In the source the warm-up has a constant rate of its own,
and the cosine falls by epoch.

In a network without layers of these names, `stem_conv` stands for its first and `output` for its
last layer.

Parameters under `model.frozen` are not reset: they stay fixed, as under every method. If that
leaves nothing to reset, the config is refused.
"""

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.methods.probabilities import (
    check_bins,
    class_logits,
    divergence,
    soft_cross_entropy,
    teacher_logits,
)
from unlearn_jax.train import Step, weighted_mean
from unlearn_jax.train import make_step as make_descent

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

TUNING, WARMUP = 0, 1  # kinds of passes


def check(setting: Setting) -> None:
    """Refuses options that make no sense, and a model without anything to reset.

    Raises:
      InputError: names them.
    """
    check_bins(setting)
    o = setting.options
    check_ranges("reset", o, {"temperature": (1e-6, math.inf), "warmup": (0, math.inf),
                              "warmup_rate": (0, math.inf)})
    params = jax.eval_shape(setting.model.init, jax.random.key(0))["params"]
    paths = _paths(params)
    unknown = [name for name in layers_of(setting, paths)
               if not any(_within(path, name) for path in paths)]
    if unknown or not o.layers:
        layers = dict.fromkeys(path.rpartition("/")[0] or path for path in paths)
        raise ConfigError(f"config.unlearn.reset.layers is {tuple(o.layers)!r}; allowed: layers of "
                          f"the model, {', '.join(layers)}")
    if not any(jax.tree.leaves(_resets(setting, params))):
        raise ConfigError(f"config.model.frozen holds all of config.unlearn.reset.layers "
                          f"{tuple(o.layers)!r} fixed; reset needs one that is free")


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """A pass over D_r; in the first epoch, the warm-up over half of validation comes before it."""
    warmup = setting.options.warmup if epoch == 0 else 0
    return (Pass("validation", kind=WARMUP),) * warmup + (Pass("retain", kind=TUNING),)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """M_O with fresh weights in some layers; the teacher is the unchanged M_O."""
    params, fresh = before.variables["params"], before.initial("reset")["params"]
    resets = _resets(setting, params)
    params = jax.tree.map(lambda old, new, chosen: new if chosen else old, params, fresh, resets)
    return Prepared({**before.variables, "params": params}, before.variables,
                    _touched(setting, params, resets))


def make_step(setting: Setting) -> Step:
    """A step of the student; the context is the teacher's variables."""
    model, loss, o = setting.model, setting.loss, setting.options

    def objective(params, batch_stats, batch, key, teacher):
        outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                         batch.images, train=True, key=key)
        target = teacher_logits(setting, teacher, batch.images)
        logits = class_logits(outputs, setting)
        task = loss.per_sample(outputs, batch.labels)
        distance = divergence(target, logits, o.temperature)
        tuning = task / loss.unit + soft_cross_entropy(target, logits, o.temperature) + distance
        values = jnp.where(batch.kind == WARMUP, distance, tuning)
        return (weighted_mean(values, batch.weights), weighted_mean(task, batch.weights),
                new_stats)

    descent = make_descent(model, setting.optimizer, objective)

    @functools.wraps(descent)
    def step(key, state, batch, learning_rate, context=None):
        rate = jnp.where(batch.kind == WARMUP, o.warmup_rate, 1.0)
        return descent(key, state, batch, learning_rate * rate, context)

    return step


def _paths(params) -> list[str]:
    """The paths of the parameters: 'stem_conv/kernel', ..."""
    return [jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def layers_of(setting: Setting, paths: list[str]) -> tuple[str, ...]:
    """The paths of the layers in the option `layers`.

    The names of a ResNet's first and last layer stand for those of any network that has no layer of
    that name.

    Args:
      setting: the method's inputs.
      paths: paths of the model's parameters.
    """
    ends = dict(zip(METHOD.options["layers"], setting.model.ends))
    return tuple(name if any(_within(path, name) for path in paths) else ends.get(name, name)
                 for name in setting.options.layers)


def _within(path: str, layer: str) -> bool:
    return path == layer or path.startswith(f"{layer}/")


def _resets(setting: Setting, params):
    """A tree like the parameters: True for those that are drawn anew."""
    treedef = jax.tree.structure(params)
    paths = _paths(params)
    names = layers_of(setting, paths)
    chosen = [any(_within(path, name) for name in names) for path in paths]
    return jax.tree.map(lambda named, trains: bool(named and trains),
                        jax.tree.unflatten(treedef, chosen), setting.model.trainable(params))


def _touched(setting: Setting, params, resets) -> dict[str, np.ndarray]:
    """By layer, `[M, n]`: True for fresh weights, in the order of the layer's parameters."""
    layers: dict[str, list[np.ndarray]] = {}
    paths = _paths(params)
    names = layers_of(setting, paths)
    leaves = zip(paths, jax.tree.leaves(params), jax.tree.leaves(resets))
    for path, leaf, chosen in leaves:
        for name in names:
            if _within(path, name):
                layers.setdefault(name, []).append(np.full((len(leaf), leaf[0].size), chosen))
    return {name: np.concatenate(parts, axis=1) for name, parts in layers.items()}


METHOD = Method(
    make_step=make_step, passes=passes, prepare=prepare, check=check, shared_keys=("spread",),
    options=dict(layers=("stem_conv", "output"), temperature=5.0, warmup=3, warmup_rate=0.9),
    published=dict(epochs=(3,), optimizer="sgd", learning_rate=1e-3, schedule="cosine",
                   batch_size=64, momentum=0.9, weight_decay=5e-4),
    optimizers=2, version=2,  # 2: the warm-up is on half of validation
    source="NeurIPS 2023 unlearning challenge, sixth place; the reference study, section 2.4")
