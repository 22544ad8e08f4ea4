"""bfloat16 arithmetic beside float32: what BUILD.md says of `model.dtype`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unlearn_jax.config import default_config
from unlearn_jax.models import build_model
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.train import Batch, init_state, make_loss, make_train_step


def model(dtype):
    cfg = default_config().model
    with cfg.unlocked():
        cfg.name, cfg.stem, cfg.width, cfg.dtype = "resnet10", "small", 8, dtype
        cfg.head_widths, cfg.head_dropout = (), ()
    return build_model(cfg, 16, 0)


def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    return Batch(jnp.asarray(images), jnp.asarray(rng.uniform(20, 60, 32).astype(np.float32)),
                 jnp.arange(32), jnp.zeros(32, bool), jnp.ones(32), jnp.int32(0))


@pytest.fixture(scope="module")
def steps():
    """dtype -> (variables before, outputs, variables after a step of plain SGD at rate 1, loss)."""
    found = {}
    settings = OptimizerSettings("sgd", 1.0, "constant", 0.25, 0.0, 0.0)
    for dtype in ("float32", "bfloat16"):
        net, optimizer = model(dtype), make_optimizer(settings)
        variables = net.init(jax.random.key(0))
        step = jax.jit(make_train_step(net, optimizer, make_loss("mae", 40.0)))
        outputs = jax.jit(lambda v, x, net=net: net.apply(v, x, train=True)[0])(
            variables, batch().images)
        after, loss = step(jax.random.key(0), init_state(net, optimizer, variables), batch(),
                           jnp.float32(1))
        found[dtype] = variables, outputs, after.variables, loss
    return found


def test_state_and_outputs_stay_float32(steps):
    _, outputs, after, _ = steps["bfloat16"]
    assert outputs.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_outputs_differ_by_a_fraction_of_a_year(steps):
    exact, half = (np.asarray(steps[dtype][1]) for dtype in ("float32", "bfloat16"))
    assert np.ptp(exact) > 1  # years: the outputs are no constant
    difference = np.abs(exact - half)
    assert 0 < difference.mean() < 0.1 and difference.max() < 0.5


def test_a_step_goes_the_same_way(steps):
    def moved(dtype, part):
        before, _, after, _ = steps[dtype]
        return jnp.concatenate([(new - old).ravel() for old, new in zip(
            jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)])

    for part, bound in (("params", 0.3), ("batch_stats", 0.02)):
        exact, half = moved("float32", part), moved("bfloat16", part)
        distance = float(jnp.linalg.norm(exact - half) / jnp.linalg.norm(exact))
        assert 0 < distance < bound
        assert float(optax.losses.cosine_similarity(exact, half)) > 0.95
    losses = [float(steps[dtype][3]) for dtype in ("float32", "bfloat16")]
    assert abs(losses[0] - losses[1]) < 0.05  # years
