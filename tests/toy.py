"""A linear model and eight-pixel images, so that the engine's tests compile in under a second."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.engine.layout import Program, make_layout
from unlearn_jax.engine.recipe import Recipe, Saver, Trained, init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.models import build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.storage import checkpoints
from unlearn_jax.train import make_loss, make_train_step

SIZE = 2


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """`outputs = images / 255 . w + b`; its batch statistic is a running mean of the outputs."""

    image_size: int = SIZE
    frozen: bool = False

    def init(self, key):
        return {"params": {"w": jax.random.normal(key, (SIZE * SIZE * 3,)), "b": jnp.zeros(())},
                "batch_stats": {"mean": jnp.zeros(())}}

    def apply(self, variables, images, *, train, key=None):
        params = variables["params"]
        flat = images.reshape(len(images), -1).astype(jnp.float32) / 255
        outputs = flat @ params["w"] + params["b"]
        mean = variables["batch_stats"]["mean"]
        return outputs, {"mean": 0.9 * mean + 0.1 * outputs.mean() if train else mean}

    def trainable(self, params):
        return {"w": not self.frozen, "b": True}


def resident(count=40, seed=0) -> Resident:
    """Images with labels that a linear model can learn."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    labels = images.reshape(count, -1).mean(1) / 255 * 40 + rng.normal(0, 1, count)
    return Resident(jnp.asarray(images), jnp.asarray(labels, jnp.float32))


def streamed(copies=8) -> Streamed:
    """The same on the host; the last `copies` rows are kept apart, like augmented copies."""
    data = resident()
    images = np.asarray(data.images)
    return Streamed(images[:len(images) - copies], images[len(images) - copies:], data.labels)


def layout(members=1, batch=1, count=3, steps=1, per_device=3):
    """A layout of `members` x `batch` fake devices."""
    cfg = default_config().parallel
    with cfg.unlocked():
        cfg.members, cfg.batch, cfg.steps_per_dispatch = members, batch, steps
        cfg.members_per_device = per_device
    return make_layout(cfg, count)


def settings(**changes) -> OptimizerSettings:
    """SGD at a constant rate."""
    base = OptimizerSettings("sgd", 0.05, "constant", 0.25, 0.0, 0.9)
    return dataclasses.replace(base, **changes)


MODEL = LinearModel()


def recipe(model=MODEL, optimizer_settings=None, **changes) -> Recipe:
    """Three epochs, batches of eight."""
    chosen = optimizer_settings or settings()
    optimizer, loss = make_optimizer(chosen), make_loss("mse", 10.0)
    base = Recipe("toy", make_train_step(model, optimizer, loss), optimizer, chosen, loss,
                  epochs=3, batch_size=8, eval_batch_size=4)
    return dataclasses.replace(base, **changes)


def members(sizes=(24, 17, 9)) -> list[Member]:
    """One member per size, each with its own seed; the last ten rows are for validation."""
    return [Member(seed, "" if seed == 0 else f"set-{seed}", np.arange(size, dtype=np.int32),
                   np.arange(30, 40, dtype=np.int32), np.arange(size, 24, dtype=np.int32))
            for seed, size in enumerate(sizes)]


def tree_close(a, b, **tolerance) -> None:
    """Asserts that two trees have one structure and close values."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


def train(chosen, recipe_=None, where=None, data=None, **kwargs) -> Trained:
    """Trains members from their seeds' weights."""
    where = where or layout(count=len(chosen))
    start = init_members(MODEL, where, [m.seed for m in chosen])
    return train_population(recipe_ or recipe(), MODEL, where, data or resident(), chosen, start,
                            **kwargs)


def assert_same(a: Trained, b: Trained) -> None:
    """Asserts that two runs gave the same numbers, to the bit."""
    assert a.snapshots.keys() == b.snapshots.keys() and a.history == b.history
    for epochs, snapshot in a.snapshots.items():
        other = b.snapshots[epochs]
        tree_close(snapshot.variables, other.variables, rtol=0)
        for field in ("epochs", "steps", "images", "failed", "validation_loss"):
            np.testing.assert_array_equal(getattr(snapshot, field), getattr(other, field))


class Memory(Saver):
    """Saves every epoch as a checkpoint, and stops the run after some epochs."""

    def __init__(self, directory, last):
        self.directory, self.last = directory, last

    def due(self):
        return True

    def save(self, epoch, tree, metadata):
        checkpoints.save_progress(self.directory, epoch, tree, metadata)
        if epoch == self.last:
            raise KeyboardInterrupt

    def load(self, template):
        return checkpoints.restore_latest(self.directory, template)


class Bar:
    """Records the calls that it gets."""

    def __init__(self, total, **kwargs):
        self.total = total
        self.counts = []
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, count):
        self.counts.append(count)


def crowded(monkeypatch, most):
    """Lets programs run on up to `most` members; records the number of members of each call."""
    call, sizes = Program.__call__, []

    def limited(self, carry, *args):
        size = jax.tree.leaves(carry)[0].shape[0]
        if args and size > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
        sizes.append(size)
        return call(self, carry, *args)

    monkeypatch.setattr(Program, "__call__", limited)
    return sizes


def small_network(stem, streams=False):
    """A ResNet of one block, and 40 images of eight pixels on the device or on the host."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = jnp.asarray(rng.uniform(20, 60, 40), jnp.float32)
    data = Streamed(images, images[:0], labels) if streams else Resident(jnp.asarray(images),
                                                                         labels)
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name="resnet4", width=2, stem=stem)
    return build_model(cfg, 8, 0), data
