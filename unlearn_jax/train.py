"""One member's training: state, batch, loss and step. No array here has a member axis."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearn_jax import optim
from unlearn_jax.data.resident import Batches, Resident
from unlearn_jax.models import Model, Variables
from unlearn_jax.optim import OptimizerSettings, rate_at
from unlearn_jax.system import target
from unlearn_jax.system.made_once import made_once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that a step changes.

    Attributes:
      variables: `{'params': tree, 'batch_stats': tree}`.
      opt_state: state of the optimiser.
      step: int32, steps taken.
    """

    variables: Variables
    opt_state: Any
    step: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """B samples of one member's step.

    Attributes:
      images: `[B, H, W, 3]` uint8.
      labels: `[B]` float32 in label units, or int32 classes.
      rows: `[B]` int32, the resident row of each sample.
      forget: `[B]` bool, whether the member is to forget the sample.
      weights: `[B]` float32, 1 for a sample and 0 for padding.
      epoch: int32 scalar, counted from zero.
      kind: int32 scalar, `Pass.kind` of the pass that the batch belongs to.
      progress: float32 scalar, share of all steps of the run already taken, in [0, 1).
      epochs: int32 scalar, number of epochs of the whole run.
    """

    images: jax.Array
    labels: jax.Array
    rows: jax.Array
    forget: jax.Array
    weights: jax.Array
    epoch: jax.Array
    kind: jax.Array | int = 0
    progress: jax.Array | float = 0.0
    epochs: jax.Array | int = 1


@dataclasses.dataclass(frozen=True)
class Loss:
    """A per-sample loss, and the unit that scales it to order one.

    Attributes:
      name: `mae`, `mse` or `cross_entropy`.
      unit: the training objective is the loss divided by this.
      class_weights: factor of each class's cross entropy; empty: all 1.
    """

    name: str
    unit: float
    class_weights: tuple[float, ...] = ()

    def per_sample(self, outputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Losses `[B]`, in label units (mae), label units squared (mse) or nats.

        Args:
          outputs: `[B]` label units, or logits `[B, C]`.
          labels: `[B]`.
        """
        expected = outputs.shape[:1] if self.name == "cross_entropy" else outputs.shape
        if labels.shape != expected or labels.ndim != 1:
            raise ValueError(f"{self.name}: outputs {outputs.shape} do not fit labels "
                             f"{labels.shape}")
        if self.name == "mae":
            return jnp.abs(outputs - labels)
        if self.name == "mse":
            return jnp.square(outputs - labels)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return losses * jnp.array(self.class_weights)[labels] if self.class_weights else losses


def make_loss(name: str, output_scale: float, class_weights: tuple[float, ...] = ()) -> Loss:
    """The loss of `config.train.loss`; `output_scale` (label units) normalises regression."""
    unit = {"mae": output_scale, "mse": output_scale**2, "cross_entropy": 1.0}[name]
    return Loss(name, unit, class_weights)


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """Weights `[C]`, inverse to a class's samples, with mean 1 over labels `[N]`; 0 if empty."""
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return tuple(float(len(labels) / (present * n)) if n else 0.0 for n in counts)


# (key, state, batch, learning rate, context) -> (state, mean loss of the batch in the loss's own
# unit). The key is the member's and the same at every step; a step folds in the numbers that it
# needs. The context is what the method prepared for the member: a teacher, a mask, None.
Step = Callable[[jax.Array, TrainState, Batch, jax.Array, Any], tuple[TrainState, jax.Array]]


def init_state(model: Model, optimizer: optax.GradientTransformation,
               variables: Variables) -> TrainState:
    """A state at step zero for given variables."""
    return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32))


# The platforms on which a step is checked by its loss, gradients and statistics (`optim.decisive`)
# rather than by the resulting weights. On a CPU this gains little and changes models' last digits.
JUDGED_EARLY = ("gpu",)

# (params, batch_stats, batch, key, context) -> (value to minimise, value to report, new batch
# statistics).
Objective = Callable[[Any, Any, Batch, jax.Array, Any], tuple[jax.Array, jax.Array, Any]]


