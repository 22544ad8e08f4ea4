"""The measured training: one network, M members, random images on the device."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import Layout, make_layout
from unlearn_jax.engine.recipe import Recipe, init_members
from unlearn_jax.engine.run import PopulationRun
from unlearn_jax.members import Member
from unlearn_jax.models import Model, build_model
from unlearn_jax.networks import resnet
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.train import Batch, TrainState, init_state, make_loss, make_train_step


@dataclasses.dataclass(frozen=True)
class Workload:
    """`steps` steps of Adam on the mean absolute error for each of M members.

    Attributes:
      model: the network.
      resident: images and labels, steps * batch of them.
      members: M.
      batch: samples per member and step.
      steps: steps of one timed run.
      learning_rate: learning rate of Adam.
    """

    model: Model
    resident: Resident
    members: int
    batch: int
    steps: int
    learning_rate: float = 1e-3

    @property
    def images(self) -> int:
        """Member-images of one timed run."""
        return self.members * self.batch * self.steps

    def settings(self) -> OptimizerSettings:
        """Adam at a constant rate."""
        return OptimizerSettings("adam", self.learning_rate, "constant", 0.25, 0.0, 0.9)

    def recipe(self) -> Recipe:
        """The engine's recipe, without validation and snapshots."""
        optimizer, loss = make_optimizer(self.settings()), make_loss("mae", 40.0)
        return Recipe("benchmark", make_train_step(self.model, optimizer, loss), optimizer,
                      self.settings(), loss, epochs=10**6, batch_size=self.batch,
                      eval_batch_size=1, keep="last")


def make_workload(args, members: int) -> Workload:
    """The workload of a benchmark's flags."""
    cfg = default_config().model
    with cfg.unlocked():
        cfg.name, cfg.stem, cfg.width = args.network, args.stem, args.width
        cfg.dtype = getattr(args, "dtype", cfg.dtype)
    rng = np.random.default_rng(0)
    count, size = args.batch * args.steps, args.image_size
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = rng.uniform(20, 60, count).astype(np.float32)
    return Workload(build_model(cfg, size, 0), Resident(jnp.asarray(images), jnp.asarray(labels)),
                    members, args.batch, args.steps)


def layout_for(members: int, per_device: int = 0) -> Layout:
    """The engine's own choice, or a given number of members per call and device."""
    cfg = default_config().parallel
    with cfg.unlocked():
        cfg.members_per_device = per_device
    return make_layout(cfg, members)


def engine_run(work: Workload, layout: Layout, data: Streamed | None = None) -> PopulationRun:
    """A compiled population; its `train_epoch()` takes `steps` steps of all members.

    Args:
      work: the workload.
      layout: devices.
      data: source of the images; None: those on the device.
    """
    none = np.zeros(0, np.int32)
    rows = np.arange(work.batch * work.steps, dtype=np.int32)
    members = [Member(seed, "", rows, none, none) for seed in range(work.members)]
    variables = init_members(work.model, layout, list(range(work.members)))
    return PopulationRun(work.recipe(), work.model, Feed(layout, data or work.resident), layout,
                         members, variables)


Steps = tuple[jax.stages.Compiled, Callable[[], None]]


def plain_vmap(work: Workload) -> Steps:
    """The plain alternative: `jit(vmap(step))` with Flax' own convolution."""
    states = jax.vmap(lambda key: _state(work, key))(_keys(work))
    step = jax.jit(jax.vmap(_plain_step(work), in_axes=(0, None)), donate_argnums=0)
    with plain_convolution():
        compiled = step.lower(states, _rows(work, 0)).compile()
    holder = [states]

    def run() -> None:
        for k in range(work.steps):
            holder[0] = compiled(holder[0], _rows(work, k))
        jax.block_until_ready(holder[0])

    return compiled, run


def plain_loop(work: Workload) -> Steps:
    """The other plain alternative: one jitted step, with the members one after the other."""
    states = [_state(work, key) for key in _keys(work)]
    step = jax.jit(_plain_step(work), donate_argnums=0)
    with plain_convolution():
        compiled = step.lower(states[0], _rows(work, 0)).compile()

    def run() -> None:
        for m in range(work.members):
            for k in range(work.steps):
                states[m] = compiled(states[m], _rows(work, k))
        jax.block_until_ready(states)

    return compiled, run


@contextlib.contextmanager
def plain_convolution() -> Iterator[None]:
    """Networks traced inside use `lax.conv_general_dilated`, as Flax does by default."""
    with mock.patch.object(resnet, "member_conv", jax.lax.conv_general_dilated):
        yield


def _plain_step(work: Workload) -> Callable[[TrainState, jax.Array], TrainState]:
    step = work.recipe().step
    images, labels = work.resident.images, work.resident.labels

    def one(state: TrainState, rows: jax.Array) -> TrainState:
        batch = Batch(images[rows], labels[rows], rows, jnp.zeros(len(rows), bool),
                      jnp.ones(len(rows)), jnp.int32(0))
        return step(jax.random.key(0), state, batch, jnp.float32(work.learning_rate))[0]

    return one


def _state(work: Workload, key: jax.Array) -> TrainState:
    return init_state(work.model, work.recipe().optimizer, work.model.init(key))


def _keys(work: Workload) -> jax.Array:
    return jnp.stack([jax.random.fold_in(jax.random.key(s), 0) for s in range(work.members)])


def _rows(work: Workload, k: int) -> np.ndarray:
    return np.arange(k * work.batch, (k + 1) * work.batch, dtype=np.int32)
