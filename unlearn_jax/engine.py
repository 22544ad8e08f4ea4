"""The population engine: trains many members with one compiled program.

Members share the images and the program; each has its own weights, samples, order, learning
rate, early stop and failure. The host only hands out index arrays; batches are gathered from the
resident images inside the program.

One call of the program trains a group of members (`Layout.groups`): all of them on a GPU that
has room, one on a CPU. A group whose members are all done is not called any more.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from unlearn_jax.books import Books
from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.errors import InputError
from unlearn_jax.feed import Feed, Queue
from unlearn_jax.layout import Layout
from unlearn_jax.metadata import CheckpointError
from unlearn_jax.models import Model, Variables
from unlearn_jax.population import (
    Member,
    Recipe,
    Saver,
    Snapshot,
    Trained,
    epoch_batches,
    join,
    member_keys,
)
from unlearn_jax.predict import in_batches, make_validator, stack_batches
from unlearn_jax.train import Carry, Inputs, end_epoch, find_batch, guarded, init_carry

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # as XLA says it, at compilation or when it runs


def train_population(recipe: Recipe, model: Model, layout: Layout,
                     resident: Resident | Streamed, members: list[Member], variables_M: Variables,
                     saver: Saver | None = None, bar: Callable[..., Any] | None = None,
                     context_M: Any = None) -> Trained:
    """Trains all members in one compiled program.

    Args:
      recipe: what they share.
      model: the network.
      layout: devices.
      resident: images and labels, on the device or on the host.
      members: the M members; their sets may differ in size.
      variables_M: where they start, `[M, ...]`; left as they are.
      saver: keeps half-finished runs, and resumes from what it kept.
      bar: makes a progress bar, called like `tqdm.tqdm`.
      context_M: what the method prepared for each member, `[M, ...]`; it reaches every step.

    Returns:
      Snapshots and history.

    Where the members of a call take more memory than the device has, half as many are tried,
    from what was saved last.

    Raises:
      ValueError: a member has no samples to walk over, or none to be selected by.
      InputError: not even one member fits on a device.
    """
    for member in members:
        if recipe.epochs and not recipe.steps(member, recipe.passes(0)):
            raise ValueError(f"{recipe.name}: {member} has no samples to train on")
        if recipe.keep == "best" and not len(member.validation):
            raise ValueError(f"{recipe.name}: {member} has no validation samples to choose by")
    while True:
        try:
            return _train(recipe, model, Feed(layout, resident), members, variables_M,
                          saver or Saver(), bar, context_M)
        except jax.errors.JaxRuntimeError as e:
            if _OUT_OF_MEMORY not in str(e):
                raise
            layout = _halved(layout, recipe, e)


def _halved(layout: Layout, recipe: Recipe, error: jax.errors.JaxRuntimeError) -> Layout:
    if layout.members_per_device == 1:
        raise InputError(
            f"{recipe.name}: one member with a batch of {recipe.batch_size} does not fit into the "
            "device's memory. A smaller batch_size, model.dtype=bfloat16, or parallel.batch over "
            f"several devices takes less. ({str(error).splitlines()[0]})") from error
    half = -(-layout.members_per_device // 2)
    logging.warning("%s: %d members at once do not fit into the device's memory; going on with %d",
                    recipe.name, layout.members_per_device, half)
    return dataclasses.replace(layout, members_per_device=half)


def _train(recipe: Recipe, model: Model, feed: Feed, members: list[Member],
           variables_M: Variables, saver: Saver, bar, context_M: Any) -> Trained:
    run = PopulationRun(recipe, model, feed, members, variables_M, context_M)
    run.resume(saver)
    books = run.books
    if books.epoch < recipe.epochs:
        run.compile()  # before the bar, whose time left would count it
    total = sum(recipe.all_images(m) for m in members)
    with _progress_bar(bar, recipe.name, total) as progress_bar:
        progress_bar.update(int(books.images.sum()))
        while books.epoch < recipe.epochs and not books.done.all():
            run.train_epoch(progress_bar)
            if saver.due() and books.epoch < recipe.epochs:
                run.save(saver)
    return run.result()


def chunked(body: Callable, steps: int) -> Callable:
    """A guarded step over K = `steps` batches in one call; the losses come stacked."""

    def chunk(carry, inputs, resident, batches, kinds_K, epoch):
        def one(carry, k):
            batch = find_batch(resident, batches[k], inputs.forget, epoch, kinds_K[k])
            return body(carry, inputs, batch)

        if steps == 1:
            carry, loss = one(carry, 0)
            return carry, loss[None]
        return jax.lax.scan(one, carry, jnp.arange(steps))

    return chunk


@dataclasses.dataclass
class _Group:
    """Members that one call of the program trains.

    Attributes:
      members: positions in the population, `[G]`; the last ones may repeat.
      inputs: of the steps, `[G, ...]`.
      validation: `[G, T, B]` batches of their validation sets.
      carry: on the devices, `[G, ...]`.
    """

    members: np.ndarray
    inputs: Inputs
    validation: np.ndarray
    carry: Carry


class PopulationRun:
    """A run in mid-flight: the groups on the devices and the host's books.

    `train_population` drives it; its arguments are explained there.
    """

    def __init__(self, recipe: Recipe, model: Model, feed: Feed, members: list[Member],
                 variables_M: Variables, context_M: Any = None):
        self.recipe, self.members, self.count = recipe, members, len(members)
        self.feed = feed
        self.layout = layout = feed.layout
        self.books = Books(recipe, members)
        longest = max(1, *(recipe.longest_epoch(m) for m in members))
        samples = layout.groups(self.count).shape[1] * recipe.batch_size
        most = min(layout.steps_per_dispatch, feed.most_batches(samples))
        # Even chunks leave as few idle steps at the end of an epoch as possible.
        self.chunk = -(-longest // -(-longest // most))

        body = chunked(guarded(recipe.step, recipe.settings), self.chunk)
        self.start = layout.over_members(lambda v: init_carry(recipe.optimizer, v), (0,))
        self.step = layout.over_members(body, (0, 0, None, 0, 0, None), donate=(0,))
        self.validate = make_validator(model, recipe.loss, layout)
        self.close = layout.over_members(end_epoch(recipe.patience, recipe.keep == "best"),
                                         (0, 0), donate=(0,))
        self.groups = [self._group(which, variables_M, context_M)
                       for which in layout.groups(self.count)]

        self.snapshots: dict[int, Snapshot] = {}
        self._take_snapshot()

    def _group(self, which: np.ndarray, variables_M: Variables, context_M: Any) -> _Group:
        put = self.layout.put_members
        validation = stack_batches([in_batches(self.members[m].validation,
                                               self.recipe.eval_batch_size) for m in which])
        carry = self.start(put(jax.tree.map(lambda x: x[which], variables_M)))
        context = jax.tree.map(lambda x: x[which], context_M)
        return _Group(which, put(self._inputs(which, context)), validation, carry)

    def _inputs(self, which: np.ndarray, context: Any) -> Inputs:
        members = [self.members[m] for m in which]
        forget = np.zeros((len(members), len(self.feed.resident.labels)), bool)
        for flags, member in zip(forget, members):
            flags[member.forget] = True
        return Inputs(
            key=member_keys(self.recipe.name, members),
            learning_rate=np.full(len(members), self.recipe.settings.learning_rate, np.float32),
            total_steps=self.books.total_steps[which].astype(np.int32),
            epochs=np.full(len(members), self.recipe.epochs, np.int32), forget=forget,
            context=context)

    def compile(self) -> None:
        """Compiles the step and runs nothing."""
        group = self.groups[0]
        size = len(group.members)
        kinds_GK = self.layout.put_members(np.zeros((size, self.chunk), np.int32))
        self.step.compile(group.carry, group.inputs, self.feed.resident,
                          self.feed.shapes(size, self.chunk, self.recipe.batch_size), kinds_GK,
                          np.int32(0))
        logging.info("%s: compiled in %.1f s", self.recipe.name, self.step.compile_seconds)

    def train_epoch(self, progress_bar=None) -> None:
        """One epoch of every member that is not done, with its validation and its books."""
        progress_bar = progress_bar or _NoBar()
        began, compiled = time.monotonic(), self.compile_seconds
        self._record([self._train_group(group, progress_bar) for group in self.groups
                      if not self.books.done[group.members].all()])
        self.books.seconds += time.monotonic() - began - (self.compile_seconds - compiled)
        self._take_snapshot()

    def _train_group(self, group: _Group, progress_bar) -> tuple[np.ndarray, np.ndarray, Any]:
        """One epoch of a group.

        Returns:
          Which members it was, the samples that each walked over and, still on the devices, its
          summary.
        """
        recipe, epoch = self.recipe, self.books.epoch
        batches, kinds = zip(*(epoch_batches(self.members[m], recipe.name, epoch,
                                             recipe.batch_size, recipe.passes)
                               for m in group.members))
        rows_GTB = stack_batches(batches, self.chunk)
        kinds_GT = np.zeros(rows_GTB.shape[:2], np.int32)
        for slot, own in zip(kinds_GT, kinds):
            slot[:len(own)] = own
        real = len(np.unique(group.members))
        samples_T = (rows_GTB[:real] >= 0).sum((0, 2))
        queue = Queue()
        for call, batches in enumerate(self.feed(rows_GTB, self.chunk)):
            steps = slice(call * self.chunk, (call + 1) * self.chunk)
            group.carry, loss = self.step(
                group.carry, group.inputs, self.feed.resident, batches,
                self.layout.put_members(kinds_GT[:, steps]), np.int32(epoch))
            queue.add(loss)
            progress_bar.update(int(samples_T[steps].sum()))
        group.carry, summary = self.close(group.carry, self._validation_loss(group))
        return group.members[:real], (rows_GTB[:real] >= 0).sum((1, 2)), summary

    def _validation_loss(self, group: _Group) -> jax.Array:
        """Mean loss `[G]` on each member's validation set; NaN where it has none."""
        zeros = np.zeros(len(group.members), np.float32)
        sums = self.layout.put_members((zeros, zeros.copy()))
        queue = Queue()
        for batches in self.feed(group.validation):
            sums = self.validate(sums, group.carry[0].variables, self.feed.resident, batches)
            queue.add(sums[1])
        return sums[0] / sums[1]

    def _record(self, epochs: list[tuple[np.ndarray, np.ndarray, Any]]) -> None:
        self.books.epoch += 1
        for which, walked, summary in jax.device_get(epochs):
            for i, m in enumerate(which):
                self.books.record(m, {name: x[i].item() for name, x in summary.items()},
                                  int(walked[i]))

    @property
    def compile_seconds(self) -> float:
        """Spent compiling so far."""
        programs = (self.start, self.step, self.validate, self.close)
        return sum(program.compile_seconds for program in programs)

    def _joined(self, part: Callable[[Carry], Any]) -> Any:
        """Part of every member's carry, `[M, ...]` on the host."""
        return join([part(group.carry) for group in self.groups], self.count)

    def _take_snapshot(self) -> None:
        epoch = self.books.epoch
        if self.recipe.keep == "last" and epoch in self.recipe.snapshots:
            self.snapshots[epoch] = self._snapshot(
                self._joined(lambda carry: carry[0].variables), np.full(self.count, epoch),
                self.books.last_loss.copy())

    def _snapshot(self, variables: Variables, epochs, validation_loss) -> Snapshot:
        books = self.books
        flops = books.steps * (self.step.flops / self.layout.members_per_device)
        return Snapshot(variables, epochs, books.steps.copy(), books.images.copy(), flops,
                        books.failed.copy(), validation_loss, books.seconds)

    def result(self) -> Trained:
        """The books closed."""
        for epochs in self.recipe.snapshots:
            # Everybody has failed or stopped: what there is now is what there would be then.
            if epochs not in self.snapshots:
                self.snapshots[epochs] = self._snapshot(
                    self._joined(lambda carry: carry[0].variables),
                    np.full(self.count, epochs), self.books.last_loss.copy())
        if self.recipe.keep == "best":
            best, epochs, loss = self._joined(lambda carry: (
                carry[1].best, carry[1].best_epoch, carry[1].best_loss))
            self.snapshots = {self.recipe.epochs: self._snapshot(best, epochs, loss)}
        return Trained(self.snapshots, self.books.history, self.compile_seconds)

    def save(self, saver: Saver) -> None:
        """Hands everything to the saver."""
        tree = {"carry": self._joined(lambda carry: carry),
                "snapshots": {str(e): s.variables for e, s in self.snapshots.items()}}
        snapshots = {str(e): {f.name: np.asarray(getattr(s, f.name)).tolist()
                              for f in dataclasses.fields(s) if f.name != "variables"}
                     for e, s in self.snapshots.items()}
        saver.save(self.books.epoch, tree, {**self.books.metadata(), "snapshots": snapshots})

    def resume(self, saver: Saver) -> None:
        """Goes on from what the saver kept, if anything: a population with at least our members."""
        found = saver.load(self._template)
        if found is None:
            return
        tree, metadata = found
        mine, share = self.books.take_over(metadata)
        for group in self.groups:
            group.carry = self.layout.put_members(
                jax.tree.map(lambda x, g=group: x[mine][g.members], tree["carry"]))
        for epoch, fields in metadata["snapshots"].items():
            seconds = fields.pop("seconds")
            self.snapshots[int(epoch)] = Snapshot(
                variables=jax.tree.map(lambda x: x[mine], tree["snapshots"][epoch]),
                seconds=seconds * share,
                **{name: np.array(values)[mine] for name, values in fields.items()})
        logging.info("%s: resumed after epoch %d", self.recipe.name, self.books.epoch)

    def _template(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The form of a save that holds all that this run needs."""
        theirs = metadata["members"]
        if not {m.digest for m in self.members} <= set(theirs):
            raise CheckpointError("it lacks members of this population")
        missed = [e for e in self.recipe.snapshots
                  if e <= metadata["epoch"] and str(e) not in metadata["snapshots"]]
        if missed:
            raise CheckpointError(f"it is past epoch {missed[0]}, of which a snapshot is wanted")
        carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(theirs), *x.shape[1:]), x.dtype),
                             self.groups[0].carry)
        return {"carry": carry,
                "snapshots": dict.fromkeys(metadata["snapshots"], carry[0].variables)}


class _NoBar:
    """Stands in for a progress bar nobody asked for."""

    def update(self, count: int) -> None:
        """Counts nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def _progress_bar(bar, name: str, total: int):
    return bar(desc=name, total=total, unit="img", unit_scale=True) if bar else _NoBar()
