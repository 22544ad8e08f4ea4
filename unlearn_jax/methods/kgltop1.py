"""KGLTop1: a contrastive loss moves away from D_f, fine-tuning on D_r moves back, in turns.

Source: the NeurIPS 2023 unlearning challenge, first on the public board and second on the private
one (kaggle.com/competitions/neurips-2023-machine-unlearning/discussion/458721); later comparisons
call it KGLTop1. z are the logits of the model in training (probabilities.py; a regression's have
mean zero and describe a Gaussian of width `unlearn.spread`):

    before the first epoch: a pass over D_f minimises KL(uniform ‖ softmax(z));
    each epoch: a contrastive pass with batches of half D_f and half D_r, once over D_f,
        minimises the mean over its pairs (f, r) of -log softmax_r(z_f · z_r / T),
        with the gradient through z_f alone, so that no sample of D_r is nearer than another;
        then a pass over D_r minimises L, the loss that M_O was trained with, over its unit.

For a regression, uniform and contrastive passes both draw ŷ of D_f to the middle of the range.

A regression's logits differ from a classifier's. With labels from 20 to 60 and a spread of 5 years,
their products grow by 9.2 for each year squared. The contrastive gradient would be some thousand
times that of L, and the published rates are not made for that; with ten classes and logits of width
one to two it is 5 to 13 times that of L. So each sample's logits are first scaled to unit variance
over the bins. This keeps the position of the Gaussian and drops the size of the logits. A bin
counts by its width over the spread: there are about as many distinct Gaussians as the range holds
spreads. The contrastive gradient is then 7 to 10 times that of L (`comparable`).

Published rates: 5e-3 (uniform), 3e-4 (contrastive, with a cosine down to 1e-6 that counts
contrastive steps only) and 1e-3 · batch size / 64 (D_r). `unlearn.learning_rate` is that of D_r.
`uniform_rate` and `contrast_rate` are relative to it, and `contrast_floor` is relative to the
contrastive rate. All of them also follow `unlearn.schedule` (published: constant). Each kind of
pass has an optimiser state of its own.

Two things differ from the source. It decays weights on D_r alone; here `unlearn.weight_decay`
acts in all passes, in proportion to their rates. Its contrastive batches hold `batch_size` samples
of either set, each set normalised by its own statistics; here a batch holds half that number of
each set, normalised together.
"""

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.methods.probabilities import check_bins, class_logits, divergence
from unlearn_jax.train import Step, weighted_mean
from unlearn_jax.train import make_step as make_descent

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

RETAIN, UNIFORM, CONTRAST = 0, 1, 2  # kinds of passes
_NAMES = {"retain": RETAIN, "uniform": UNIFORM, "contrast": CONTRAST}

_FAR = -1e30  # a similarity with no effect in a softmax
_TINY = 1e-12  # avoids a division by a variance of zero


def check(setting: Setting) -> None:
    """Refuses options that make no sense.

    Raises:
      InputError: names them.
    """
    check_bins(setting)
    check_ranges("kgltop1", setting.options, {
        "temperature": (1e-6, math.inf), "uniform_rate": (0, math.inf),
        "contrast_rate": (0, math.inf), "contrast_floor": (0, 1)})


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """The passes of an epoch: over D_f (in the first epoch only), contrastive, over D_r."""
    del setting
    turns = (Pass("forget+retain", kind=CONTRAST), Pass("retain", kind=RETAIN))
    return (Pass("forget", kind=UNIFORM), *turns) if epoch == 0 else turns


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """Counts the steps of each member's passes, which decide the contrastive rate."""
    lengths = {p.kind: np.array([p.batches(m, before.batch_size) for m in before.members], np.int32)
               for p in passes(setting, 0)}
    return Prepared(before.variables, {name: lengths[kind] for name, kind in _NAMES.items()})


def contrast_progress(step: jax.Array, epoch: jax.Array, epochs: jax.Array,
                      lengths: dict[str, jax.Array]) -> jax.Array:
    """The share of its contrastive steps that a member has taken.

    Args:
      step: steps taken so far; the next one is contrastive.
      epoch, epochs: epoch of unlearning and their number, as in `Batch`.
      lengths: `uniform`, `contrast` and `retain`, steps of a pass.
    """
    turn = lengths["contrast"] + lengths["retain"]
    in_pass = step - lengths["uniform"] - epoch * turn
    return (epoch * lengths["contrast"] + in_pass) / (epochs * lengths["contrast"])