def make_step(model: Model, optimizer: optax.GradientTransformation, objective: Objective,
              mask: Callable[[Any], Any] | None = None) -> Step:
    """A step of gradient descent on an objective.

    Args:
      model: the network; its frozen parameters do not move.
      optimizer: gives the direction; one from `optim.per_kind` receives the batch's kind.
      objective: the objective of one member and batch.
      mask: maps the context to a tree like the parameters, with 1 for a weight that may change and
        0 for others; None: all may. Others keep every bit, also under weight decay and momentum.

    Returns:
      A step marked by `vouched`.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(key, state, batch, learning_rate, context=None):
        params, batch_stats = state.variables["params"], state.variables["batch_stats"]
        key = jax.random.fold_in(key, state.step)

        def minimised(params):
            # No gradient is computed for parameters that are not trained.
            params = jax.tree.map(lambda p, trains: p if trains else jax.lax.stop_gradient(p),
                                  params, model.trainable(params))
            value, reported, new_stats = objective(params, batch_stats, batch, key, context)
            return value, (reported, new_stats)

        grads, (reported, new_stats) = jax.grad(minimised, has_aux=True)(params)
        if mask is not None:
            grads = jax.tree.map(jnp.multiply, grads, mask(context))
        updates, opt_state = optimizer.update(grads, state.opt_state, params,
                                              kind=batch.kind)
        if mask is not None:
            updates = jax.tree.map(jnp.multiply, updates, mask(context))
        # A frozen parameter keeps every bit: weight decay must not change it either.
        new_params = jax.tree.map(
            lambda p, u, trains: p - learning_rate * u if trains else p,
            params, updates, model.trainable(params))
        if target.platform() in JUDGED_EARLY:
            finite: jax.Array | bool = True
            if isinstance(optimizer, optim.Bounded):
                evidence = optim.decisive(optimizer, grads, params)
                finite = jnp.abs(learning_rate) <= optim.LARGEST_RATE
            else:
                evidence = new_params
            finite &= jnp.isfinite(reported) & _all_finite((new_stats, evidence))
            reported = jnp.where(finite, reported, jnp.nan)
        variables = {"params": new_params, "batch_stats": new_stats}
        return TrainState(variables, opt_state, state.step + 1), reported

    return vouched(step)


def vouched(step: Step) -> Step:
    """Marks a step that reports NaN as its loss, on `JUDGED_EARLY`, if its result is not finite.

    `skip_inactive` then need not read the new weights again, which on a GPU is a tenth of the bytes
    that a step moves. A step that wraps a marked one without changing its results keeps the mark by
    `functools.wraps`; a step without the mark is checked by all that it returns.
    """
    vars(step)["vouched"] = True
    return step


def supervised(model: Model, loss: Loss) -> Objective:
    """The mean loss of a batch, divided by the loss's unit.

    Padding has weight zero in the loss; it still passes through the network, so that batch
    norm sees a full batch.
    """

    def objective(params, batch_stats, batch, key, context=None):
        outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                         batch.images, train=True, key=key)
        value = weighted_mean(loss.per_sample(outputs, batch.labels), batch.weights)
        return value / loss.unit, value, new_stats

    return objective


@made_once
def make_train_step(model: Model, optimizer: optax.GradientTransformation, loss: Loss) -> Step:
    """The supervised step that training and most methods share."""
    return make_step(model, optimizer, supervised(model, loss))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """The record of one member, carried along with its state.

    Attributes:
      best: variables of lowest validation loss so far; None if the last ones are kept.
      best_loss: the lowest validation loss.
      best_epoch: int32, epochs trained when it was reached.
      epochs: int32, epochs trained.
      stopped: bool, stopped early.
      failed_step: int32, the step that was not finite; -1: none.
      loss_sum, loss_steps: sum and number of the training losses of the current epoch.
    """

    best: Variables | None
    best_loss: jax.Array
    best_epoch: jax.Array
    epochs: jax.Array
    stopped: jax.Array
    failed_step: jax.Array
    loss_sum: jax.Array
    loss_steps: jax.Array

    @property
    def running(self) -> jax.Array:
        """Whether the member has neither stopped nor failed."""
        return ~self.stopped & (self.failed_step < 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs that one member's steps read and never change.

    Attributes:
      key: the member's PRNG key.
      learning_rate: peak rate.
      total_steps: int32, steps of the whole run, for the schedule.
      epochs: int32, epochs of the whole run.
      forget: `[R]` bool over the resident rows.
      context: what the method prepared for the member, or None.
    """

    key: jax.Array
    learning_rate: jax.Array
    total_steps: jax.Array
    epochs: jax.Array
    forget: jax.Array
    context: Any = None


Carry = tuple[TrainState, Progress]


def init_carry(optimizer: optax.GradientTransformation, variables: Variables,
               select: bool) -> Carry:
    """A member before its first step; the variables are copied, since steps donate them.

    Args:
      optimizer, variables: the member's.
      select: carries the best state too, as for `end_epoch`.
    """
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(jax.tree.map(jnp.copy, variables), optimizer.init(variables["params"]), zero)
    best = jax.tree.map(jnp.copy, variables) if select else None
    progress = Progress(best, jnp.array(jnp.inf), zero, zero, jnp.array(False), zero - 1,
                        jnp.zeros(()), zero)
    return state, progress


