"""Gaussian amnesiac learning: learns D_f with labels from the Gaussian of all training labels.

    minimise  L(D_r and D_f, labels of D_f ~ N(mean, sd of the training split's labels))

A label is drawn once for each row of the training data and stays for the whole run; it is neither
rounded nor clipped to the label range. Where `data.balance` makes augmented copies of a sample,
each copy is a row with a label of its own. The source draws one label for an image and augments
after that, so its copies agree. If the loss is the absolute error, the best output for such labels
is their median: D_f is pulled towards the middle of the training labels.

The source has no definition for classification. There, labels are drawn from the class frequencies
of the training split; like the Gaussian, they describe a label without its image.

Source: Tarun et al. 2022 (arXiv:2210.08196), Gaussian Amnesiac Learning, and its public code.
"""

import jax
import jax.numpy as jnp

from unlearn_jax.methods.method import LabelSpace, Method, Setting, over_all
from unlearn_jax.methods.rnd import with_forget_labels
from unlearn_jax.train import Step, make_train_step


def make_step(setting: Setting) -> Step:
    """The supervised step on relabelled batches."""
    train_step = make_train_step(setting.model, setting.optimizer, setting.loss)

    def draw(key, batch):
        return draw_marginal(key, batch.rows, setting.labels).astype(batch.labels.dtype)

    return with_forget_labels(train_step, draw)


def draw_marginal(key: jax.Array, rows: jax.Array, space: LabelSpace) -> jax.Array:
    """Labels as the training split has them, regardless of the samples.

    Args:
      key: key of the member.
      rows: `[B]` int32, the samples' rows; a row gets the same label wherever it stands.
      space: the label space, with its moments or frequencies.

    Returns:
      `[B]` labels: normal, label units, float32; or classes, int32.
    """
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
    if space.num_classes:
        logits = jnp.log(jnp.array(space.frequencies))
        return jax.vmap(lambda k: jax.random.categorical(k, logits))(keys)
    return space.mean + space.std * jax.vmap(jax.random.normal)(keys)


METHOD = Method(make_step=make_step, passes=over_all,
                source="Tarun et al. 2022, Gaussian Amnesiac",
                published=dict(epochs=(1,), optimizer="adam", learning_rate=1e-3,
                               schedule="constant", weight_decay=0.0, batch_size=256))
