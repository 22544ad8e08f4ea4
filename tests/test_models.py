import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from unlearn_jax.config import ConfigError, default_config
from unlearn_jax.models import build_model, preprocess

SIZE = 16
# The tests compile much and compute little.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0,
                                                   "xla_llvm_disable_expensive_passes": True})


def config(**changes):
    cfg = default_config().model
    cfg.unlock()
    cfg.update({"width": 4} | changes)
    return cfg


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def images(n, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3)).astype(np.uint8)


def assert_trees_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def member(tree, m):
    return jax.tree.map(lambda x: x[m], tree)


@functools.cache
def prepared(num_classes=0, **changes):
    """(model, variables, apply under jit), two stages only: they have everything and compile
    in half the time."""
    model = build_model(config(**changes), SIZE, num_classes)
    model = dataclasses.replace(model, module=model.module.clone(blocks=(1, 1)))
    variables = jit(model.init)(jax.random.key(1))
    return model, variables, jit(model.apply, static_argnames="train")


def study():
    """A small network with the study's head."""
    return prepared(head_widths=(8, 6), head_dropout=(0.5, 0.2))


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
    shapes = build_model(cfg, 224, 1000).shapes()
    count = {key: sum(x.size for x in jax.tree.leaves(tree)) for key, tree in shapes.items()}
    assert count == {"params": params, "batch_stats": statistics}
    if variant == "keras":  # ResNet50(include_top=False)
        assert params + statistics - (2048 + 1) * 1000 == 23_587_712


def test_parameter_names_are_stable():
    cfg = config(head_widths=(8, 6), head_dropout=(0.5, 0.2))
    block = {"conv1/kernel", "norm1/scale", "norm1/bias", "conv2/kernel", "norm2/scale",
             "norm2/bias"}
    shortcut = {"shortcut_conv/kernel", "shortcut_norm/scale", "shortcut_norm/bias"}
    expected = {"stem_conv/kernel", "stem_norm/scale", "stem_norm/bias"}
    expected |= {f"stage1_block1/{name}" for name in block}
    expected |= {f"stage{s}_block1/{name}" for s in (2, 3, 4) for name in block | shortcut}
    expected |= {f"{layer}/{leaf}" for layer in ("head_dense1", "head_dense2", "output")
                 for leaf in ("kernel", "bias")}
    assert set(flat(build_model(cfg, SIZE, 0).shapes()["params"])) == expected
    cfg = config(name="resnet50", variant="keras", projection=5)
    names = flat(build_model(cfg, SIZE, 3).shapes()["params"])
    assert names["stage3_block6/conv3/bias"].shape == (64,)
    assert names["stage1_block1/shortcut_conv/kernel"].shape == (1, 1, 4, 16)
    assert names["projection/kernel"].shape == (128, 5)
    assert names["output/kernel"].shape == (5, 3)
    assert "stage1_block2/shortcut_conv/kernel" not in names


def test_initialisation():
    cfg = config(width=16, variant="keras", head_widths=(256,), head_dropout=(0.0,))
    model = build_model(cfg, SIZE, 0)
    init = jit(model.init)
    variables = init(jax.random.key(0))
    assert_trees_equal(jax.tree.map(lambda x: (x.shape, x.dtype.name), variables),
                       jax.tree.map(lambda x: (x.shape, x.dtype.name), model.shapes()))
    params = flat(variables["params"])
    conv = np.asarray(params["stage4_block1/conv1/kernel"])  # [3, 3, 64, 128]
    np.testing.assert_allclose(conv.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    dense = np.asarray(params["head_dense1/kernel"])  # [128, 256]
    np.testing.assert_allclose(dense.std(), np.sqrt(1 / 128), rtol=0.02)
    assert abs(conv.mean()) < 1e-3 and abs(dense.mean()) < 2e-3
    assert np.corrcoef(conv.ravel()[:1000], dense.ravel()[:1000])[0, 1] < 0.1
    constants = {path.rsplit("/", 1)[1]: set() for path in flat(variables)}
    for path, value in flat(variables).items():
        if not path.endswith("kernel"):
            constants[path.rsplit("/", 1)[1]] |= set(np.unique(value).tolist())
    assert constants == {"kernel": set(), "bias": {0.0}, "scale": {1.0}, "mean": {0.0},
                         "var": {1.0}}
    other = init(jax.random.key(1))
    assert np.all(other["params"]["stem_conv"]["kernel"] != params["stem_conv/kernel"])


def test_output_is_offset_plus_scale_times_sigmoid_or_linear():
    outputs = {}
    for kind in ("sigmoid", "linear"):
        _, variables, apply = prepared(output=kind, output_scale=40.0, output_offset=20.0)
        variables = jax.tree.map(lambda x: x, variables)
        variables["params"]["output"] = {
            "kernel": 0 * variables["params"]["output"]["kernel"], "bias": jnp.array([0.75])}
        outputs[kind], _ = apply(variables, images(4), train=False)
        assert outputs[kind].shape == (4,) and outputs[kind].dtype == jnp.float32
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
    image = np.full((1, 2, 2, 3), (10, 20, 30))
    for dtype in (np.uint8, np.float32):
        x = preprocess(jnp.asarray(image, dtype), kind)
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, np.broadcast_to(pixel, image.shape), rtol=1e-5)


