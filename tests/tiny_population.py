"""Two members with a four-layer network and images of eight pixels, for methods with preparation.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from toy import layout, settings

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident
from unlearn_jax.engine.preparation import Preparation
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.members import Member
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.importance import every_sample, forgotten, importance, retained
from unlearn_jax.methods.method import LabelSpace, Setting
from unlearn_jax.models import Model, build_model
from unlearn_jax.optim import make_optimizer
from unlearn_jax.train import Batch, make_loss

SIZE, COUNT, CLASSES = 8, 24, 3
SCALE = 40.0  # output scale, years
LOSSES = {"regression": make_loss("mae", SCALE), "classification": make_loss("cross_entropy", 1.0)}

# The sets of the members differ in size, and no batch of four or eight divides them.
MEMBERS = (
    Member(0, "a", np.arange(13, dtype=np.int32), np.arange(20, 24, dtype=np.int32),
           np.arange(13, 20, dtype=np.int32)),
    Member(1, "b", np.arange(5, 20, dtype=np.int32), np.arange(20, 24, dtype=np.int32),
           np.arange(5, dtype=np.int32)),
)


def net(task: str = "regression", frozen: tuple[str, ...] = (), width: int = 2) -> Model:
    """A ResNet of one block: convolutions `stem_conv`, `stage1_block1/conv1` and `conv2`."""
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name="resnet4", width=width, stem="small", frozen=frozen)
    return build_model(cfg, SIZE, CLASSES if task == "classification" else 0)


def resident(task: str = "regression") -> Resident:
    """Random images, with labels that do not depend on them."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    labels = jnp.asarray(rng.integers(0, CLASSES, COUNT), jnp.int32)
    if task == "regression":
        labels = jnp.asarray(rng.uniform(20, 60, COUNT), jnp.float32)
    return Resident(jnp.asarray(images), labels)


def setting(method: str, task: str = "regression", model: Any = None, optimizer=None,
            **options: Any) -> Setting:
    """The inputs of a method, with other values for some of its options."""
    own = ml_collections.ConfigDict({**METHODS[method].options, **options})
    classes = CLASSES if task == "classification" else 0
    return Setting(model or net(task), make_optimizer(optimizer or settings()), LOSSES[task],
                   LabelSpace(20, 60, classes, SCALE), default_config().unlearn, own,
                   default_config().train)


@functools.cache
def importances(task: str, frozen: tuple[str, ...] = ()) -> dict[Any, Any]:
    """The importance of the weights of `net` for all samples, D_f and D_r, by weight function."""
    parts = (every_sample, forgotten, retained)
    return dict(zip(parts, importance(preparation(net(task, frozen), task), "all", parts)))


def known_importance(task: str, frozen: tuple[str, ...] = ()):
    """Replaces `importance`, so that it is computed once for all tests that use it."""
    def known(before, over, parts=(every_sample,)):
        found = importances(task, frozen)
        if over == "retain":
            return (found[retained],)
        assert over == "all"
        return tuple(found[part] for part in parts)

    return known


def variables(model: Any, members: tuple[Member, ...] = MEMBERS) -> Any:
    """Variables `[M, ...]` on the host as after training: norms with own scales and statistics."""
    fresh = init_members(model, layout(count=1), [m.seed for m in members])
    rng = np.random.default_rng(1)

    def settle(path, x):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name in ("scale", "var"):
            return x * rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
        return x + rng.normal(0, 0.3, x.shape).astype(np.float32) if name in ("bias", "mean") else x

    return jax.tree_util.tree_map_with_path(settle, fresh)


def preparation(model: Any, task: str = "regression", members: tuple[Member, ...] = MEMBERS,
                where=None, batch_size: int = 8, data: Resident | None = None) -> Preparation:
    """The population before its first step."""
    return Preparation("tiny", model, where or layout(count=1, per_device=1),
                       data or resident(task), list(members), variables(model, members),
                       LOSSES[task], batch_size)


def shuffled(member: Member, seed: int = 5) -> Member:
    """The same sets in another order."""
    rng = np.random.default_rng(seed)
    return dataclasses.replace(member, retain=rng.permutation(member.retain),
                               forget=rng.permutation(member.forget))


def one(tree_M: Any, m: int = 0) -> Any:
    """A member of a tree."""
    return jax.tree.map(lambda x: np.asarray(x[m]), tree_M)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by path."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def batch(data: Resident, forget: np.ndarray, count: int = 6, padding: int = 0) -> Batch:
    """The first samples, the last `padding` of them without weight."""
    rows = jnp.arange(count)
    weights = jnp.asarray(np.arange(count) < count - padding, jnp.float32)
    return Batch(data.images[rows], data.labels[rows], rows, jnp.asarray(forget), weights,
                 jnp.int32(0))
