"""The NNX module that docs/networks.md has written out, as its reader would use it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from methods_case import CLASSES, SIZE, make_setting, walk

from unlearn_jax.config import check_config, default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS
from unlearn_jax.models import build_model

PAGE = Path(__file__).parent.parent / "docs" / "networks.md"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    _, code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(code.replace("16", "4") + """

class Dropping(Net):
    def __init__(self, num_outputs, rngs):
        super().__init__(num_outputs, rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train):
        return self.drop(super().__call__(x, train), deterministic=not train)


def dropping(num_outputs):
    return nnx.bridge.to_linen(Dropping, num_outputs)
""")
    return path


def config(name, **changes):
    c = default_config()
    with c.unlocked():
        c.model.name = name
        c.data.image_size = SIZE
        c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def model(file):
    return build_model(config(f"{file}:make").model, SIZE, CLASSES)


def test_it_trains_members_and_each_has_a_convolution_of_its_own(file, model):
    made = make_setting("ft", "classification")
    setting = type(made)(model, made.optimizer, made.loss, made.labels, made.config, made.options,
                         made.train)
    walked = walk(setting, per_device=2)
    assert not walked.trained.snapshots[1].failed.any()
    start, after = (t["params"]["conv"]["kernel"] for t in (walked.start, walked.after))
    assert start.shape == (2, 3, 3, 3, 4) and np.isfinite(after).all() and (start != after).any()
    images = jnp.zeros((2, 3, SIZE, SIZE, 3), jnp.uint8)
    text = str(jax.make_jaxpr(jax.vmap(lambda v, x: model.apply(v, x, train=False)[0]))(
        walked.start, images))
    assert "feature_group_count=1" in text and "feature_group_count=2" not in text


def test_it_computes_what_nnx_computes(file, model):
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    found, _ = model.apply(variables, images, train=False)
    p, s = variables["params"], variables["batch_stats"]["norm"]
    conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
    conv.kernel[...], conv.bias[...] = p["conv"]["kernel"], p["conv"]["bias"]
    x = conv(images.astype(np.float32) / 127.5 - 1)
    x = (x - s["mean"].reshape(1, 1, 1, -1)) / np.sqrt(s["var"].reshape(1, 1, 1, -1) + 1e-5)
    x = np.maximum(np.asarray(x), 0).mean((1, 2))
    np.testing.assert_allclose(found, x @ p["out"]["kernel"] + p["out"]["bias"], rtol=1e-4,
                               atol=1e-5)


def test_what_needs_its_parts_is_refused_in_words(file, model):
    name = f"{file}:make"
    check_config(config(name))
    with pytest.raises(ConfigError, match="has no feature maps"):
        check_config(config(name, **{"eval.explain_samples": 4}))
    for method, words in (("reset", "allowed: layers of the model, conv, norm, out"),
                          ("activation", "needs at least one convolution"),
                          ("gradmask", "needs at least one convolution")):
        made = make_setting(method, "classification")
        setting = type(made)(model, made.optimizer, made.loss, made.labels, made.config,
                             made.options, made.train)
        with pytest.raises(ConfigError) as e:
            METHODS[method].check(setting)
        assert words in str(e.value)


def test_dropout_draws_from_the_members_stream(file):
    model = build_model(config(f"{file}:dropping").model, SIZE, 8)
    variables = model.init(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3)).astype(np.uint8)
    run = jax.jit(lambda key: model.apply(variables, images, train=True, key=key)[0])
    first, again, other = (np.asarray(run(jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert ((first == 0) != (other == 0)).any()
    assert (np.asarray(model.apply(variables, images, train=False)[0]) != 0).all()
