"""A whole method on a tiny population: preparation, passes and steps through the engine.

The generic tests of test_methods.py run every method of `METHODS` on both tasks with it; a
method's own tests may too. Two members:

* 0 holds eight samples in D_r and as many in D_f. A batch has room for both sets, and each of
  `WALKS` fills it with whole copies of its sets. So the order of the samples does not matter, and
  another seed changes only random draws.
* 1 has sets of other sizes, more than a batch, with padding.

A part of the network is frozen and the weights decay, so that every effect of a method on them is
visible.
"""

import contextlib
import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import toy
from flax import traverse_util

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident
from unlearn_jax.engine import flops, layout, preparation, programs
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import Recipe, Trained, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import LabelSpace, Method, Prepared, Setting
from unlearn_jax.methods.outside import Found
from unlearn_jax.models import Model, build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.stages.graph import method_options
from unlearn_jax.train import Batch, Loss, TrainState, init_state, make_loss, make_train_step

# Methods that draw at random, in their steps or preparation: another key gives another result.
DRAWS = ("activation", "bad_teacher", "blindspot", "fisher", "gaussian_amnesiac", "gradmask",
         "reset", "rnd", "salun")
# Options with published values that do nothing on sets like these.
_OPTIONS = {"ssd": dict(alpha=1.0)}

LINEAR, LINEAR_LOSS = toy.LinearModel(), make_loss("mse", 10.0)
CLASSES = 4
SIZE, BATCH = 8, 16  # pixels, samples
FROZEN = (r"stage1_block1/(conv|norm)1",)

_A = Member(0, "a", np.arange(4, 12, dtype=np.int32), np.arange(29, 37, dtype=np.int32),
            np.arange(20, 28, dtype=np.int32))
_B = Member(1, "b", np.arange(20, dtype=np.int32), np.arange(30, 37, dtype=np.int32),
            np.arange(20, 29, dtype=np.int32))
MEMBERS = (_A, _B)
OTHER_KEY = dataclasses.replace(_A, seed=5)


def resident(task: str, count: int = 37) -> Resident:
    """Random images; labels, years or one of `CLASSES`, that depend on brightness."""
    rng = np.random.default_rng(0)
    level = rng.uniform(40, 215, count)
    images = np.clip(level.reshape(-1, 1, 1, 1) + rng.normal(0, 30, (count, SIZE, SIZE, 3)), 0, 255)
    if task == "regression":
        labels = jnp.asarray(20 + 40 * level / 255, jnp.float32)
    else:
        labels = jnp.asarray(level * CLASSES / 256, jnp.int32)
    return Resident(jnp.asarray(images, jnp.uint8), labels)


def make_setting(name: str, task: str, method: Method | None = None, options: dict | None = None,
                 **changes: Any) -> Setting:
    """The inputs of a method for the tiny network.

    Args:
      name: name of the method.
      task: `regression` or `classification`.
      method: replaces the method of that name in METHODS.
      options: values of the method's own keys that replace the defaults.
      changes: changed keys of `config.unlearn`.
    """
    found = Found(name, method or METHODS[name], "")
    c = default_config()
    with c.unlocked():
        c.data.task = task
        c.model.update(name="resnet4", width=2, stem="small", frozen=FROZEN)
        c.unlearn.update(method=name, batch_size=BATCH, optimizer="sgd", learning_rate=0.02,
                         schedule="constant", weight_decay=0.5)
        c.train.batch_size = BATCH
        c.unlearn.labels = "uniform"
        if task == "classification":
            c.train.loss = "cross_entropy"
        c.unlearn.update(changes)
    own = method_options(c.unlearn, found)
    with own.unlocked():
        own.update({**_OPTIONS.get(name, {}), **(options or {})})
    classes = CLASSES if task == "classification" else 0
    labels = np.asarray(resident(task).labels[:29])
    counts = np.bincount(labels.astype(int), minlength=classes)[:classes]
    space = LabelSpace(20, 60, classes, c.model.output_scale, float(labels.mean()),
                       float(labels.std()), tuple((counts / len(labels)).tolist()))
    return Setting(build_model(c.model, SIZE, classes),
                   found.method.make_optimizer(OptimizerSettings.from_config(c.unlearn)),
                   make_loss(c.train.loss, c.model.output_scale), space, c.unlearn, own, c.train)


