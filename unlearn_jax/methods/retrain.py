"""Retraining: trains from the same start on D_r. It is the reference for every method.

Source: the reference study, section 2.1.
"""

from unlearn_jax.methods.method import Method, Setting
from unlearn_jax.train import Step, make_train_step


def make_step(setting: Setting) -> Step:
    """The supervised step, unchanged."""
    return make_train_step(setting.model, setting.optimizer, setting.loss)


METHOD = Method(start="initial", make_step=make_step, source="the reference study, section 2.1")
