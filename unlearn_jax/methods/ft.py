"""Basic fine-tuning: continue training M_O on D_r.

Source: the reference study, section 3.2.1.
"""

from unlearn_jax.methods.method import Method, Setting
from unlearn_jax.train import Step, make_train_step


def make_step(setting: Setting) -> Step:
    """The supervised step, unchanged."""
    return make_train_step(setting.model, setting.optimizer, setting.loss)


METHOD = Method(start="original", walks_forget=False, make_step=make_step)