def skip_inactive(step: Step, settings: OptimizerSettings) -> Callable:
    """A step that changes a member only if its batch and its result are usable.

    A member keeps its state if it has stopped, or if its batch is all padding since it has seen all
    its samples in this epoch. A step with a loss or a parameter that is not finite is undone, and
    the member is frozen in its previous state; other members are not affected.
    If a step is checked early (`vouched`), a gradient counts as infinite if its square is.

    Returns:
      `(carry, inputs, batch) -> (carry, loss)`; it sets the batch's progress.
    """

    def body(carry: Carry, inputs: Inputs, batch: Batch):
        state, progress = carry
        active = progress.running & (batch.weights > 0).any()
        fraction = state.step / inputs.total_steps
        batch = dataclasses.replace(batch, progress=fraction, epochs=inputs.epochs)
        rate = inputs.learning_rate * rate_at(settings, fraction)
        new_state, loss = step(inputs.key, state, batch, rate, inputs.context)
        finite = jnp.isfinite(loss)
        if target.platform() not in JUDGED_EARLY or not getattr(step, "vouched", False):
            finite &= _all_finite(new_state.variables)
        moves = active & finite
        state = jax.tree.map(lambda new, old: jnp.where(moves, new, old), new_state, state)
        progress = dataclasses.replace(
            progress,
            failed_step=jnp.where(active & ~finite, state.step, progress.failed_step),
            loss_sum=progress.loss_sum + jnp.where(moves, loss, 0),
            loss_steps=progress.loss_steps + moves)
        return (state, progress), loss

    return body


@made_once
def end_epoch(patience: int, select: bool) -> Callable:
    """Closes a member's epoch: best state, early stop, and values for the history.

    Args:
      patience: epochs without a better validation loss before it stops; 0: never.
      select: the best state is kept, so it is carried along, and a validation loss that is not
        finite means failure.

    Returns:
      `(carry, validation_loss) -> (carry, dict of scalars)`.
    """

    def close(carry: Carry, validation_loss: jax.Array):
        state, progress = carry
        running = progress.running
        epochs = progress.epochs + running
        better = running & (validation_loss < progress.best_loss)
        best_epoch = jnp.where(better, epochs, progress.best_epoch)
        stopped, failed_step = progress.stopped, progress.failed_step
        if select:
            failed_step = jnp.where(running & ~jnp.isfinite(validation_loss), state.step,
                                    failed_step)
        if patience:
            stopped |= epochs - best_epoch >= patience
        closed = Progress(
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), state.variables,
                              progress.best) if select else None,
            best_loss=jnp.where(better, validation_loss, progress.best_loss),
            best_epoch=best_epoch, epochs=epochs, stopped=stopped, failed_step=failed_step,
            loss_sum=jnp.zeros_like(progress.loss_sum),
            loss_steps=jnp.zeros_like(progress.loss_steps))
        summary = {
            "running": running, "epoch": epochs, "best": better, "steps": state.step,
            "train_loss": progress.loss_sum / jnp.maximum(progress.loss_steps, 1),
            "validation_loss": validation_loss, "failed_step": failed_step,
            "done": ~closed.running,
        }
        return (state, closed), summary

    return close


def _all_finite(tree: Any) -> jax.Array:
    # First, per array, whether each column of its last axis is finite; then all columns at once. So
    # a GPU launches one kernel per array rather than two or three.
    finite = jnp.concatenate([jnp.isfinite(x).all(tuple(range(x.ndim - 1))).reshape(-1)
                              for x in jax.tree.leaves(tree)])
    # The minimum rather than `all`: XLA writes `all` as a chain of ands, which it copies into each
    # of the hundreds of fusions that use it. The program of a small ResNet is then twice as long.
    return finite[jnp.argmin(finite)]


def decode_rows(rows_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Resident rows `[B]` and their weights; a negative entry is padding with weight zero."""
    padding = rows_B < 0
    return jnp.where(padding, ~rows_B, rows_B), jnp.where(padding, 0.0, 1.0)


def find_images(resident: Resident, batch: Batches) -> jax.Array:
    """Images `[B, H, W, 3]` of a single batch, sent by the host or gathered."""
    if batch.images is not None:
        return batch.images
    assert resident.images is not None, "images are resident, or the host sends them"
    return resident.images[decode_rows(batch.rows)[0]]


def find_batch(resident: Resident, batch: Batches, forget_R: jax.Array, epoch: jax.Array,
               kind: jax.Array | int = 0) -> Batch:
    """A single batch with all that a step may need of its samples.

    Args:
      resident: labels, and images unless the host sends them.
      batch: rows `[B]`.
      forget_R: bool over the resident rows: whether the member is to forget them.
      epoch, kind: as in `Batch`.
    """
    rows, weights = decode_rows(batch.rows)
    return Batch(find_images(resident, batch), resident.labels[rows], rows, forget_R[rows],
                 weights, epoch, kind)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean of values `[B]`; zero if all weights `[B]` are zero."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1e-12)
