"""SCRUB: a student moves away from M_O on D_f and stays close to M_O on D_r.

Source: Kurmanji et al. 2023 (arXiv:2302.09880), equations 3 and 4, with the values of their code
(github.com/meghdadk/SCRUB). The student starts as M_O; the teacher is M_O, unchanged. An epoch is

    a pass over D_f that minimises  -T² KL_T(teacher ‖ student)            (first `msteps` epochs)
    a pass over D_r that minimises  gamma L + alpha T² KL_T(teacher ‖ student)

with L the loss that M_O was trained with, over its unit, and KL_T between probabilities softened by
the temperature T (probabilities.py; a regression's are a Gaussian of width `unlearn.spread`). The
teacher predicts with its running statistics, the student with those of the batch. Student and
teacher have the same weights at first, so the first gradients come from this difference and from
dropout.

The rate falls by the factor `decay` after each of the epochs `decay_after`, on top of
`unlearn.schedule` (published: constant). As published, with 3 epochs and the first fall after the
third, it does not fall at all. The passes over D_f have `forget_rate` times the rate of the others
(published: 1). SCRUB+R, which goes back to an earlier epoch, is not implemented.

Two things differ from the published code. Its batches hold 128 samples of D_r and 32 of D_f (at
large scale); here both hold `unlearn.batch_size`, so a pass over D_f has a quarter as many steps.
`forget_batch` is the share of a batch that samples of D_f take: 0.25 gives as many steps as
published. In the published code all passes share one optimiser state, of SGD; here each kind has
its own. Otherwise, under Adam, the large gradients of the passes over D_f would keep the later
steps on D_r small.
"""

import functools
import math
from typing import TYPE_CHECKING

import jax.numpy as jnp

from unlearn_jax.errors import ConfigError
from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Method, Prepared, Setting
from unlearn_jax.methods.options import check_ranges
from unlearn_jax.methods.probabilities import (
    check_bins,
    class_logits,
    divergence,
    teacher_logits,
)
from unlearn_jax.train import Step, weighted_mean
from unlearn_jax.train import make_step as make_descent

if TYPE_CHECKING:
    from unlearn_jax.engine.preparation import Preparation

DISOBEY = 1  # the kind of the passes over D_f


def check(setting: Setting) -> None:
    """Refuses options that make no sense.

    Raises:
      InputError: names them.
    """
    check_bins(setting)
    o = setting.options
    check_ranges("scrub", o, {
        "gamma": (0, math.inf), "alpha": (0, math.inf), "temperature": (1e-6, math.inf),
        "msteps": (0, math.inf), "forget_rate": (0, math.inf), "decay": (1e-12, 1),
        "forget_batch": (1e-6, 1)})
    if not all(isinstance(e, int) and e >= 1 for e in o.decay_after):
        raise ConfigError(f"config.unlearn.scrub.decay_after is {tuple(o.decay_after)!r}; "
                          "allowed: numbers of epochs of at least 1")


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """A pass over D_f in the first `msteps` epochs, then a pass over D_r."""
    o, obey = setting.options, (Pass("retain"),)
    climb = Pass("forget", kind=DISOBEY, fill=o.forget_batch)
    return (climb, *obey) if epoch < o.msteps else obey


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """The teacher is M_O."""
    del setting
    return Prepared(before.variables, before.variables)


def make_step(setting: Setting) -> Step:
    """A step of the student; the context is the teacher's variables."""
    model, loss, o = setting.model, setting.loss, setting.options

    def objective(params, batch_stats, batch, key, teacher):
        outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                         batch.images, train=True, key=key)
        task = loss.per_sample(outputs, batch.labels)
        distance = o.temperature**2 * divergence(
            teacher_logits(setting, teacher, batch.images), class_logits(outputs, setting),
            o.temperature)
        obeying = o.gamma * task / loss.unit + o.alpha * distance
        values = jnp.where(batch.kind == DISOBEY, -distance, obeying)
        return (weighted_mean(values, batch.weights), weighted_mean(task, batch.weights),
                new_stats)

    descent = make_descent(model, setting.optimizer, objective)

    @functools.wraps(descent)
    def step(key, state, batch, learning_rate, context=None):
        falls = jnp.sum(batch.epoch >= jnp.array(o.decay_after, jnp.int32))
        rate = o.decay**falls * jnp.where(batch.kind == DISOBEY, o.forget_rate, 1.0)
        return descent(key, state, batch, learning_rate * rate, context)

    return step


METHOD = Method(
    make_step=make_step, passes=passes, prepare=prepare, check=check, shared_keys=("spread",),
    options=dict(gamma=0.99, alpha=0.001, temperature=4.0, msteps=2, forget_rate=1.0, decay=0.1,
                 decay_after=(3, 5, 9), forget_batch=1.0),
    later=("forget_batch",),
    published=dict(epochs=(3,), optimizer="sgd", learning_rate=5e-4, schedule="constant",
                   batch_size=128, momentum=0.9, weight_decay=5e-4),
    optimizers=2,
    source="Kurmanji et al. 2023, arXiv:2302.09880, equations 3 and 4")