@dataclasses.dataclass(frozen=True)
class Walked:
    """A population before and after a method.

    Attributes:
      start: `[M, ...]` variables before the method.
      preparation: the preparation, with its counts.
      prepared: the result of the preparation, before the first step.
      trained: the engine's result, with snapshots after 0 and after all epochs.
      after: `[M, ...]` variables after the last epoch.
    """

    start: Any
    preparation: Preparation
    prepared: Prepared
    trained: Trained
    after: Any


def walk(setting: Setting, members: tuple[Member, ...] = MEMBERS, epochs: int = 1,
         per_device: int = 0, method: Method | None = None, starts: tuple[int, ...] = (),
         name: str = "", counted: bool = False) -> Walked:
    """Prepares a population and trains it with the method.

    Args:
      setting: as from `make_setting`.
      members: members, with rows of `resident`.
      epochs: epochs of training; a method without a step takes none.
      per_device: members in one call of the program; 0: all.
      method: replaces the method `setting.config.method` in METHODS.
      starts: seed of each member's first weights; empty: by its data, independent of its seed.
      name: name of the run, part of every random stream; empty: the method's name.
      counted: True to count the operations of steps, which traces each step once more; False for 1.
    """
    with contextlib.ExitStack() as patches:
        if not counted:
            # Not `flops.count` alone: other tests would find its result where it is kept.
            for module, name_of in ((programs, "_flops"), (preparation, "_flops"),
                                    (preparation, "_lasting_flops"), (flops, "count")):
                patches.enter_context(mock.patch.object(module, name_of, return_value=1.0))
        return _walk(setting, members, epochs, per_device, method, starts, name)


def _walk(setting, members, epochs, per_device, method, starts, name):
    method = method or METHODS[setting.config.method]
    name = name or setting.config.method
    task = "classification" if setting.labels.num_classes else "regression"
    parallel = default_config().parallel
    with parallel.unlocked():
        parallel.members, parallel.members_per_device = 1, per_device or len(members)
    where = layout.make_layout(parallel, len(members))
    start = _starts(setting.model, starts or tuple(len(m.retain) for m in members))
    before = Preparation(name, setting.model, where, resident(task), list(members), start,
                         setting.loss, BATCH)
    prepared = method.prepare(setting, before) if method.prepare else Prepared(start)
    step = (method.make_step or _plain_step)(setting)
    epochs = epochs if method.make_step else 0
    recipe = Recipe(name, step, setting.optimizer, OptimizerSettings.from_config(setting.config),
                    setting.loss, epochs, BATCH, BATCH, keep="last", snapshots=(0, epochs),
                    passes=functools.partial(method.passes, setting))
    trained = train_population(recipe, setting.model, where, before.resident, list(members),
                               prepared.variables, context_M=prepared.context)
    return Walked(start, before, prepared, trained, trained.snapshots[epochs].variables)


def _plain_step(setting: Setting):
    return make_train_step(setting.model, setting.optimizer, setting.loss)


@functools.cache
def _starts(model: Model, seeds: tuple[int, ...]) -> Any:
    """First weights `[M, ...]` on the host, so that no test can overwrite those of another."""
    parallel = default_config().parallel
    where = layout.make_layout(parallel, 1)
    return jax.tree.map(np.array, init_members(model, where, list(seeds)))


