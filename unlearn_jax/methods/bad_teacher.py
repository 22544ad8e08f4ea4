"""Bad teacher: a student of M_O learns from a random network on D_f and from M_O on D_r.

Source: Chundawat et al. 2023 (arXiv:2205.08096), equation 2, with the values of their code
(github.com/vikram2000b/bad-teaching-unlearning). The student starts as M_O. An epoch goes over all
of D_f, mixed with a share of D_r (`retain_share`, drawn anew each epoch), and minimises

    KL_T(teacher ‖ student),  the teacher being a freshly initialised network for samples of D_f
                              and M_O for the others

between probabilities softened by the temperature T (probabilities.py; a regression's are a
Gaussian of width `unlearn.spread`). No label is used. Both teachers predict with their running
statistics; the random network keeps its initial ones.

Here the mean is over samples. The published code takes the mean of all elements, so it also divides
by the number of classes (`over_classes=True`; for a regression, by the number of whole numbers in
the label range). Under Adam this changes little: smaller gradients give its epsilon more weight,
and weights came out 0.3 % apart. Under SGD the rate is that many times smaller.
"""

from typing import TYPE_CHECKING

import jax.numpy as jnp

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


def check(setting: Setting) -> None:
    """Refuses options that make no sense.

    Raises:
      InputError: names them.
    """
    check_bins(setting)
    check_ranges("bad_teacher", setting.options, {"temperature": (1e-6, float("inf")),
                                                  "retain_share": (1e-6, 1)})


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """One pass over all of D_f and a share of D_r, mixed."""
    del epoch
    return (Pass("mixed", share=setting.options.retain_share),)


def prepare(setting: Setting, before: "Preparation") -> Prepared:
    """The good teacher is M_O; the bad one is a network with fresh weights."""
    del setting
    return Prepared(before.variables,
                    {"good": before.variables, "bad": before.initial("bad_teacher")})


def make_step(setting: Setting) -> Step:
    """A step of the student; the context holds the variables of both teachers."""
    model, loss, o = setting.model, setting.loss, setting.options

    def objective(params, batch_stats, batch, key, context):
        outputs, new_stats = model.apply({"params": params, "batch_stats": batch_stats},
                                         batch.images, train=True, key=key)
        good, bad = (teacher_logits(setting, context[name], batch.images)
                     for name in ("good", "bad"))
        target = jnp.where(batch.forget[:, None], bad, good)
        values = divergence(target, class_logits(outputs, setting), o.temperature)
        if o.over_classes:
            values /= target.shape[1]
        task = loss.per_sample(outputs, batch.labels)
        return (weighted_mean(values, batch.weights), weighted_mean(task, batch.weights),
                new_stats)

    return make_descent(model, setting.optimizer, objective)


METHOD = Method(
    make_step=make_step, passes=passes, prepare=prepare, check=check, shared_keys=("spread",),
    options=dict(temperature=1.0, retain_share=0.3, over_classes=False), later=("over_classes",),
    published=dict(epochs=(1,), optimizer="adam", learning_rate=1e-4, schedule="constant",
                   batch_size=256, weight_decay=0.0),
    source="Chundawat et al. 2023, arXiv:2205.08096, equation 2")