def test_batch_norm_statistics_follow_the_batch():
    # momentum 0.9 keeps nine tenths of the old statistics (mean 0, variance 1)
    _, variables, apply = prepared(stem="small", preprocess="caffe")
    batch = images(4)
    _, stats = apply(variables, batch, train=True)
    x = batch[..., ::-1] - np.array([103.939, 116.779, 123.68])
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(variables["params"]["stem_conv"]["kernel"])
    y = sum(x[:, i:i + SIZE, j:j + SIZE] @ kernel[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(stats["stem_norm"]["mean"], 0.1 * y.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(stats["stem_norm"]["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


def test_dropout_needs_a_key_and_follows_it():
    model, variables, apply = study()
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


def test_members_equal_a_loop_of_singles():
    model, _, apply = study()
    keys = jax.random.split(jax.random.key(3), 2)
    batch = np.stack([images(4, seed) for seed in range(2)])
    variables = jit(jax.vmap(model.init))(keys)

    outputs, stats = jit(jax.vmap(functools.partial(model.apply, train=True)))(
        variables, batch, key=keys)
    assert outputs.shape == (2, 4)
    init = jit(model.init)
    for m, key in enumerate(keys):
        single = init(key)
        assert_trees_close(member(variables, m), single)
        expected, expected_stats = apply(single, batch[m], train=True, key=key)
        np.testing.assert_allclose(outputs[m], expected, rtol=1e-5)
        assert_trees_close(member(stats, m), expected_stats)


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32():
    outputs = {}
    for dtype in ("bfloat16", "float32"):
        _, variables, apply = prepared(num_classes=5, dtype=dtype)
        outputs[dtype], stats = apply(variables, images(4), train=False)
        assert {x.dtype.name for x in jax.tree.leaves((variables, stats))} == {"float32"}
        assert outputs[dtype].shape == (4, 5) and outputs[dtype].dtype == jnp.float32
    np.testing.assert_allclose(outputs["bfloat16"], outputs["float32"], atol=0.1)
    assert np.any(outputs["bfloat16"] != outputs["float32"])
    model, variables, _ = prepared(num_classes=5, dtype="bfloat16")
    _, stats = jax.eval_shape(lambda v, x: model.apply(v, x, train=True), variables, images(4))
    assert {x.dtype.name for x in jax.tree.leaves(stats)} == {"float32"}


def test_same_config_is_the_same_model_and_compiles_once():
    cfg = config(frozen=("^stem",))
    a, b = build_model(cfg, SIZE, 0), build_model(cfg.copy_and_resolve_references(), SIZE, 0)
    assert a == b and hash(a) == hash(b)
    assert a != build_model(config(frozen=("^stem", "stage1")), SIZE, 0)
    assert a != build_model(config(frozen=("^stem",), width=5), SIZE, 0)
    assert a != build_model(cfg, SIZE + 1, 0)
    traces = []

    def init(model, key):
        traces.append(model)
        return model.init(key)

    jitted = jit(init, static_argnums=0)
    jitted(a, jax.random.key(0))
    jitted(b, jax.random.key(1))
    assert len(traces) == 1


def test_frozen_layers_keep_their_statistics():
    model, variables, apply = prepared(frozen=("^stem", "stage1_block1/conv1", "norm2"))
    trainable = flat(model.trainable(variables["params"]))
    assert set(trainable) == set(flat(variables["params"]))
    fixed = {path for path, free in trainable.items() if not free}
    assert fixed == (
        {"stem_conv/kernel", "stem_norm/scale", "stem_norm/bias", "stage1_block1/conv1/kernel"}
        | {f"stage{s}_block1/norm2/{leaf}" for s in (1, 2) for leaf in ("scale", "bias")})
    _, stats = apply(variables, images(4), train=True)
    old = flat(variables["batch_stats"])
    for path, new in flat(stats).items():
        # a norm behind a frozen convolution is free itself
        kept = path.startswith("stem_norm") or "norm2" in path
        assert np.array_equal(new, old[path]) == kept, path


def test_frozen_norm_normalises_by_its_running_statistics():
    everything, variables, apply_frozen = prepared(frozen=("",))
    _, same, apply = prepared()
    assert_trees_equal(variables, same)
    training, stats = apply_frozen(variables, images(4), train=True)
    inference, _ = apply(variables, images(4), train=False)
    np.testing.assert_allclose(training, inference, rtol=1e-6)
    assert_trees_equal(stats, variables["batch_stats"])
    assert not any(jax.tree.leaves(everything.trainable(variables["params"])))


def test_norm_with_one_of_two_parameters_frozen_still_learns():
    half = build_model(config(frozen=("stem_norm/scale",)), SIZE, 0)
    assert half.module.frozen_norms == ()
    whole = build_model(config(frozen=("stem_norm/scale", "stem_norm/bias")), SIZE, 0)
    assert whole.module.frozen_norms == ("stem_norm",)


def test_frozen_patterns_must_match_something():
    with pytest.raises(ConfigError, match=r"config.model.frozen: 'stage9' matches no.*stem_norm"):
        build_model(config(frozen=("^stem", "stage9")), SIZE, 0)
    with pytest.raises(ConfigError, match=r"'\(' is no regular expression"):
        build_model(config(frozen=("(",)), SIZE, 0)


def test_wrong_images_are_refused():
    model, variables, _ = study()
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\).*\[B, 16, 16, 3\]"):
        model.apply(variables, images(2, size=8), train=False)


def test_a_caller_may_change_its_tree_of_shapes():
    c = default_config()
    for name in ("resnet4", "vit_tiny"):
        with c.unlocked():
            c.model.update(name=name, width=2, stem="small")
        build_model(c.model, 8, 0).shapes()["params"].clear()
        assert build_model(c.model, 8, 0).shapes()["params"], name
