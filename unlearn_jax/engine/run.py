"""The population engine: trains many members with one compiled program.

Members share the images and the program; each has its own weights, samples, order, learning
rate, early stop and failure. The host only hands out index arrays. The program gathers batches from
the resident images, or the host reads them ahead (`batches.py`).

One call of the program trains a group of members (`Layout.groups`): all of them on a GPU with
enough memory, one on a CPU. A group whose members are all done is no longer called, and the running
members are regrouped (`groups.py`).
"""

import dataclasses
import functools
import math
import operator
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from unlearn_jax.data.resident import Resident, Streamed
from unlearn_jax.engine.batches import Feed, Queue
from unlearn_jax.engine.groups import Group, joined, regrouped
from unlearn_jax.engine.history import History
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.memory import call_bytes, halve_on_oom
from unlearn_jax.engine.programs import fitted_programs
from unlearn_jax.engine.recipe import Recipe, Saver, Snapshot, Trained, epoch_batches, member_keys
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member, in_batches, stack_batches
from unlearn_jax.models import Model, Variables
from unlearn_jax.storage.metadata import CheckpointError
from unlearn_jax.system import arrays, interrupt, processes
from unlearn_jax.train import Carry, Inputs

_ENOUGH_CALLS = 50  # of the program: their median rate is that of two seconds of calls


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
      variables_M: variables at the start, `[M, ...]`; not changed.
      saver: saves unfinished runs, and resumes from what it saved.
      bar: makes a progress bar, called like `tqdm.tqdm`.
      context_M: what the method prepared for each member, `[M, ...]`; every step receives it.

    Returns:
      Snapshots and history.

    If the members of a call need more memory than the device has, in spite of the plan, half as
    many are tried, from the last save.

    Raises:
      ValueError: a member has no samples to train on, or none for its selection.
      InputError: not even one member fits on a device, or one would take 2^31 steps.
      Interrupted: a signal requested it (interrupt.py); the state at the epoch's end is saved.
    """
    for member in members:
        if recipe.epochs and not recipe.steps(member, recipe.passes(0)):
            raise ValueError(f"{recipe.name}: {member} has no samples to train on")
        if (steps := recipe.all_steps(member)) >= 2**31:  # schedules count in 32 bits
            raise InputError(f"{recipe.name}: {member} would take {steps} steps; allowed: fewer "
                             "than 2147483648, by fewer epochs or larger batches")
        if recipe.keep == "best" and not len(member.validation):
            raise ValueError(f"{recipe.name}: {member} has no validation samples to choose by")
    began = time.monotonic()

    def work(layout: Layout) -> Trained:
        run = PopulationRun(recipe, model, Feed(layout, resident), layout, members, variables_M,
                            context_M)
        _train(run, saver or Saver(), bar)
        first = run.first_step_at
        return dataclasses.replace(run.result(), first_step_seconds=first and first - began)

    return halve_on_oom(work, layout, recipe.name, recipe.batch_size)


def _train(run: "PopulationRun", saver: Saver, bar: Callable[..., Any] | None) -> None:
    recipe, history = run.recipe, run.history
    run.resume(saver)
    total = sum(recipe.all_images(m) for m in run.members)
    with _progress_bar(bar, recipe.name, total) as progress_bar:
        progress_bar.update(int(history.images.sum()))
        while history.epoch < recipe.epochs and not history.done.all():
            run.train_epoch(progress_bar)
            if history.epoch == recipe.epochs:
                return  # the caller stores it as finished
            asked = interrupt.requested()
            if saver.due() or asked:
                run.save(saver)
            if asked:
                interrupt.leave()


@dataclasses.dataclass(frozen=True)
class Rate:
    """The measured cost of a few steps of a population.

    Attributes:
      images_per_second: samples trained on, of all members together, in the call of median rate.
      calls: timed calls of the program.
      members: members of a call on each device.
      compile_seconds: seconds until the first call could be made.
      flops_of_a_step: floating-point operations of one member's step; NaN: not counted.
      call_bytes: bytes on each device while a call runs, by the compiler's analysis.
    """

    images_per_second: float
    calls: int
    members: int
    compile_seconds: float
    flops_of_a_step: float
    call_bytes: int


def measure_rate(recipe: Recipe, model: Model, layout: Layout, resident: Resident | Streamed,
                 members: list[Member], variables_M: Variables, seconds: float) -> Rate:
    """Takes some training steps of the first call's members, and discards the results.

    Args:
      recipe, model, layout, resident, members, variables_M: as for `train_population`; the recipe
        needs no context.
      seconds: how long to measure, after a first call that does not count; `_ENOUGH_CALLS` calls
        end it earlier.
    """
    run = PopulationRun(recipe, model, Feed(layout, resident), layout, members, variables_M)
    group, chunk = run.groups[0], run.programs.chunk
    rows_GTB, kinds_GT = run.walks(group)
    rates: list[float] = []
    end, over = math.inf, False
    while not over or len(rates) < 2:
        for call, batches in enumerate(run.feed(rows_GTB, chunk)):
            began = time.monotonic()
            steps = slice(call * chunk, (call + 1) * chunk)
            group.carry, loss = run.programs.step(
                group.carry, group.inputs, run.feed.resident, batches,
                run.layout.shard_members(kinds_GT[:, steps]), np.int32(0),
                filled_steps(rows_GTB[:, steps]))
            jax.block_until_ready(loss)
            ended = time.monotonic()
            rates.append(int((rows_GTB[group.slots, steps] >= 0).sum()) / (ended - began))
            end = min(end, ended + seconds)
            late = processes.on_first_process("enough steps",
                                              functools.partial(operator.ge, ended, end))
            if over := late or len(rates) > _ENOUGH_CALLS:
                break
    # The median: another program may have used the machine for a while.
    return Rate(float(np.median(rates[1:])), len(rates) - 1,
                run.programs.layout.members_per_device, run.compile_seconds,
                run.programs.flops_of_a_step, call_bytes(run.programs.step))


def filled_steps(rows_GKB: np.ndarray) -> np.int32:
    """Number of steps of K up to the last one in which any member of a call has a sample."""
    filled_K = (rows_GKB >= 0).any((0, 2))
    return np.int32(np.flatnonzero(filled_K)[-1] + 1 if filled_K.any() else 0)


class PopulationRun:
    """A run in progress: the groups on the devices and the host's record.

    `train_population` drives it and explains its arguments. Programs that take long to compile are
    compiled at once.

    Attributes:
      programs: the compiled programs.
      groups: the members of each call; a group whose members are all done is not called.
      history: the host's record.
      first_step_at: when the first call that trained had ended, on the monotonic clock; None:
        not yet.
    """

    def __init__(self, recipe: Recipe, model: Model, feed: Feed, layout: Layout,
                 members: list[Member], variables_M: Variables, context_M: Any = None):
        self.recipe, self.members, self.count = recipe, members, len(members)
        self.feed, self._context = feed, context_M
        self.history = History(recipe, members)
        self.programs, self._compile_seconds = fitted_programs(
            recipe, model, feed, layout, members, variables_M, self._inputs(np.array([0])))
        self.layout = self.programs.layout
        self.groups = [self._group(which, self._started(variables_M, which))
                       for which in self.layout.groups(self.count)]
        self.first_step_at: float | None = None
        self.snapshots: dict[int, Snapshot] = {}
        self._take_snapshot()

    def _started(self, variables_M: Variables, which: np.ndarray) -> Carry:
        own = jax.tree.map(lambda x: x[which], variables_M)
        return self.programs.start(self.layout.shard_members(own))

    def _group(self, which: np.ndarray, carry: Carry) -> Group:
        validation = stack_batches([in_batches(
            self.members[m].validation[:0] if self.history.done[m] else self.members[m].validation,
            self.recipe.eval_batch_size) for m in which])
        return Group(which, self.layout.shard_members(self._inputs(which)), validation, carry)

    def _inputs(self, which: np.ndarray) -> Inputs:
        members = [self.members[m] for m in which]
        forget = np.zeros((len(members), len(self.feed.resident.labels)), bool)
        for flags, member in zip(forget, members):
            flags[member.forget] = True
        on_host: dict[str, Any] = dict(  # NumPy arrays; `shard_members` makes them JAX arrays
            learning_rate=np.array([self.recipe.learning_rate(m) for m in members], np.float32),
            total_steps=self.history.total_steps[which].astype(np.int32),
            epochs=np.full(len(members), self.recipe.epochs, np.int32), forget=forget)
        return Inputs(key=member_keys(self.recipe.name, members), **on_host,
                      context=jax.tree.map(lambda x: x[which], self._context))

    def train_epoch(self, progress_bar=None) -> None:
        """Runs one epoch of training and then a validation, and records the results of both.

        Members that have stopped or failed keep their state.

        Args:
          progress_bar: `update(n)` is called with the number of images trained on; None: no bar.
        """
        progress_bar = progress_bar or _NoBar()
        began, compiled = time.monotonic(), self.compile_seconds
        self._regroup()
        self._record([self._train_group(group, progress_bar) for group in self.groups
                      if not self.history.done[group.members].all()])
        self.history.seconds += time.monotonic() - began - (self.compile_seconds - compiled)
        self._take_snapshot()

    def _regroup(self) -> None:
        """Puts running members into common groups where that saves calls, apart from the others."""
        changes = regrouped([group.members for group in self.groups], self.history.done)
        if not changes:
            return
        changed = [self.groups[g] for g in changes]
        found = np.unique(np.concatenate([group.members for group in changed]))
        carries = joined(changed, lambda carry: carry)
        for group in changed:
            del group.carry, group.inputs  # room for the new ones
        for g, which in changes.items():
            place = np.searchsorted(found, which)
            self.groups[g] = self._group(which, self.layout.shard_members(
                jax.tree.map(lambda x, p=place: x[p], carries)))
        logging.info("%s: %d members still train, in %d calls a step", self.recipe.name,
                     (~self.history.done).sum(),
                     sum(not self.history.done[group.members].all() for group in self.groups))

    def _train_group(self, group: Group, progress_bar) -> tuple[Group, np.ndarray, Any]:
        """Trains a group for one epoch.

        Returns:
          The group, the number `[G]` of samples that each member saw, and, still on the devices,
          the members' summaries.
        """
        chunk = self.programs.chunk
        rows_GTB, kinds_GT = self.walks(group)
        samples_GT = (rows_GTB >= 0).sum(2)
        queue = Queue()
        for call, batches in enumerate(self.feed(rows_GTB, chunk)):
            steps = slice(call * chunk, (call + 1) * chunk)
            group.carry, loss = self.programs.step(
                group.carry, group.inputs, self.feed.resident, batches,
                self.layout.shard_members(kinds_GT[:, steps]), np.int32(self.history.epoch),
                filled_steps(rows_GTB[:, steps]))
            queue.add(loss)
            if queue.finished:
                self._note_first_step()
            progress_bar.update(int(samples_GT[group.slots, steps].sum()))
        group.carry, summary = self.programs.close(group.carry, self._validation_loss(group))
        return group, samples_GT.sum(1), summary

    def walks(self, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """The epoch of each running member: rows `[G, T, B]` and kinds `[G, T]` of its batches.

        T is a multiple of the steps of a call.
        """
        recipe = self.recipe
        nothing = np.zeros((0, recipe.batch_size), np.int32), np.zeros(0, np.int32)
        batches, kinds = zip(*(
            nothing if self.history.done[m] else epoch_batches(
                self.members[m], recipe.name, self.history.epoch, recipe.batch_size, recipe.passes)
            for m in group.members))
        rows_GTB = stack_batches(batches, self.programs.chunk)
        kinds_GT = np.zeros(rows_GTB.shape[:2], np.int32)
        for slot, own in zip(kinds_GT, kinds):
            slot[:len(own)] = own
        return rows_GTB, kinds_GT

    def _validation_loss(self, group: Group) -> jax.Array:
        """Mean loss `[G]` on each member's validation set; NaN where it has none."""
        zeros = np.zeros(len(group.members), np.float32)
        sums = self.layout.shard_members((zeros, zeros.copy()))
        queue = Queue()
        for batches in self.feed(group.validation):
            sums = self.programs.validate(sums, group.carry[0].variables, self.feed.resident,
                                          batches)
            queue.add(sums[1])
        return sums[0] / sums[1]

    def _record(self, epochs: list[tuple[Group, np.ndarray, Any]]) -> None:
        self.history.epoch += 1
        summaries = arrays.fetch([summary for _, _, summary in epochs])
        self._note_first_step()
        rows = {group.members[slot]: ({name: x[slot].item() for name, x in summary.items()},
                                      int(walked[slot]))
                for (group, walked, _), summary in zip(epochs, summaries) for slot in group.slots}
        self.history.record(rows)

    def _note_first_step(self) -> None:
        if self.first_step_at is None:
            self.first_step_at = time.monotonic()

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return self._compile_seconds + self.programs.start.compile_seconds \
            + self.programs.close.compile_seconds

    def _take_snapshot(self) -> None:
        epoch = self.history.epoch
        if self.recipe.keep == "last" and epoch in self.recipe.snapshots:
            self.snapshots[epoch] = self._snapshot(
                joined(self.groups, lambda carry: carry[0].variables), np.full(self.count, epoch),
                self.history.last_loss.copy())

    def _snapshot(self, variables: Variables, epochs, validation_loss) -> Snapshot:
        history, flops = self.history, np.zeros(self.count)
        if history.steps.any():
            flops[history.steps > 0] = self.programs.flops_of_a_step
        return Snapshot(variables, epochs, history.steps.copy(), history.images.copy(),
                        history.steps * flops, history.failed.copy(), validation_loss,
                        history.seconds)

    def result(self) -> Trained:
        """The results at the end of the run."""
        for epochs in self.recipe.snapshots:
            # All members have failed or stopped, so later snapshots would equal the current state.
            if epochs not in self.snapshots:
                self.snapshots[epochs] = self._snapshot(
                    joined(self.groups, lambda carry: carry[0].variables),
                    np.full(self.count, epochs), self.history.last_loss.copy())
        if self.recipe.keep == "best":
            best, epochs, loss = joined(self.groups, lambda carry: (
                carry[1].best, carry[1].best_epoch, carry[1].best_loss))
            self.snapshots = {self.recipe.epochs: self._snapshot(best, epochs, loss)}
        return Trained(self.snapshots, self.history.rows, self.compile_seconds)

    def save(self, saver: Saver) -> None:
        """Passes the whole state to the saver."""
        tree = {"carry": joined(self.groups, lambda carry: carry),
                "snapshots": {str(e): s.variables for e, s in self.snapshots.items()}}
        snapshots = {str(e): {f.name: np.asarray(getattr(s, f.name)).tolist()
                              for f in dataclasses.fields(s) if f.name != "variables"}
                     for e, s in self.snapshots.items()}
        saver.save(self.history.epoch, tree, {**self.history.metadata(), "snapshots": snapshots})

    def resume(self, saver: Saver) -> None:
        """Continues from the saver's last state, if any; it must hold at least these members."""
        found = saver.load(self._template)
        if found is None:
            return
        tree, metadata = found
        mine, share = self.history.take_over(metadata)
        for group in self.groups:
            group.carry = self.layout.shard_members(
                jax.tree.map(lambda x, g=group: x[mine][g.members], tree["carry"]))
        for epoch, fields in metadata["snapshots"].items():
            seconds = fields.pop("seconds")
            self.snapshots[int(epoch)] = Snapshot(
                variables=jax.tree.map(lambda x: x[mine], tree["snapshots"][epoch]),
                seconds=seconds * share,
                **{name: np.array(values)[mine] for name, values in fields.items()})
        logging.info("%s: resumed after epoch %d", self.recipe.name, self.history.epoch)

    def _template(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The form of a save with all that this run needs."""
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
    """Replaces a progress bar where none is wanted."""

    def update(self, count: int) -> None:
        """Does nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def _progress_bar(bar, name: str, total: int):
    return bar(desc=name, total=total, unit="img", unit_scale=True) if bar else _NoBar()
