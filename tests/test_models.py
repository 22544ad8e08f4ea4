import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from unlearn_jax.config import ConfigError, default_config
from unlearn_jax.models import build_model

SIZE = 16


def config(**changes):
    cfg = default_config().model
    cfg.unlock()
    cfg.update(dict(width=4) | changes)
    return cfg


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def images(n, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3)).astype(np.uint8)


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def study():
    """A small network with the study's head."""
    model = build_model(config(head_widths=(8, 6), head_dropout=(0.5, 0.2)), SIZE, 0)
    variables = jax.jit(model.init)(jax.random.key(1))
    return model, variables, jax.jit(model.apply, static_argnames="train")


@pytest.mark.parametrize(
    ("name", "variant", "params", "statistics"),
    [
        # keras.applications: 25,636,712 with top, of which 53,120 are statistics
        ("resnet50", "keras", 25_636_712 - 53_120, 53_120),
        # torchvision's docs, with fc 1000
        ("resnet50", "torchvision", 25_557_032, 53_120),
        ("resnet50", "vggface2", 25_557_032, 53_120),
        ("resnet18", "torchvision", 11_689_512, 9_600),
    ],
)
def test_published_parameter_counts(name, variant, params, statistics):
    cfg = config(name=name, variant=variant, width=64, stem="imagenet")
    shapes = jax.eval_shape(build_model(cfg, 224, 1000).init, jax.random.key(0))
    count = {key: sum(x.size for x in jax.tree.leaves(tree)) for key, tree in shapes.items()}
    assert count == {"params": params, "batch_stats": statistics}
    if variant == "keras":  # ResNet50(include_top=False)
        assert params + statistics - (2048 + 1) * 1000 == 23_587_712


def test_parameter_names_are_stable(study):
    _, variables, _ = study
    block = {"conv1/kernel", "norm1/scale", "norm1/bias", "conv2/kernel", "norm2/scale",
             "norm2/bias"}
    shortcut = {"shortcut_conv/kernel", "shortcut_norm/scale", "shortcut_norm/bias"}
    expected = {"stem_conv/kernel", "stem_norm/scale", "stem_norm/bias"}
    expected |= {f"stage1_block1/{name}" for name in block}
    expected |= {f"stage{s}_block1/{name}" for s in (2, 3, 4) for name in block | shortcut}
    expected |= {f"{layer}/{leaf}" for layer in ("head_dense1", "head_dense2", "output")
                 for leaf in ("kernel", "bias")}
    assert set(flat(variables["params"])) == expected
    cfg = config(name="resnet50", variant="keras", projection=5)
    shapes = jax.eval_shape(build_model(cfg, SIZE, 3).init, jax.random.key(0))
    names = flat(shapes["params"])
    assert names["stage3_block6/conv3/bias"].shape == (64,)
    assert names["stage1_block1/shortcut_conv/kernel"].shape == (1, 1, 4, 16)
    assert names["projection/kernel"].shape == (128, 5)
    assert names["output/kernel"].shape == (5, 3)
    assert "stage1_block2/shortcut_conv/kernel" not in names


def test_initialisation_is_he_normal_fan_out():
    cfg = config(width=16)
    kernel = jax.jit(build_model(cfg, SIZE, 0).init)(jax.random.key(0))["params"]["stage4_block1"]
    kernel = np.asarray(kernel["conv1"]["kernel"])  # [3, 3, 64, 128]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    assert abs(kernel.mean()) < 1e-3


