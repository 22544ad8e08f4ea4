"""Networks of one's own: what the program finds in them, and how it says what is wrong."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from unlearn_jax.config import check_config, default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.models import build_model, network_parts, slowest_norm

FILE = Path(__file__).with_name("own_networks.py")
SIZE, CLASSES = 8, 3
# The tests compile much and compute little.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0,
                                                   "xla_llvm_disable_expensive_passes": True})


def config(name, **changes):
    c = default_config()
    with c.unlocked():
        c.data.image_size = SIZE
        c.model.update({"name": f"{FILE}:{name}"} | changes)
    return c


@functools.cache
def model(name, classes=CLASSES, frozen=()):
    return build_model(config(name, frozen=frozen).model, SIZE, classes)


@functools.cache
def variables(name, classes=CLASSES):
    return jit(model(name, classes).init)(jax.random.key(1))


def images(count=4, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3))
    return jnp.asarray(pixels, jnp.uint8)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def test_a_network_computes_what_flax_computes():
    own, v = model("Cnn"), variables("Cnn")
    x = images().astype(jnp.float32) / 127.5 - 1
    key = jax.random.key(2)
    plain, updates = jit(lambda v, x: own.module.inner.apply(
        v, x, True, rngs={"dropout": key}, mutable=["batch_stats"]))(v, x)
    outputs, statistics = jit(functools.partial(own.apply, train=True, key=key))(v, images())
    np.testing.assert_allclose(outputs, plain, rtol=1e-3, atol=1e-4)
    for path, leaf in flat(updates["batch_stats"]).items():
        np.testing.assert_allclose(flat(statistics)[path], leaf, rtol=1e-3, atol=1e-4)
    one = model("Cnn", 0)
    z = jit(lambda v, x: one.module.inner.apply(v, x, False))(variables("Cnn", 0), x)
    years, _ = jit(functools.partial(one.apply, train=False))(variables("Cnn", 0), images())
    np.testing.assert_allclose(years, 20 + 40 / (1 + np.exp(-z[:, 0])), rtol=1e-4)


def test_members_and_samples_equal_singles_with_one_convolution_each():
    own = model("Cnn")
    both = [jit(own.init)(jax.random.key(seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)

    def gradient(v, x):
        def total(params):
            outputs = own.apply({**v, "params": params}, x, train=False)[0]
            return jnp.sum(jnp.sin(outputs))
        return jax.grad(total)(v["params"])

    # members outside, samples inside, as methods take importances
    each = jax.vmap(jax.vmap(lambda v, x: gradient(v, x[None]), (None, 0)))
    found = jit(each)(stacked, jnp.stack([images(3), images(3, 1)]))
    single = jit(gradient)
    for m, x in enumerate((images(3), images(3, 1))):
        for s in range(3):
            expected = flat(single(both[m], x[s:s + 1]))
            for path, leaf in flat(found).items():
                np.testing.assert_allclose(leaf[m, s], expected[path], rtol=1e-3, atol=1e-5)
    text = str(jax.make_jaxpr(jax.vmap(lambda v, x: own.apply(v, x, train=False)[0]))(
        stacked, jnp.stack([images(3), images(3, 1)])))
    # None of the members' convolutions became one with groups for all of them.
    assert "feature_group_count=8" not in text and "feature_group_count=16" not in text
    assert "feature_group_count=2" in text and "feature_group_count=4" not in text


def test_what_is_found_in_a_convolutional_network():
    own = model("Cnn")
    assert own.stages == ("norm", "Conv_1")
    assert own.ends == ("first", "last")
    assert [own.norm_of(n) for n in ("first", "Conv_0", "Conv_1")] == ["norm", "GroupNorm_0", ""]
    assert own.layers == ("first", "norm", "Conv_0", "GroupNorm_0", "Conv_1", "last")
    assert slowest_norm(config("Cnn").model, SIZE) == 0.99
    _, _, found = jit(functools.partial(own.features, train=False))(variables("Cnn"), images())
    assert found["first"].shape == (4, 8, 8, 8) and found["Conv_1"].shape == (4, 4, 4, 8)
    np.testing.assert_array_equal(found["first"], found["norm"])


def test_what_is_found_in_a_transformer():
    own, v = model("Tokens"), variables("Tokens")
    assert v["batch_stats"] == {} and slowest_norm(config("Tokens").model, SIZE) == 0
    # Behind the last block the class token alone counts; without one all tokens do.
    assert own.stages == ("Block_0",) and model("mean_tokens").stages == ("Block_0", "Block_1")
    assert own.ends == ("Conv_0", "Dense_0")
    assert set(own.norm_of(n) for n in ("Conv_0", "Block_1/Dense_0")) == {""}
    _, _, found = jit(functools.partial(own.features, train=False))(v, images())
    assert found["Block_0"].shape == (4, 2, 2, 8)
    assert found["Block_1/Dense_0"].shape == (4, 2, 2, 16)


@pytest.mark.parametrize("name", ["Cnn", "Tokens", "mean_tokens"])
def test_a_shift_moves_the_outputs_as_its_gradient_says(name):
    own, v = model(name), variables(name)
    layer = own.stages[-1]

    def outputs(shift):
        found, features = own.shifted(v, images(), {layer: shift})
        return found.sum(), features[layer]

    shape = jax.eval_shape(lambda: own.features(v, images(), train=False)[2][layer]).shape
    run = jit(jax.value_and_grad(outputs, has_aux=True))
    (before, maps), gradient = run(jnp.zeros(shape))
    assert float(jnp.abs(gradient).max()) > 0
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    (after, moved), _ = run(step)
    np.testing.assert_allclose(moved - maps, step, atol=1e-5)
    np.testing.assert_allclose(after - before, 1e-2 * jnp.linalg.norm(gradient), rtol=0.1)


def test_frozen_norms_stay_and_frozen_patterns_must_match():
    own = model("Cnn", frozen=("^first", "^norm"))
    _, statistics = jit(functools.partial(own.apply, train=True, key=jax.random.key(0)))(
        variables("Cnn"), images())
    for path, leaf in flat(variables("Cnn")["batch_stats"]).items():
        np.testing.assert_array_equal(flat(statistics)[path], leaf)
    trains = flat(own.trainable(variables("Cnn")["params"]))
    assert {p for p, free in trains.items() if not free} == {"first/kernel", "norm/scale",
                                                             "norm/bias"}
    with pytest.raises(ConfigError, match="'stage' matches no parameter"):
        model("Cnn", frozen=("stage",))


def test_a_network_is_the_same_while_its_file_is(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE.read_text())
    c = config("Cnn")
    with c.unlocked():
        c.model.name = f"{file}:Cnn"
    first = build_model(c.model, SIZE, CLASSES)
    assert first == build_model(c.model, SIZE, CLASSES)
    parts = network_parts(c.model.name)
    assert parts["name"] == "mine-Cnn" and network_parts("resnet10") == {}
    file.write_text(FILE.read_text() + "\n# changed\n")
    assert network_parts(c.model.name)["code"] != parts["code"]
    assert build_model(c.model, SIZE, CLASSES) != first


@pytest.mark.parametrize("name, words", [
    ("missing", "the file has no 'missing'; its networks: Cnn, Block, Tokens, Dense, Wrong"),
    ("NUMBER", "which is int 3; allowed: a callable (num_outputs) -> flax.linen.Module"),
    ("no_module", "which returns list; allowed: a callable"),
    ("no_argument", "a call with num_outputs=1 raises TypeError"),
    ("NoTrain", "its initialisation raises TypeError"),
    ("shape", "train=False) maps images [2, 8, 8, 3] to float32 [2, 2]; allowed: floats [2, 1]"),
    ("pair", "to tuple; allowed"),
    ("cache", "variables in the collections 'cache'; allowed: 'params', 'batch_stats'"),
    ("python", "so it keeps state in Python; allowed: state in self.variable('batch_stats'"),
    ("attribute", "raises SetAttributeFrozenModuleError (line"),
    ("half", "Dense_0/bias is bfloat16; allowed: float32"),
    ("statistics", "training changes the shapes or types of its batch statistics"),
    ("listed", "a field of the module cannot be hashed"),
])
def test_what_cannot_be_used_is_said_before_any_training(name, words):
    with pytest.raises(ConfigError, match="config.model.name is") as e:
        check_config(config(name))
    assert words in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("request_, words", [
    ("nowhere.py:Cnn", "No such file"),
    ("resnet34", "allowed: one of 'resnet4', 'resnet10'"),
])
def test_a_request_for_nothing_is_refused(request_, words):
    c = config("Cnn")
    with c.unlocked():
        c.model.name = request_
    with pytest.raises(ConfigError, match="config.model.name is") as e:
        check_config(c)
    assert words in str(e.value)


@pytest.mark.parametrize("key, value, words", [
    ("model.head_widths", (8,), "config.model.head_widths is (8,), which the network"),
    ("model.dtype", "bfloat16", "does not read; allowed: 'float32'"),
    ("eval.explain_samples", 4, "has no feature maps [B, s, s, C] and no tokens"),
    ("eval.explain_stage", 1, "allowed: 0 (the last) to 0, the stages of"),
    ("train.recalibrate_norms", "on", "has no batch norms"),
])
def test_keys_that_mean_nothing_to_a_network_are_refused(key, value, words):
    c = config("Dense")
    section, name = key.split(".")
    with c.unlocked():
        c[section][name] = value
        if name == "head_widths":
            c.model.head_dropout = (0.5,)
    with pytest.raises(ConfigError) as e:
        check_config(c)
    assert words in str(e.value)


def test_a_module_of_ones_own_may_hold_its_convolution():
    """A convolution that the user chose stays; only plain ones are replaced."""
    used = []

    def mine(*args, **kwargs):
        used.append(1)
        return jax.lax.conv_general_dilated(*args, **kwargs)

    from unlearn_jax.networks.member_layers import member_layers
    layer = nn.Conv(2, (3, 3), conv_general_dilated=mine)
    with member_layers():
        jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3))))
    assert used and layer.conv_general_dilated is mine


def test_a_check_starts_no_device():
    code = (f"from unlearn_jax.config import check_config, default_config; c = default_config(); "
            f"c.model.name = '{FILE}:Cnn'; c.model.frozen = ('norm',); check_config(c); "
            f"c.model.frozen = (); c.model.name = '{FILE}:Tokens'; "
            "check_config(c); import jax; jax.config.update('jax_num_cpu_devices', 2); "
            "print(jax.device_count())")
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=FILE.parent.parent, env=env,
                          capture_output=True, text=True)
    assert done.stdout.strip() == "2", done.stderr[-2000:]
