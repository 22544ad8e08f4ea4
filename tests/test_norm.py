import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from toy import layout, tree_close

from unlearn_jax import native
from unlearn_jax.config import default_config
from unlearn_jax.models import build_model
from unlearn_jax.networks import norm
from unlearn_jax.system import target

KEY = jax.random.key(0)
EPSILON = 1e-3


def batch(dtype="float32", shape=(6, 5, 4, 3)):
    """Images, gradient of the output, scale and bias; channels of unlike means and widths."""
    keys = jax.random.split(KEY, 4)
    channel = jnp.arange(3.0).reshape((1,) * (len(shape) - 1) + (3,))
    x = 3.0 * jax.random.normal(keys[0], shape) * (1 + channel) + channel
    return (x.astype(dtype), jax.random.normal(keys[1], shape).astype(dtype),
            1 + jax.random.normal(keys[2], (3,)), jax.random.normal(keys[3], (3,)))


def flax_norm(x, scale, bias):
    """As Flax computes it, in the type of x."""
    module = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=EPSILON, dtype=x.dtype)
    y, updates = module.apply({
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": jnp.zeros(3), "var": jnp.zeros(3)}}, x, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def ours(x, scale, bias, threads=0):
    return norm.batch_norm(x, scale, bias, EPSILON, threads)[0]


THREADS = [0, pytest.param(2, marks=pytest.mark.skipif(bool(native.unavailable()),
                                                       reason=native.unavailable()))]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_values_and_gradients_are_those_of_flax(dtype, rtol, threads):
    x, dy, scale, bias = batch(dtype)
    y, pull = jax.vjp(functools.partial(ours, threads=threads), x, scale, bias)
    expected, pull_flax = jax.vjp(lambda *a: flax_norm(*a)[0], x, scale, bias)
    assert y.dtype == expected.dtype == x.dtype
    tolerance = rtol if threads else 0  # the sums are taken in another order
    np.testing.assert_allclose(y.astype("float32"), expected.astype("float32"), rtol=tolerance,
                               atol=tolerance)
    for found, theirs in zip(pull(dy), pull_flax(dy)):
        assert found.dtype == theirs.dtype
        np.testing.assert_allclose(found.astype("float32"), theirs.astype("float32"), rtol=rtol,
                                   atol=rtol * float(jnp.abs(theirs.astype("float32")).max()))


@pytest.mark.parametrize("threads", THREADS)
def test_a_gradient_through_the_statistics_arrives(threads):
    x, _, scale, bias = batch()

    def through(x, mean_and_var):
        mean, var = mean_and_var(x)
        return jnp.sum(mean * jnp.arange(3.0) + jnp.square(var))

    found = jax.grad(through)(x, lambda x: norm.batch_norm(x, scale, bias, EPSILON, threads)[1:])
    expected = jax.grad(through)(x, lambda x: (x.mean((0, 1, 2)), x.var((0, 1, 2))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", THREADS)
def test_members_and_samples_may_be_mapped(threads):
    x, dy, scale, bias = batch(shape=(2, 6, 5, 4, 3))
    scales, biases = jnp.stack([scale, 2 * scale]), jnp.stack([bias, -bias])

    def grads(x, dy, scale, bias):
        return jax.vjp(functools.partial(ours, threads=threads), x, scale, bias)[1](dy)

    together = jax.jit(jax.vmap(grads))(x, dy, scales, biases)
    tree_close(together, jax.tree.map(lambda *a: jnp.stack(a), *(
        grads(x[m], dy[m], scales[m], biases[m]) for m in (0, 1))), rtol=1e-5, atol=1e-5)
    shared = jax.vmap(grads, (0, 0, None, None))(x, dy, scale, bias)
    assert shared[1].shape == (2, 3)


def network(dtype="float32", frozen=()):
    cfg = default_config().model
    with cfg.unlocked():
        cfg.update(name="resnet4", width=4, stem="small", dtype=dtype, frozen=frozen)
    return build_model(cfg, 8, 0)


def loss_of(model, variables, images):
    def loss(params):
        outputs, stats = model.apply({**variables, "params": params}, images, train=True)
        return jnp.sum(jnp.sin(outputs)), stats

    return loss


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-4), ("bfloat16", 0.1)])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["plain", "remat"])
def test_a_network_for_a_gpu_has_the_variables_and_values_of_one_for_a_cpu(dtype, rtol, wrap):
    model = network(dtype)
    images = jax.random.randint(KEY, (5, 8, 8, 3), 0, 256).astype(jnp.uint8)
    variables = model.init(KEY)

    def both(name):
        with target.tracing_for(name):
            shapes = model.shapes()
            loss = wrap(loss_of(model, variables, images))
            return shapes, jax.jit(jax.grad(lambda p: loss(p), has_aux=True))(variables["params"])

    (shapes, (grads, stats)), (flax_shapes, (flax_grads, flax_stats)) = both("gpu"), both("cpu")
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, flax_shapes)
    tree_close(stats, flax_stats, rtol=1e-5 if dtype == "float32" else rtol, atol=1e-6)
    for found, expected in zip(jax.tree.leaves(grads), jax.tree.leaves(flax_grads)):
        distance = np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-6)
        assert distance < rtol


def test_frozen_norms_keep_their_statistics_on_a_gpu():
    model = network(frozen=("stem_norm",))
    variables = model.init(KEY)
    images = jax.random.randint(KEY, (5, 8, 8, 3), 0, 256).astype(jnp.uint8)
    with target.tracing_for("gpu"):
        _, stats = loss_of(model, variables, images)(variables["params"])
        outputs, same = model.apply(variables, images, train=False)
    tree_close(stats["stem_norm"], variables["batch_stats"]["stem_norm"], rtol=0)
    assert not np.allclose(stats["stage1_block1"]["norm1"]["mean"],
                           variables["batch_stats"]["stage1_block1"]["norm1"]["mean"])
    np.testing.assert_array_equal(outputs, model.apply(variables, images, train=False)[0])
    tree_close(same, variables["batch_stats"], rtol=0)


def test_a_layout_says_which_platform_it_traces_for():
    seen = []

    def fun(x):
        seen.append(target.platform())
        return x

    with target.tracing_for("gpu"):
        layout().vmap_jit(fun, (0,))(np.zeros((3, 1), np.float32))
        assert target.platform() == "gpu"
    assert seen == ["cpu"] and target.platform() == jax.default_backend()