def test_output_is_offset_plus_scale_times_sigmoid_or_linear():
    outputs = {}
    for kind in ("sigmoid", "linear"):
        model = build_model(config(output=kind, output_scale=40.0, output_offset=20.0), SIZE, 0)
        variables = jax.jit(model.init)(jax.random.key(0))
        variables["params"]["output"]["kernel"] *= 0
        variables["params"]["output"]["bias"] += 0.75
        outputs[kind], _ = model.apply(variables, images(2), train=False)
        assert outputs[kind].shape == (2,) and outputs[kind].dtype == jnp.float32
    np.testing.assert_allclose(outputs["sigmoid"], 20 + 40 / (1 + np.exp(-0.75)), rtol=1e-6)
    np.testing.assert_allclose(outputs["linear"], 50.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "pixel"),
    [
        ("unit", [10 / 127.5 - 1, 20 / 127.5 - 1, 30 / 127.5 - 1]),
        ("caffe", [30 - 103.939, 20 - 116.779, 10 - 123.68]),
        ("vggface2", [30 - 91.4953, 20 - 103.8827, 10 - 131.0912]),
        ("torch", [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224,
                   (30 / 255 - 0.406) / 0.225]),
    ],
)
def test_preprocessing(kind, pixel):
    # The stem's 3x3 kernel passes input channel c through to output channel c.
    model = build_model(config(preprocess=kind, stem="small"), SIZE, 0)
    variables = jax.jit(model.init)(jax.random.key(0))
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1, range(3), range(3)] = 1
    variables["params"]["stem_conv"]["kernel"] = jnp.asarray(kernel)
    rgb = np.tile(np.array([10, 20, 30], np.uint8), (1, SIZE, SIZE, 1))
    _, state = model.module.apply(variables, rgb, train=False, mutable=["intermediates"],
                                  capture_intermediates=lambda m, _: m.name == "stem_conv")
    (out,) = jax.tree.leaves(state)
    np.testing.assert_allclose(out[0, 5, 5, :3], pixel, rtol=1e-5)
    floats, _ = model.apply(variables, rgb.astype(np.float32), train=False)
    np.testing.assert_array_equal(floats, model.apply(variables, rgb, train=False)[0])


