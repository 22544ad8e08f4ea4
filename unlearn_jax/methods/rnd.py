"""Random labels: continues training M_O on D_r and D_f, with random labels on D_f.

Source: the reference study, section 3.2.2. Labels are redrawn at each epoch, for each row of the
training data: augmented copies of a sample (`data.balance`) have labels of their own. Two draws:

* `uniform`: a whole number from the label range (regression) or a class (classification);
* `offset`: the true label plus or minus a whole number of label units from
  `unlearn.offset`, clipped to the label range (regression only).

Whole numbers are years; for labels in another unit they count fortieths of the label range
(units.py). Under the absolute error `offset` forgets next to nothing. Between the true label and
the smallest offset, as many labels lie above a prediction as below, so the mean loss is flat;
beyond that, its slope leads back to this range.

`unlearn.label_units='as_published'` repeats the unit error of the study's published code:
the true label is normalised (divided by the output scale), but the offset and the clip to the label
range are not. So the target of the network's normalised output is 20 or more, and the output
saturates at its largest value.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from unlearn_jax.errors import InputError
from unlearn_jax.methods.method import LabelSpace, Method, Setting, over_all
from unlearn_jax.train import Batch, Step, make_train_step
from unlearn_jax.units import offset_steps


def check(setting: Setting) -> None:
    """Refuses a draw or a unit that is not defined for classes.

    Raises:
      InputError: names them.
    """
    cfg = setting.config
    if setting.labels.num_classes and (cfg.labels, cfg.label_units) != ("uniform", "years"):
        raise InputError(
            f"config.unlearn.labels={cfg.labels!r} with label_units={cfg.label_units!r} needs "
            "data.task='regression'; classes allow 'uniform' with 'years'")


def make_step(setting: Setting) -> Step:
    """The supervised step on relabelled batches."""
    return relabelled(make_train_step(setting.model, setting.optimizer, setting.loss), setting)


def relabelled(train_step: Step, setting: Setting, exclude_true: bool = False) -> Step:
    """A step on batches with random labels on D_f, drawn anew each epoch.

    Args:
      train_step, setting: step and inputs of the method.
      exclude_true: whether uniform draws leave out the true label.
    """

    def draw(key, batch):
        # Within an epoch a sample's draw does not depend on its batch.
        return draw_labels(jax.random.fold_in(key, batch.epoch), batch.rows, batch.labels,
                           setting.labels, setting.config, exclude_true)

    return with_forget_labels(train_step, draw)


def with_forget_labels(train_step: Step, draw: Callable[[jax.Array, Batch], jax.Array]) -> Step:
    """A step on batches with other labels on D_f.

    Args:
      train_step: step of any method.
      draw: a function of a key, which is the same at every step of a member, and a batch; returns
        the labels `[B]`.
    """

    @functools.wraps(train_step)
    def step(key, state, batch, learning_rate, context=None):
        key_labels, key_train = jax.random.split(key)
        labels = jnp.where(batch.forget, draw(key_labels, batch), batch.labels)
        return train_step(key_train, state, dataclasses.replace(batch, labels=labels),
                          learning_rate, context)

    return step


def draw_labels(key: jax.Array, rows: jax.Array, labels: jax.Array, space: LabelSpace,
                cfg: ml_collections.ConfigDict, exclude_true: bool = False) -> jax.Array:
    """Random labels for samples.

    Args:
      key: key of the member and the epoch.
      rows: `[B]` int32, the samples' rows; a row gets the same label wherever it stands.
      labels: `[B]` true labels, label units or classes.
      space: the label space.
      cfg: the section `unlearn` of the config.
      exclude_true: whether uniform draws leave out the true label; in regression, the value
        nearest to it. It needs two labels to draw from.

    Returns:
      `[B]` labels in the type and unit of `labels`.
    """
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)

    def uniform(count: int, true: jax.Array) -> jax.Array:
        """Draws from the numbers below `count`, without the true one if it is excluded."""
        drawn = jax.vmap(lambda k: jax.random.randint(k, (), 0, count - exclude_true))(keys)
        return drawn + (drawn >= true) if exclude_true else drawn

    if space.num_classes:
        return uniform(space.num_classes, labels)
    as_published = cfg.label_units == "as_published"
    if cfg.labels == "uniform":
        values = jnp.asarray(space.values, labels.dtype)
        nearest = jnp.argmin(jnp.abs(values[None] - labels[:, None]), axis=1)
        drawn = values[uniform(len(values), nearest)]
    else:
        steps = offset_steps(cfg.offset, space.step)

        def offset(k):
            key_size, key_sign = jax.random.split(k)
            size = space.step * jax.random.randint(key_size, (), steps.start, steps.stop)
            return jnp.where(jax.random.bernoulli(key_sign), size, -size)

        base = labels / space.scale if as_published else labels
        drawn = jnp.clip(base + jax.vmap(offset)(keys), space.low, space.high)
    # A number of years that is used as a normalised label means scale times as many years.
    return drawn * space.scale if as_published else drawn


METHOD = Method(make_step=make_step, passes=over_all, check=check,
                shared_keys=("labels", "offset", "label_units"),
                source="the reference study, section 3.2.2", published=dict(
                    epochs=(2, 4, 8, 16), optimizer="adam", learning_rate=1e-5,
                    schedule="constant", batch_size=32))