def contrast(logits: jax.Array, others: jax.Array, weights: jax.Array,
             temperature: float) -> jax.Array:
    """The mean over r of -log softmax_r(z_f · z_r / T), for each f.

    Args:
      logits: `[F, K]`, the z_f.
      others: `[R, K]`, the z_r; no gradient goes through them.
      weights: `[R]`, 0 for an r that is padding.
      temperature: T.

    Returns:
      `[F]` nats.
    """
    similar = logits @ jax.lax.stop_gradient(others).T / temperature
    among = jnp.where(weights[None] > 0, similar, _FAR)
    mean = jnp.sum(similar * weights[None], axis=1) / jnp.maximum(jnp.sum(weights), 1.0)
    return jax.nn.logsumexp(among, axis=1) - mean


def comparable(logits: jax.Array, setting: Setting) -> jax.Array:
    """Logits scaled so that their products are as large as a classifier's.

    Args:
      logits: `[B, K]`, as from `class_logits`.
      setting: holds the task and the spread.

    Returns:
      `[B, K]`: a classifier's logits as they are. A regression's logits have mean zero and are
      scaled: the product of two samples is their correlation times the number of bins over the
      spread (of at least one bin).
    """
    if setting.labels.num_classes:
        return logits
    variance = jnp.mean(jnp.square(logits), axis=1, keepdims=True)
    spread = max(setting.config.spread / setting.labels.step, 1.0)
    return logits / jnp.sqrt((variance + _TINY) * spread)


def make_step(setting: Setting) -> Step:
    """One step for all three kinds of passes: the kind decides the objective and the rate.

    The context holds the lengths of the passes.
    """
    model, loss, o = setting.model, setting.loss, setting.options

    def objective(params, batch_stats, batch, key, context):
        del context
        outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                         batch.images, train=True, key=key)
        task = weighted_mean(loss.per_sample(outputs, batch.labels), batch.weights)
        logits = class_logits(outputs, setting)
        uniform = weighted_mean(divergence(jnp.zeros_like(logits), logits), batch.weights)
        half = len(logits) // 2  # D_r lies in the first half (`Pass`)
        pairs = comparable(logits, setting)
        contrasted = contrast(pairs[half:], pairs[:half], batch.weights[:half], o.temperature)
        minimised = jnp.select(
            [batch.kind == UNIFORM, batch.kind == CONTRAST],
            [uniform, weighted_mean(contrasted, batch.weights[half:])], task / loss.unit)
        return minimised, task, new_stats

    descent = make_descent(model, setting.optimizer, objective)

    @functools.wraps(descent)
    def step(key, state, batch, learning_rate, context=None):
        progress = contrast_progress(state.step, batch.epoch, batch.epochs, context)
        cosine = (1 + jnp.cos(jnp.pi * progress)) / 2
        falling = o.contrast_rate * (o.contrast_floor + (1 - o.contrast_floor) * cosine)
        rate = jnp.select([batch.kind == UNIFORM, batch.kind == CONTRAST],
                          [o.uniform_rate, falling], 1.0)
        return descent(key, state, batch, learning_rate * rate, context)

    return step


METHOD = Method(
    make_step=make_step, passes=passes, prepare=prepare, check=check, shared_keys=("spread",),
    # 5e-3, 3e-4 and 1e-3 · 256 / 64; 1e-6 / 3e-4
    options=dict(temperature=1.15, uniform_rate=1.25, contrast_rate=0.075,
                 contrast_floor=1 / 300),
    published=dict(epochs=(8,), optimizer="sgd", learning_rate=4e-3, schedule="constant",
                   batch_size=256, momentum=0.9, weight_decay=1e-2),
    optimizers=3, strength="contrast_rate",
    # 2: products of a regression's logits are brought to the size of a classifier's
    # 3: the cosine of the contrastive rate runs over contrastive steps alone
    version=3,
    budgets_run_apart=True,  # the cosine of the contrastive rate depends on the length of the run
    source="NeurIPS 2023 unlearning challenge, discussion 458721")
