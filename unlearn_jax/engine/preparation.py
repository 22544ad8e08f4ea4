"""What a method computes before its first step: sums over data, maps over members, small trainings.

A method gives single-member functions. This module adds the member axis, the devices and the
costs (images, seconds, FLOPs), so that preparation counts like training.
"""

import dataclasses
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.engine import flops
from unlearn_jax.engine.batches import Feed, Queue
from unlearn_jax.engine.layout import Layout, Program
from unlearn_jax.engine.memory import call_bytes, fit_members_per_call, halve_on_oom, tree_bytes
from unlearn_jax.engine.recipe import Recipe, join, member_keys
from unlearn_jax.engine.run import train_population
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member, Pass, in_batches, stack_batches
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.system import arrays
from unlearn_jax.system.made_once import made_once
from unlearn_jax.train import Batch, Loss, Step, find_batch


@dataclasses.dataclass
class Preparation:
    """The members of a population before a method's first step.

    Attributes:
      name: name of the method; part of the random streams.
      model, layout, resident: network, devices, data.
      members: the M members.
      variables: `[M, ...]` variables at the start.
      loss: the loss that M_O was trained with.
      batch_size: samples per call of `total`, and of a step of `train`.
      images: `[M]` samples passed through a network so far.
      seconds: wall seconds so far, without compilation.
      flops: `[M]` floating-point operations so far (`flops.count`).
      steps: `[M]` updates of the weights of other models so far.
      compile_seconds: seconds spent compiling.
    """

    name: str
    model: Model
    layout: Layout
    resident: Resident | Streamed
    members: list[Member]
    variables: Variables
    loss: Loss
    batch_size: int

    def __post_init__(self) -> None:
        self._feed = Feed(self.layout, self.resident)
        self.resident = self._feed.data
        self.images = np.zeros(len(self.members), int)
        self.flops = np.zeros(len(self.members))
        self.steps = np.zeros(len(self.members), int)
        self.seconds = self.compile_seconds = 0.0

    def keys(self, stream: str) -> jax.Array:
        """Random keys `[M]`, one for each member; each `stream` gives other keys."""
        return member_keys(f"{self.name}/{stream}", self.members)

    def initial(self, stream: str) -> Variables:
        """Fresh weights `[M, ...]`, different from those that M_O started from."""
        return self.each(self.model.init, self.keys(stream))

    def each(self, fun: Callable[..., Any], *trees_M: Any) -> Any:
        """The results of the single-member function `fun` for all members.

        Args:
          fun: takes one member's trees and returns a tree of arrays.
          trees_M: `[M, ...]`.

        Returns:
          `[M, ...]` on the host.
        """
        def work(layout: Layout) -> list[Any]:
            program = layout.vmap_jit(fun, in_axes=(0,) * len(trees_M))
            began, groups = time.monotonic(), []
            for _, args in layout.over_groups(trees_M, len(self.members)):
                groups.append(arrays.fetch(program(*args)))
            self._book(program, time.monotonic() - began - program.compile_seconds)
            return groups

        groups = halve_on_oom(work, self.layout, self.name, self.batch_size)
        self.flops += flops.count(fun, *_one_of(trees_M))
        return join(groups, len(self.members))

    def total(self, over: str, fun: Callable[..., Any], *trees_M: Any,
              batch_size: int = 0, order: str = "", lasting: bool = False) -> Any:
        """The sum of `fun` over the batches of a set of samples.

        Args:
          over: `retain`, `forget`, `all` or `validation`; D_r and D_f include augmented copies.
          fun: `(batch, *trees) -> tree` of one member; it weighs samples by `batch.weights`, so
            that padding adds nothing. Its sum over samples does not depend on their order.
          trees_M: `[M, ...]`.
          batch_size: samples per call, if `fun` takes much memory for each; 0: the usual number.
          order: name of the random stream that shuffles each member's samples, if `fun` depends on
            which samples share a batch; '': they come in the order of their rows.
          lasting: as for `Layout.vmap_jit`.

        Returns:
          `[M, ...]` on the host.

        Raises:
          InputError: a member has no sample in this set.
        """
        batch_size = batch_size or self.batch_size
        rows = [Pass(over).rows(member) for member in self.members]
        if order:
            stream = zlib.crc32(f"{self.name}/{order}".encode())
            rows = [np.random.default_rng([member.seed, stream]).permutation(own)
                    for member, own in zip(self.members, rows)]
        for member, own in zip(self.members, rows):
            if not len(own):
                raise InputError(f"{self.name}: {member} has no samples in {over!r}")
        batches = [in_batches(own, batch_size) for own in rows]

        def work(layout: Layout) -> list[Any]:
            program, layout = self._fitted(layout, fun, batch_size, trees_M, lasting)
            began, groups = time.monotonic(), []
            for group, trees in layout.over_groups(trees_M, len(self.members)):
                forget = layout.shard_members(self._forget(group))
                sums = layout.shard_members(self._zeros(fun, len(group), batch_size, trees))
                queue = Queue()
                for call in self._feed(stack_batches([batches[m] for m in group])):
                    sums, weight = program(sums, call, forget, self._feed.resident, *trees)
                    queue.add(weight)
                groups.append(arrays.fetch(sums))
            self._book(program, time.monotonic() - began)
            return groups

        groups = halve_on_oom(work, self.layout, self.name, batch_size)
        # Each member's batches are the same, whichever members share its calls.
        leaves, tree = jax.tree.flatten((self._batch(batch_size), *_one_of(trees_M)))
        count = _lasting_flops if lasting else _flops
        self.flops += np.array([len(own) for own in batches]) * count(fun, tuple(leaves), tree)
        self.images += [len(own) for own in rows]
        return join(groups, len(self.members))

    def train(self, stream: str, step: Step, settings: OptimizerSettings, variables_M: Variables,
              over: str, epochs: int, context_M: Any = None) -> Variables:
        """Trains other models than those to be unlearned: a proxy, a teacher.

        Args:
          stream: name of the training; part of its random streams.
          step: the step of one member, made with the optimiser of `settings`.
          settings: optimiser, rate and schedule.
          variables_M: `[M, ...]` variables at the start.
          over: the samples of an epoch (`members.WALKS`).
          epochs: number of epochs.
          context_M: `[M, ...]`, context of the step.

        Returns:
          The variables `[M, ...]` after the last epoch.
        """
        recipe = Recipe(f"{self.name}/{stream}", step, make_optimizer(settings), settings,
                        self.loss, epochs, self.batch_size, self.batch_size, keep="last",
                        snapshots=(epochs,), passes=lambda epoch: (Pass(over),))
        trained = train_population(recipe, self.model, self.layout, self.resident, self.members,
                                   variables_M, context_M=context_M)
        snapshot = trained.snapshots[epochs]
        self.images += snapshot.images
        self.flops += snapshot.flops
        self.steps += snapshot.steps
        self.seconds += snapshot.seconds
        self.compile_seconds += trained.compile_seconds
        return snapshot.variables

    def _fitted(self, layout: Layout, fun: Callable, batch_size: int, trees_M: tuple,
                lasting: bool) -> tuple[Program, Layout]:
        """The program of `total`, compiled for as many members per call as have room."""
        made, add = [], (_lasting_adder if lasting else _adder)(fun)

        def needs(layout: Layout) -> int:
            axes = (0, 0, 0, None) + (0,) * len(trees_M)
            made.append(layout.vmap_jit(add, axes, donate=(0,), lasting=lasting))
            size = layout.groups(len(self.members)).shape[1]
            sums, forget, trees = layout.shapes_of_members(
                (self._zeros(fun, 1, batch_size, trees_M), self._forget(np.array([0])), trees_M),
                size)
            batches = self._feed.shapes(size, 1, batch_size)
            made[-1].compile(sums, batches, forget, self._feed.resident, *trees)
            return (call_bytes(made[-1]) - tree_bytes(self._feed.resident)
                    + self._feed.waiting_bytes(batches))

        layout = fit_members_per_call(layout, len(self.members), self.name, needs)
        self.compile_seconds += sum(program.compile_seconds for program in made[:-1])
        return made[-1], layout

    def _forget(self, group: np.ndarray) -> np.ndarray:
        """`[G, R]` bool: the resident rows that each member of a group is to forget."""
        flags = np.zeros((len(group), len(self.resident.labels)), bool)
        for own, m in zip(flags, group):
            own[self.members[m].forget] = True
        return flags

    def _zeros(self, fun: Callable, count: int, batch_size: int, trees: Any) -> Any:
        """Sums of zero `[count, ...]`."""
        shapes = jax.eval_shape(fun, self._batch(batch_size), *_one_of(trees))
        return jax.tree.map(lambda x: np.zeros((count, *x.shape), x.dtype), shapes)

    def _batch(self, batch_size: int) -> Batch:
        """The shapes of a member's batch."""
        size = self.model.image_size

        def shape(dtype: Any, *axes: int) -> Any:  # describes an array
            return jax.ShapeDtypeStruct(axes, dtype)

        return Batch(
            images=shape(jnp.uint8, batch_size, size, size, 3),
            labels=shape(self.resident.labels.dtype, batch_size),
            rows=shape(jnp.int32, batch_size), forget=shape(jnp.bool_, batch_size),
            weights=shape(jnp.float32, batch_size), epoch=shape(jnp.int32))

    def _book(self, program: Program, seconds: float) -> None:
        self.seconds += seconds
        self.compile_seconds += program.compile_seconds


def _adder(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function that adds the results of `fun` for a batch to sums."""
    def add(sums, batches, forget_R, resident, *trees):
        batch = find_batch(resident, batches[0], forget_R, jnp.int32(0))
        # The queue waits for the weight, since the sums are donated to the next call.
        return jax.tree.map(jnp.add, sums, fun(batch, *trees)), jnp.sum(batch.weights)

    return add


def _flops(fun: Callable[..., Any], leaves: tuple[jax.ShapeDtypeStruct, ...],
           tree: jax.tree_util.PyTreeDef) -> float:
    return flops.count(fun, *jax.tree.unflatten(tree, leaves))


_lasting_adder, _lasting_flops = made_once(_adder), made_once(_flops)


def _one_of(trees_M: Any) -> Any:
    """The shapes of one member's part of trees `[M, ...]`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), trees_M)
