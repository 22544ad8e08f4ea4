"""Two linear layers with a norm between them, for methods that read logits or have a teacher.

The model is small enough to be written again in NumPy, and training and prediction differ.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from toy import layout, members, resident, settings

from unlearn_jax.config import default_config
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Prepared, Setting
from unlearn_jax.train import Batch, TrainState, make_loss

CLASSES, SPREAD = 3, 5.0
AGES = np.arange(20, 61)
BOTH = ("regression", "classification")


@dataclasses.dataclass(frozen=True)
class TwoLayers:
    """`z = (images / 255 . stem - mean) . output + bias`; outputs z, or 40 + 10 z in years.

    In training the mean is that of the batch, otherwise the running mean.
    """

    classes: int = 0
    frozen: tuple[str, ...] = ()
    image_size: int = 2
    ends = ("stem_conv", "output")

    def init(self, key):
        stem, output, mean = jax.random.split(key, 3)
        return {"params": {
            "output": {"bias": jnp.zeros(self.classes or 1),
                       "kernel": jax.random.normal(output, (4, self.classes or 1))},
            "stem_conv": {"kernel": jax.random.normal(stem, (12, 4))}},
            "batch_stats": {"mean": 0.1 * jax.random.normal(mean, (4,))}}

    def apply(self, variables, images, *, train, key=None):
        params, mean = variables["params"], variables["batch_stats"]["mean"]
        hidden = images.reshape(len(images), -1).astype(jnp.float32) / 255 \
            @ params["stem_conv"]["kernel"]
        now = hidden.mean(0) if train else mean
        z = (hidden - now[None]) @ params["output"]["kernel"] + params["output"]["bias"][None]
        return z if self.classes else 40 + 10 * z[:, 0], {"mean": 0.9 * mean + 0.1 * now}

    def trainable(self, params):
        return {layer: dict.fromkeys(own, layer not in self.frozen)
                for layer, own in params.items()}


def make_setting(name: str, task: str = "regression", frozen: tuple[str, ...] = (),
                 moves: dict[str, Any] | None = None, **options: Any) -> Setting:
    """The method's inputs: SGD without momentum or the optimiser `moves`, and its own options."""
    classes = CLASSES if task == "classification" else 0
    c = default_config()
    own = c.unlearn[name].copy_and_resolve_references()
    with own.unlocked():
        own.update(options)
    with c.unlocked():
        c.unlearn.update(method=name, spread=SPREAD)
    optimizer = METHODS[name].make_optimizer(settings(**{"momentum": 0.0, **(moves or {})}))
    loss = make_loss("cross_entropy" if classes else "mae", 40.0)
    return Setting(TwoLayers(classes, frozen), optimizer, loss, LabelSpace(20, 60, classes, 40.0),
                   c.unlearn, own, c.train)


def data(task: str):
    """`toy.resident`, with classes for classification."""
    found = resident()
    if task == "regression":
        return dataclasses.replace(found, labels=found.labels + 20)
    return dataclasses.replace(found, labels=jnp.arange(40, dtype=jnp.int32) % CLASSES)


def make_batch(task: str, forget=(), weights=None, kind: int = 0, epoch: int = 0,
               progress: float = 0.0, count: int = 8) -> Batch:
    """The first `count` samples; `forget` names those to be forgotten."""
    rows = jnp.arange(count)
    found = data(task)
    weights = jnp.ones(count) if weights is None else jnp.array(weights, jnp.float32)
    return Batch(found.images[rows], found.labels[rows], rows, jnp.isin(rows, jnp.array(forget)),
                 weights, jnp.int32(epoch), jnp.int32(kind), jnp.float32(progress))


def variables(setting: Setting, seed: int) -> Any:
    """The variables of one model."""
    return setting.model.init(jax.random.key(seed))


def one_step(setting: Setting, batch: Batch, context: Any = None, start: Any = None,
             rate: float = 0.1) -> tuple[TrainState, jax.Array, Any]:
    """A step of the method: the new state, the reported loss, the variables before it."""
    start = variables(setting, 1) if start is None else start
    name = setting.config.method
    state = TrainState(start, setting.optimizer.init(start["params"]), jnp.int32(0))
    step = jax.jit(METHODS[name].make_step(setting))
    new, loss = step(jax.random.key(0), state, batch, jnp.float32(rate), context)
    return new, loss, start


def outputs(setting: Setting, start: Any, batch: Batch, train: bool) -> np.ndarray:
    """The model's outputs, in NumPy: logits `[B, C]` or years `[B]`."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), start)
    hidden = np.asarray(batch.images, np.float64).reshape(len(batch.rows), -1) / 255 \
        @ p["params"]["stem_conv"]["kernel"]
    mean = hidden.mean(0) if train else p["batch_stats"]["mean"]
    z = (hidden - mean) @ p["params"]["output"]["kernel"] + p["params"]["output"]["bias"]
    return z if setting.labels.num_classes else 40 + 10 * z[:, 0]


def softened(found: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `[B, K]` in NumPy, from logits or years."""
    if found.ndim == 1:
        found = -(AGES[None] - found[:, None]) ** 2 / (2 * SPREAD**2)
    e = np.exp((found - found.max(1, keepdims=True)) / temperature)
    return e / e.sum(1, keepdims=True)


def divergence_slope(found: np.ndarray, target: np.ndarray, temperature: float) -> np.ndarray:
    """The derivative of KL_T(target ‖ found) by the bias of the last layer, `[B, K or 1]`.

    `found` are outputs, `target` is probabilities; a bias of 1 moves 10 years.
    """
    off = softened(found, temperature) - target
    return off / temperature if found.ndim == 2 \
        else 10 * (off @ AGES / (SPREAD**2 * temperature))[:, None]


def task_slope(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The derivative of the task's loss over its unit by that bias, `[B, K or 1]`."""
    if found.ndim == 2:
        return softened(found, 1.0) - np.eye(CLASSES)[labels]
    return 10 / 40 * np.sign(found - labels)[:, None]


def bias_moved(new: TrainState, start: Any) -> np.ndarray:
    """The change of the last layer's bias, `[K or 1]`."""
    return np.asarray(new.variables["params"]["output"]["bias"]
                      - start["params"]["output"]["bias"])


@dataclasses.dataclass(frozen=True)
class Walked:
    """A population before and after a method: `[M, ...]` trees and the engine's result."""

    start: Any
    before: Preparation
    prepared: Prepared
    trained: Any
    after: Any


def walk(setting: Setting, epochs: int, seeds: tuple[int, ...] = (0, 1),
         sizes: tuple[int, ...] = (17, 9)) -> Walked:
    """Prepares two members and trains them with the method; each forgets its rows up to 23."""
    name = setting.config.method
    method, task = METHODS[name], BOTH[bool(setting.labels.num_classes)]
    chosen = [dataclasses.replace(m, seed=seed) for m, seed in zip(members(sizes), seeds)]
    where, moves = layout(), settings()
    start = jax.tree.map(np.array, init_members(setting.model, where, [0, 1]))
    before = Preparation(name, setting.model, where, data(task), chosen, start, setting.loss, 8)
    prepared = method.prepare(setting, before) if method.prepare else Prepared(start)
    recipe = Recipe(name, method.make_step(setting), setting.optimizer, moves, setting.loss,
                    epochs, 8, 8, keep="last", snapshots=(epochs,),
                    passes=functools.partial(method.passes, setting))
    trained = train_population(recipe, setting.model, where, before.resident, chosen,
                               prepared.variables, context_M=prepared.context)
    return Walked(start, before, prepared, trained, trained.snapshots[epochs].variables)
