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

from unlearn_jax.data.resident import Resident
from unlearn_jax.errors import InputError
from unlearn_jax.layout import Layout
from unlearn_jax.metadata import CheckpointError
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import rate_at
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
from unlearn_jax.train import Carry, Inputs, end_epoch, guarded, init_carry

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # as XLA says it, at compilation or when it runs


def train_population(recipe: Recipe, model: Model, layout: Layout, resident: Resident,
                     members: list[Member], variables_M: Variables,
                     saver: Saver | None = None, bar: Callable[..., Any] | None = None,
                     context_M: Any = None) -> Trained:
    """Trains all members in one compiled program.

    Args:
      recipe: what they share.
      model: the network.
      layout: devices.
      resident: images and labels.
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
        if recipe.epochs and not recipe.steps(member, 0):
            raise ValueError(f"{recipe.name}: {member} has no samples to train on")
        if recipe.keep == "best" and not len(member.validation):
            raise ValueError(f"{recipe.name}: {member} has no validation samples to choose by")
    while True:
        try:
            return _train(recipe, model, layout, resident, members, variables_M, saver or Saver(),
                          bar, context_M)
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


def _train(recipe: Recipe, model: Model, layout: Layout, resident: Resident,
           members: list[Member], variables_M: Variables, saver: Saver, bar,
           context_M: Any) -> Trained:
    run = PopulationRun(recipe, model, layout, resident, members, variables_M, context_M)
    run.resume(saver)
    if run.epoch < recipe.epochs:
        run.compile()  # before the bar, whose time left would count it
    total = sum(p.count(m) for e in range(recipe.epochs) for p in recipe.passes(e)
                for m in members)
    with _progress_bar(bar, recipe.name, total) as progress_bar:
        progress_bar.update(int(run.images.sum()))
        while run.epoch < recipe.epochs and not run.done.all():
            run.train_epoch(progress_bar)
            if saver.due() and run.epoch < recipe.epochs:
                run.save(saver)
    return run.result()


def chunked(body: Callable, steps: int) -> Callable:
    """A guarded step over `rows_KB`, K = `steps` batches, in one call; the losses come stacked."""

    def chunk(carry, inputs, resident, rows_KB, kinds_K, epoch):
        def one(carry, k):
            return body(carry, inputs, resident, rows_KB[k], kinds_K[k], epoch)

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

    def __init__(self, recipe: Recipe, model: Model, layout: Layout, resident: Resident,
                 members: list[Member], variables_M: Variables, context_M: Any = None):
        self.recipe, self.layout, self.members = recipe, layout, members
        self.resident = layout.put_shared(resident)
        self.count = len(members)
        steps_ME = np.array([[recipe.steps(m, e) for e in range(recipe.epochs)] for m in members])
        self.total_steps = np.maximum(steps_ME.sum(1).astype(int), 1)
        longest = int(steps_ME.max(initial=1))
        # Even chunks leave as few idle steps at the end of an epoch as possible.
        self.chunk = -(-longest // -(-longest // layout.steps_per_dispatch))

        body = chunked(guarded(recipe.step, recipe.settings), self.chunk)
        self.start = layout.over_members(lambda v: init_carry(recipe.optimizer, v), (0,))
        self.step = layout.over_members(body, (0, 0, None, 0, 0, None), donate=(0,))
        self.validate = make_validator(model, recipe.loss, layout)
        self.close = layout.over_members(end_epoch(recipe.patience, recipe.keep == "best"),
                                         (0, 0), donate=(0,))
        self.groups = [self._group(which, variables_M, context_M)
                       for which in layout.groups(self.count)]

        self.epoch = 0
        self.seconds = 0.0
        self.walked = np.zeros(self.count, int)  # samples of the epoch at hand
        self.images = np.zeros(self.count, int)
        self.steps = np.zeros(self.count, int)
        self.done = np.zeros(self.count, bool)
        self.failed = np.zeros(self.count, bool)
        self.last_loss = np.full(self.count, np.nan)
        self.history: list[dict[str, Any]] = []
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
        forget = np.zeros((len(members), self.resident.labels.shape[0]), bool)
        for flags, member in zip(forget, members):
            flags[member.forget] = True
        return Inputs(
            key=member_keys(self.recipe.name, members),
            learning_rate=np.full(len(members), self.recipe.settings.learning_rate, np.float32),
            total_steps=self.total_steps[which].astype(np.int32), forget=forget, context=context)

    def compile(self) -> None:
        """Compiles the step and runs nothing."""
        group = self.groups[0]
        shape = (len(group.members), self.chunk, self.recipe.batch_size)
        rows_GKB = self.layout.put_batches(np.zeros(shape, np.int32))
        kinds_GK = self.layout.put_members(np.zeros(shape[:2], np.int32))
        self.step.compile(group.carry, group.inputs, self.resident, rows_GKB, kinds_GK,
                          np.int32(0))
        logging.info("%s: compiled in %.1f s", self.recipe.name, self.step.compile_seconds)

    def train_epoch(self, progress_bar=None) -> None:
        """One epoch of every member that is not done, with its validation and its books."""
        progress_bar = progress_bar or _NoBar()
        began, compiled = time.monotonic(), self.compile_seconds
        summaries = [self._train_group(group, progress_bar) for group in self.groups
                     if not self.done[group.members].all()]
        self._record(summaries)
        self.seconds += time.monotonic() - began - (self.compile_seconds - compiled)
        self._take_snapshot()

    def _train_group(self, group: _Group, progress_bar) -> tuple[np.ndarray, Any]:
        """One epoch of a group: which members it was and, still on the devices, its summary."""
        recipe = self.recipe
        batches, kinds = zip(*(epoch_batches(self.members[m], recipe.name, self.epoch,
                                             recipe.batch_size, recipe.passes)
                               for m in group.members))
        rows_GTB = stack_batches(batches, self.chunk)
        kinds_GT = np.zeros(rows_GTB.shape[:2], np.int32)
        for slot, own in zip(kinds_GT, kinds):
            slot[:len(own)] = own
        real = len(np.unique(group.members))
        samples_T = (rows_GTB[:real] >= 0).sum((0, 2))
        pending: list[jax.Array] = []
        for first in range(0, rows_GTB.shape[1], self.chunk):
            rows_GKB = self.layout.put_batches(rows_GTB[:, first:first + self.chunk])
            kinds_GK = self.layout.put_members(kinds_GT[:, first:first + self.chunk])
            group.carry, loss = self.step(group.carry, group.inputs, self.resident, rows_GKB,
                                          kinds_GK, np.int32(self.epoch))
            # The queue holds one dispatch ahead: the device never idles, and the bar is honest.
            pending.append(loss)
            if len(pending) > 2:
                jax.block_until_ready(pending.pop(0))
            progress_bar.update(int(samples_T[first:first + self.chunk].sum()))
        self.walked[group.members[:real]] = (rows_GTB[:real] >= 0).sum((1, 2))
        group.carry, summary = self.close(group.carry, self._validation_loss(group))
        return group.members[:real], summary

    def _validation_loss(self, group: _Group) -> jax.Array:
        """Mean loss `[G]` on each member's validation set; NaN where it has none."""
        zeros = np.zeros(len(group.members), np.float32)
        sums = self.layout.put_members((zeros, zeros.copy()))
        for batch in range(group.validation.shape[1]):
            rows_GKB = self.layout.put_batches(group.validation[:, batch:batch + 1])
            sums = self.validate(sums, group.carry[0].variables, self.resident, rows_GKB)
        return sums[0] / sums[1]

    def _record(self, summaries: list[tuple[np.ndarray, Any]]) -> None:
        self.epoch += 1
        for which, summary in jax.device_get(summaries):
            for i, m in enumerate(which):
                self._record_member(m, {name: x[i].item() for name, x in summary.items()})

    def _record_member(self, m: int, row: dict[str, Any]) -> None:
        member = self.members[m]
        self.done[m], self.steps[m] = row["done"], row["steps"]
        if row["failed_step"] >= 0 and not self.failed[m]:
            self.failed[m] = True
            logging.warning(
                "%s: %s met a loss or a parameter that is not finite at step %d (epoch %d). "
                "It is frozen there and reported as nan; the other members go on. A lower "
                "learning rate may help.", self.recipe.name, member,
                row["failed_step"], self.epoch)
        if not row["running"]:
            return
        self.images[m] += self.walked[m]
        self.last_loss[m] = row["validation_loss"]
        settings = self.recipe.settings
        fraction = row["steps"] / self.total_steps[m]
        self.history.append({
            "forget_set": member.forget_set, "seed": member.seed, "epoch": row["epoch"],
            "steps": row["steps"], "train_loss": row["train_loss"],
            "validation_loss": row["validation_loss"], "best": row["best"],
            "learning_rate": float(settings.learning_rate * rate_at(settings, fraction)),
            "images": int(self.images[m])})

    @property
    def compile_seconds(self) -> float:
        """Spent compiling so far."""
        programs = (self.start, self.step, self.validate, self.close)
        return sum(program.compile_seconds for program in programs)

    def _joined(self, part: Callable[[Carry], Any]) -> Any:
        """Part of every member's carry, `[M, ...]` on the host."""
        return join([part(group.carry) for group in self.groups], self.count)

    def _take_snapshot(self) -> None:
        if self.recipe.keep == "last" and self.epoch in self.recipe.snapshots:
            self.snapshots[self.epoch] = self._snapshot(
                self._joined(lambda carry: carry[0].variables), np.full(self.count, self.epoch),
                self.last_loss.copy())

    def _snapshot(self, variables: Variables, epochs, validation_loss) -> Snapshot:
        flops = self.steps * (self.step.flops / self.layout.members_per_device)
        return Snapshot(variables, epochs, self.steps.copy(), self.images.copy(), flops,
                        self.failed.copy(), validation_loss, self.seconds)

    def result(self) -> Trained:
        """The books closed."""
        for epochs in self.recipe.snapshots:
            # Everybody has failed or stopped: what there is now is what there would be then.
            if epochs not in self.snapshots:
                self.snapshots[epochs] = self._snapshot(
                    self._joined(lambda carry: carry[0].variables),
                    np.full(self.count, epochs), self.last_loss.copy())
        if self.recipe.keep == "best":
            best, epochs, loss = self._joined(lambda carry: (
                carry[1].best, carry[1].best_epoch, carry[1].best_loss))
            self.snapshots = {self.recipe.epochs: self._snapshot(best, epochs, loss)}
        return Trained(self.snapshots, self.history, self.compile_seconds)

    def save(self, saver: Saver) -> None:
        """Hands everything to the saver."""
        tree = {"carry": self._joined(lambda carry: carry),
                "snapshots": {str(e): s.variables for e, s in self.snapshots.items()}}
        books = {name: getattr(self, name).tolist()
                 for name in ("images", "steps", "done", "failed", "last_loss")}
        metadata = {"epoch": self.epoch, "seconds": self.seconds, "history": self.history,
                    "members": [m.digest for m in self.members], "books": books, "snapshots": {
                        str(e): {f.name: np.asarray(getattr(s, f.name)).tolist()
                                 for f in dataclasses.fields(s) if f.name != "variables"}
                        for e, s in self.snapshots.items()}}
        saver.save(self.epoch, tree, metadata)

    def resume(self, saver: Saver) -> None:
        """Goes on from what the saver kept, if anything: a population with at least our members."""
        found = saver.load(self._template)
        if found is None:
            return
        tree, metadata = found
        mine = [metadata["members"].index(m.digest) for m in self.members]
        for group in self.groups:
            group.carry = self.layout.put_members(
                jax.tree.map(lambda x, g=group: x[mine][g.members], tree["carry"]))
        images = np.array(metadata["books"]["images"])
        # Of the time that all of them took, our members' share.
        share = images[mine].sum() / max(images.sum(), 1)
        self.epoch, self.seconds = metadata["epoch"], metadata["seconds"] * share
        who = {(m.forget_set, m.seed) for m in self.members}
        self.history = [r for r in metadata["history"] if (r["forget_set"], r["seed"]) in who]
        for name, values in metadata["books"].items():
            setattr(self, name, np.array(values)[mine])
        for epoch, fields in metadata["snapshots"].items():
            seconds = fields.pop("seconds")
            self.snapshots[int(epoch)] = Snapshot(
                variables=jax.tree.map(lambda x: x[mine], tree["snapshots"][epoch]),
                seconds=seconds * share,
                **{name: np.array(values)[mine] for name, values in fields.items()})
        logging.info("%s: resumed after epoch %d", self.recipe.name, self.epoch)

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