def test_batch_norm_statistics_follow_the_batch():
    # momentum 0.9 keeps nine tenths of the old statistics (mean 0, variance 1)
    model = build_model(config(stem="small", preprocess="unit"), SIZE, 0)
    variables = jax.jit(model.init)(jax.random.key(0))
    batch = images(3)
    _, stats = model.apply(variables, batch, train=True)
    x = np.pad(batch / 127.5 - 1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(variables["params"]["stem_conv"]["kernel"])
    y = sum(x[:, i:i + SIZE, j:j + SIZE] @ kernel[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(stats["stem_norm"]["mean"], 0.1 * y.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stats["stem_norm"]["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


def test_dropout_needs_a_key_and_follows_it(study):
    model, variables, apply = study
    with pytest.raises(ValueError, match="needs a key.*0.5, 0.2"):
        model.apply(variables, images(2), train=True)
    a, _ = apply(variables, images(2), train=True, key=jax.random.key(1))
    b, _ = apply(variables, images(2), train=True, key=jax.random.key(1))
    c, _ = apply(variables, images(2), train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)
    d, stats = apply(variables, images(2), train=False, key=jax.random.key(2))
    np.testing.assert_array_equal(d, apply(variables, images(2), train=False)[0])
    assert_trees_equal(stats, variables["batch_stats"])


def test_members_equal_a_loop_of_singles(study):
    model, _, apply = study
    keys = jax.random.split(jax.random.key(3), 3)
    batch = np.stack([images(4, seed) for seed in range(3)])
    variables = jax.jit(jax.vmap(model.init))(keys)

    def value_and_step(variables, batch, key):
        def loss(params):
            outputs, stats = model.apply({**variables, "params": params}, batch, train=True,
                                         key=key)
            return jnp.mean(outputs), (outputs, stats)
        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (_, (outputs, stats)), grads = jax.jit(jax.vmap(value_and_step))(variables, batch, keys)
    assert outputs.shape == (3, 4)
    for m in range(3):
        single = jax.jit(model.init)(keys[m])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[m], b, atol=1e-6),
                     variables, single)
        expected, expected_stats = apply(single, batch[m], train=True, key=keys[m])
        np.testing.assert_allclose(outputs[m], expected, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[m], b, rtol=1e-4, atol=1e-5),
                     stats, expected_stats)
    # Dropout may silence a head unit in every image, so only the backbone is certain to move.
    for path, grad in flat(grads).items():
        assert np.isfinite(grad).all(), path
        assert path.startswith("head") or np.any(grad != 0), path


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32():
    outputs = {}
    for dtype in ("bfloat16", "float32"):
        model = build_model(config(dtype=dtype), SIZE, 5)
        variables = jax.jit(model.init)(jax.random.key(0))
        outputs[dtype], stats = model.apply(variables, images(4), train=True)
        assert {x.dtype.name for x in jax.tree.leaves((variables, stats))} == {"float32"}
        assert outputs[dtype].shape == (4, 5) and outputs[dtype].dtype == jnp.float32
    np.testing.assert_allclose(outputs["bfloat16"], outputs["float32"], atol=0.1)
    assert np.any(outputs["bfloat16"] != outputs["float32"])
    # The convolutions themselves must be in bfloat16.
    model = build_model(config(dtype="bfloat16"), SIZE, 5)
    jaxpr = str(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, images(1)))
    assert "conv_general_dilated" in jaxpr
    assert all("bf16" in line for line in jaxpr.splitlines() if "= conv_general_dilated" in line)


def test_same_config_is_the_same_model_and_compiles_once():
    cfg = config(frozen=("^stem",))
    a, b = build_model(cfg, SIZE, 0), build_model(cfg.copy_and_resolve_references(), SIZE, 0)
    assert a == b and hash(a) == hash(b)
    assert a != build_model(config(frozen=("^stem", "stage1")), SIZE, 0)
    assert a != build_model(config(frozen=("^stem",), width=5), SIZE, 0)
    assert a != build_model(cfg, SIZE + 1, 0)
    traces = []

    @jax.jit
    def shift(x):
        traces.append(1)
        return x + 1

    def init(model, key):
        traces.append(1)
        return model.init(key)

    jitted = jax.jit(init, static_argnums=0)
    jitted(a, jax.random.key(0))
    jitted(b, jax.random.key(1))
    assert len(traces) == 1


def test_frozen_layers_keep_their_statistics():
    model = build_model(config(frozen=("^stem", "stage1_block1/conv1", "norm2$|norm2/")), SIZE, 0)
    variables = jax.jit(model.init)(jax.random.key(0))
    trainable = flat(model.trainable(variables["params"]))
    assert set(trainable) == set(flat(variables["params"]))
    fixed = {path for path, free in trainable.items() if not free}
    assert fixed == (
        {"stem_conv/kernel", "stem_norm/scale", "stem_norm/bias", "stage1_block1/conv1/kernel"}
        | {f"stage{s}_block1/norm2/{leaf}" for s in (1, 2, 3, 4) for leaf in ("scale", "bias")})
    _, stats = model.apply(variables, images(4), train=True)
    old = flat(variables["batch_stats"])
    for path, new in flat(stats).items():
        # a norm behind a frozen convolution is free itself
        kept = path.startswith("stem_norm") or "norm2" in path
        assert np.array_equal(new, old[path]) == kept, path


def test_frozen_norm_normalises_by_its_running_statistics():
    everything = build_model(config(frozen=("",)), SIZE, 0)
    free = build_model(config(), SIZE, 0)
    variables = jax.jit(free.init)(jax.random.key(0))
    training, stats = everything.apply(variables, images(4), train=True)
    inference, _ = free.apply(variables, images(4), train=False)
    np.testing.assert_allclose(training, inference, rtol=1e-6)
    assert_trees_equal(stats, variables["batch_stats"])
    assert not any(jax.tree.leaves(everything.trainable(variables["params"])))
    # One of the two parameters frozen is not a frozen norm.
    half = build_model(config(frozen=("stem_norm/scale",)), SIZE, 0)
    _, stats = half.apply(variables, images(4), train=True)
    assert np.any(stats["stem_norm"]["mean"] != variables["batch_stats"]["stem_norm"]["mean"])


def test_frozen_patterns_must_match_something():
    with pytest.raises(ConfigError, match=r"config.model.frozen: 'stage9' matches no.*stem_norm"):
        build_model(config(frozen=("^stem", "stage9")), SIZE, 0)
    with pytest.raises(ConfigError, match=r"'\(' is no regular expression"):
        build_model(config(frozen=("(",)), SIZE, 0)


def test_wrong_images_are_refused(study):
    model, variables, _ = study
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\).*\[B, 16, 16, 3\]"):
        model.apply(variables, images(2, size=8), train=False)
