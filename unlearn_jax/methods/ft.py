"""Basic fine-tuning: continue training M_O on D_r.

Source: the reference study, section 3.2.1.
"""

from unlearn_jax.methods.method import Method, Setting
from unlearn_jax.train import Step, make_train_step


def make_step(setting: Setting) -> Step:
    """The supervised step, unchanged."""
    return make_train_step(setting.model, setting.optimizer, setting.loss)


METHOD = Method(make_step=make_step, source="the reference study, section 3.2.1", published=dict(
    epochs=(2, 4, 8, 16), optimizer="adam", learning_rate=1e-5, schedule="constant",
    batch_size=32))
