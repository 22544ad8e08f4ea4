"""Class probabilities for both tasks, and the divergence of two models' probabilities.

A classifier's logits are its outputs. A regression's output is one number ŷ, without probabilities
of other labels. Here a Gaussian around ŷ takes their place. Its standard deviation σ is
`config.unlearn.spread` (label units). It is evaluated at the whole numbers c_k of the label range
(labels that are not years: at the ends of the range and 39 points between, units.py) and normalised
over them: p_k ∝ exp(-(c_k - ŷ)² / 2σ²). With m the middle of the range, its logits of mean zero are

    z_k = ((c_k - m)(ŷ - m) - ((c_k - m)² - mean_j (c_j - m)²) / 2) / σ²

They are linear in ŷ. A temperature T widens the Gaussian to σ√T. KL(p ‖ q) grows with the ŷ of q at
the rate (E_q[c] - E_p[c]) / σ²T, which is finite at the ends of the range and beyond. The Gaussian
around m is nearest to equal probabilities.

So σ also weighs the distillation against the loss of the labels. The slope of that loss by the
normalised output is 1 under the absolute error. Take labels from 20 to 60, σ = 5, student and
teacher 5 years apart and an output scale of 40. Then the slope of KL at T = 5 is 0.7 at the ends of
the range and 1.1 in its middle (`reset` has it twice); the slope of T² KL at T = 4 is 14 and 25
(`scrub`). At scale 60 the slopes are 1.5 times as large.
"""

import jax
import jax.numpy as jnp

from unlearn_jax.errors import InputError
from unlearn_jax.methods.method import Setting
from unlearn_jax.models import Variables


def class_logits(outputs: jax.Array, setting: Setting) -> jax.Array:
    """Logits of a model's outputs.

    Args:
      outputs: `[B, K]` logits (classification), which are returned as they are, or `[B]` label
        units (regression).
      setting: holds the task, the label range and the spread.

    Returns:
      `[B, K]`, K classes or `LabelSpace.values`.

    Raises:
      ValueError: outputs of another shape.
    """
    labels = setting.labels
    if labels.num_classes:
        if outputs.ndim != 2 or outputs.shape[1] != labels.num_classes:
            raise ValueError(f"outputs have shape {outputs.shape}; {labels.num_classes} classes "
                             f"have [B, {labels.num_classes}]")
        return outputs
    if outputs.ndim != 1:
        raise ValueError(f"outputs have shape {outputs.shape}; a regression's have [B]")
    values = labels.values
    middle = (values[0] + values[-1]) / 2
    offsets = jnp.asarray(values - middle, jnp.float32)
    curve = (jnp.square(offsets) - jnp.mean(jnp.square(offsets))) / 2
    lines = (outputs - middle)[:, None] * offsets[None]
    return (lines - curve[None]) / setting.config.spread**2


def teacher_logits(setting: Setting, teacher: Variables, images: jax.Array) -> jax.Array:
    """Logits `[B, K]` of a model that does not learn, with running statistics and no gradient."""
    outputs, _ = setting.model.apply(teacher, images, train=False)
    return jax.lax.stop_gradient(class_logits(outputs, setting))


def check_bins(setting: Setting) -> None:
    """Refuses a label range that holds fewer than two whole numbers.

    Raises:
      InputError: names the range.
    """
    values = setting.labels.values
    if not setting.labels.num_classes and len(values) < 2:
        held = f"the whole number {values[0]} alone" if len(values) else "no whole number"
        raise InputError(f"config.data.label_min={setting.labels.low:g} and "
                         f"label_max={setting.labels.high:g} hold {held}; class probabilities of "
                         "a regression of years need two or more")


def divergence(target: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """KL(p ‖ q) of softened probabilities, p = softmax(target / T), q = softmax(logits / T).

    Source: Hinton et al. 2015 (arXiv:1503.02531), without the factor T².

    Args:
      target: `[B, K]` logits, the teacher's as a rule; zeros stand for equal probabilities.
      logits: `[B, K]`, the student's.
      temperature: T, above 0.

    Returns:
      `[B]` nats.
    """
    log_p, log_q = _log_probabilities(target, logits, temperature)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def soft_cross_entropy(target: jax.Array, logits: jax.Array,
                       temperature: float = 1.0) -> jax.Array:
    """-sum_k p_k log q_k `[B]`, in nats, of the same probabilities as in `divergence`."""
    log_p, log_q = _log_probabilities(target, logits, temperature)
    return -jnp.sum(jnp.exp(log_p) * log_q, axis=1)


def _log_probabilities(target, logits, temperature) -> tuple[jax.Array, jax.Array]:
    if target.shape != logits.shape or logits.ndim != 2:
        raise ValueError(f"target {target.shape} and logits {logits.shape}; both are to be [B, K]")
    return jax.nn.log_softmax(target / temperature), jax.nn.log_softmax(logits / temperature)
