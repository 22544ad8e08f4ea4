"""Do weights belong to a network? Networks that have settled on one kind of images, and another.

A network has settled when its running statistics are those of the images it saw, as after training.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_belonging import SIZE, config

from benchmarks import belonging
from unlearn_jax.models import build_model
from unlearn_jax.stages.belonging import alternatives, doubt_of

SEEDS = (0, 1)


@functools.cache
def network():
    return build_model(config(name="resnet10", stem="imagenet", width=8).model, SIZE, 0)


@functools.cache
def images(kind):
    return belonging.load(kind, SIZE).images[:128]


@functools.cache
def settled(kind, seed):
    """Random weights with the running statistics of the second half of the images."""
    model = network()
    variables = model.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)
        if jax.tree_util.keystr(path[-1:], simple=True) in ("scale", "bias") else x,
        variables["params"])
    variables = {**variables, "params": params}
    update = jax.jit(lambda v: {**v, "batch_stats": model.apply(v, images(kind)[64:],
                                                               train=True)[1]})
    for _ in range(60):
        variables = update(variables)
    return jax.device_get(variables)


@pytest.mark.parametrize("seen, other", [("faces", "digits"), ("digits", "faces")])
def test_right_weights_are_not_doubted_on_images_of_another_kind(seen, other):
    for seed in SEEDS:
        assert doubt_of(network(), settled(seen, seed), images(other)[:64]) == ""


@pytest.mark.parametrize("kind", ["faces", "digits"])
def test_wrong_pool_and_preprocess_are_named_on_images_of_the_kind(kind):
    model, variables, fresh = network(), settled(kind, 0), images(kind)[:64]
    assert doubt_of(model, variables, fresh) == ""
    for words, wrong in alternatives(model).items():
        right = next(w for w, m in alternatives(wrong).items() if m == model)
        assert f"network with {right}:" in doubt_of(wrong, variables, fresh), words