@dataclasses.dataclass(frozen=True)
class LinearClassifier:
    """Logits `images / 255 . w + b` of `CLASSES` classes; no batch statistics."""

    image_size: int = toy.SIZE

    def init(self, key):
        w = jax.random.normal(key, (toy.SIZE**2 * 3, CLASSES))
        return {"params": {"w": w, "b": jnp.zeros(CLASSES)}, "batch_stats": {}}

    def apply(self, variables, images, *, train, key=None):
        flat = images.reshape(len(images), -1).astype(jnp.float32) / 255
        logits = flat @ variables["params"]["w"] + variables["params"]["b"].reshape(1, -1)
        return logits, variables["batch_stats"]

    def trainable(self, params):
        return jax.tree.map(lambda p: True, params)


CLASSIFIER, CLASSES_SPACE = LinearClassifier(), LabelSpace(0, 0, CLASSES, 1.0)
CLASSIFIER_LOSS = make_loss("cross_entropy", 1.0)


def linear_setting(name: str, space: LabelSpace | None = None, options: dict | None = None,
                   optimizer_settings: OptimizerSettings | None = None, model: Any = LINEAR,
                   loss: Loss = LINEAR_LOSS, **changes: Any) -> Setting:
    """The inputs of a method for the linear model of toy.py, with steps that a test can compute.

    Args:
      name: name of the method.
      space: the label space; None: ages from 20 to 60.
      options: values of the method's own keys that replace the defaults.
      optimizer_settings: None: those of toy.py.
      model, loss: the network and its loss.
      changes: changed keys of `config.unlearn`.
    """
    c = default_config()
    with c.unlocked():
        c.unlearn.update(changes)
        own = ml_collections.ConfigDict(dict(METHODS[name].options) | (options or {}))
    return Setting(model, make_optimizer(optimizer_settings or toy.settings()), loss,
                   space or LabelSpace(20, 60, 0, 60.0), c.unlearn, own, c.train)


def linear_batch(forget: list[bool], weights: list[float] | None = None, epoch: int = 0,
                 classes: bool = False, **changes: Any) -> Batch:
    """The first samples of toy.py, one for each flag; with `classes`, classes in turn as labels."""
    data, rows = toy.resident(), jnp.arange(len(forget))
    labels = jnp.mod(rows, CLASSES) if classes else data.labels[rows]
    return Batch(data.images[rows], labels, rows, jnp.array(forget),
                 jnp.ones(len(forget)) if weights is None else jnp.array(weights),
                 jnp.int32(epoch), **changes)


def linear_gradients(variables: Any, batch: Batch, part: slice = slice(None),
                     ) -> tuple[dict[str, np.ndarray], float]:
    """In NumPy: the gradients of the mean objective of a part of a batch, and its mean loss.

    The loss is the squared error, with a unit of 100, for the linear model, and the cross-entropy
    for the classifier.
    """
    w, b = (np.asarray(variables["params"][k], np.float64) for k in ("w", "b"))
    x = np.asarray(batch.images[part], np.float64).reshape(-1, len(w)) / 255
    labels, weights = np.asarray(batch.labels[part]), np.asarray(batch.weights[part], np.float64)
    weights = weights / weights.sum()
    outputs = x @ w + b
    if w.ndim == 1:
        loss, slopes = (outputs - labels)**2, 2 * (outputs - labels) * weights / 100
    else:
        p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(labels)), labels])
        slopes = (p - np.eye(len(b))[labels]) * weights[:, None]
    return {"w": x.T @ slopes, "b": slopes.sum(0)}, float(loss @ weights)


def linear_state(model: Any = LINEAR, seed: int = 1,
                 optimizer_settings: OptimizerSettings | None = None) -> TrainState:
    """The linear model before its first step."""
    optimizer = make_optimizer(optimizer_settings or toy.settings())
    return init_state(model, optimizer, model.init(jax.random.key(seed)))


def member(tree: Any, m: int) -> Any:
    """One member of a tree `[M, ...]`."""
    return jax.tree.map(lambda x: np.asarray(x[m]), tree)


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by path 'a/b/c'."""
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(tree, sep="/").items()}
