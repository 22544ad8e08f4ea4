"""One step of a small ResNet, pinned: a change of these numbers changes every result."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.config import default_config
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.models import build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.train import Batch, init_state, make_loss, make_train_step

MESSAGE = ("the first training step gives other numbers than when this test was written; if that "
           "is meant (initialisation, data, augmentation, loss, optimiser), write the new ones "
           "here and raise stages.graph._NUMBERS, so that no store mixes models of both")


def test_one_step_of_adam():
    c = default_config()
    with c.unlocked():
        c.model.update(name="resnet4", width=4, stem="small")
    data = load_synthetic(8, 16, 0, 2.0)
    model = build_model(c.model, 16, 0)
    optimizer = make_optimizer(OptimizerSettings.from_config(c.train))
    step = make_train_step(model, optimizer, make_loss("mae", 40.0))
    batch = Batch(jnp.asarray(data.images), jnp.asarray(data.labels), jnp.arange(8),
                  jnp.zeros(8, bool), jnp.ones(8), jnp.int32(0))

    @jax.jit
    def two_steps(key):
        state = init_state(model, optimizer, model.init(key))
        state, first = step(key, state, batch, 1e-2)
        _, second = step(key, state, batch, 1e-2)
        return first, second

    losses = [float(x) for x in two_steps(jax.random.key(0))]
    np.testing.assert_allclose(losses, [19.378946, 18.206099], rtol=1e-4, err_msg=MESSAGE)
