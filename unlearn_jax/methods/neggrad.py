"""Gradient ascent: raises the loss on D_f and uses no other samples.

    minimise  -L(D_f)

The loss has no upper bound in classification and in regression with a linear output: a rate that
is too high, or too many epochs, make the network wrong everywhere.

As in the public code, the running statistics of batch norm follow the batches, which hold only
D_f. If D_f looks unlike the rest (a class, an age group), this alone spoils the network for all
other samples. `forget_statistics=False` keeps the statistics of M_O.

Source: NegGrad in Kurmanji et al. 2023 (arXiv:2302.09880), where it is a baseline; values from the
public code of Jia et al. 2023 (`GA`).
"""

from unlearn_jax import train
from unlearn_jax.members import Pass
from unlearn_jax.methods.method import Method, Setting


def make_step(setting: Setting) -> train.Step:
    """The supervised step uphill; it reports the loss on D_f, not its negative."""
    plain = train.supervised(setting.model, setting.loss)

    def ascent(params, batch_stats, batch, key, context):
        value, reported, new_stats = plain(params, batch_stats, batch, key, context)
        kept = new_stats if setting.options.forget_statistics else batch_stats
        return -value, reported, kept

    return train.make_step(setting.model, setting.optimizer, ascent)


def passes(setting: Setting, epoch: int) -> tuple[Pass, ...]:
    """Each epoch is one pass over D_f."""
    del setting, epoch
    return (Pass("forget"),)


METHOD = Method(make_step=make_step, passes=passes, options=dict(forget_statistics=True),
                source="Kurmanji et al. 2023, NegGrad",
                published=dict(epochs=(5,), optimizer="sgd", learning_rate=1e-4,
                               schedule="constant", momentum=0.9, weight_decay=5e-4,
                               batch_size=256))
