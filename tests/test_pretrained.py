"""Weight files are written by hand here, as Keras and PyTorch lay them out, and the network is
computed a second time in NumPy, in the order of the source's own definition."""

import functools

import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from unlearn_jax.config import default_config
from unlearn_jax.models import build_model
from unlearn_jax.pretrained import PretrainedError, load_pretrained

WIDTH = 4
DEPTH = (3, 4, 6, 3)
COMPILE_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.cache
def prepared(variant, size=32, num_classes=0, **changes):
    """(config, model, variables to load into)"""
    cfg = default_config().model
    cfg.unlock()
    cfg.update({"name": "resnet50", "variant": variant, "width": WIDTH, "stem": "imagenet"}
               | changes)
    model = build_model(cfg, size, num_classes)
    rng = np.random.default_rng(9)
    fresh = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
                         model.shapes())
    return cfg, model, fresh


def inference(model, variables, images):
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=COMPILE_FAST)
    return np.asarray(apply(variables, images))


# --- the networks, as published -------------------------------------------------------------


def conv(x, w_hwio, stride, pads):
    """pads: ((top, bottom), (left, right))"""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w_hwio.shape[:2], axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # [B, H, W, C, h, w]
    return np.einsum("bxychw,hwco->bxyo", windows, w_hwio, optimize=True)


def max_pool_3x3_stride_2(x, pad):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max((-2, -1))


def relu(x):
    return np.maximum(x, 0)


NONE, ONE, THREE = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((3, 3), (3, 3))


def keras_resnet50(w, x):
    """keras.applications.resnet, ResNet50 without top, pooling 'avg'."""
    def convolution(name, x, stride=1, pads=NONE):
        return conv(x, w[name + "/kernel"], stride, pads) + w[name + "/bias"]

    def norm(name, x):
        scale = w[name + "/gamma"] / np.sqrt(w[name + "/moving_variance"] + 1.001e-5)
        return (x - w[name + "/moving_mean"]) * scale + w[name + "/beta"]

    x = relu(norm("conv1_bn", convolution("conv1_conv", x, 2, THREE)))
    x = max_pool_3x3_stride_2(x, 1)
    for stack, blocks in enumerate(DEPTH, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stack}_block{block}"
            stride = 2 if stack > 2 and block == 1 else 1
            shortcut = x
            if block == 1:
                shortcut = norm(name + "_0_bn", convolution(name + "_0_conv", x, stride))
            x = relu(norm(name + "_1_bn", convolution(name + "_1_conv", x, stride)))
            x = relu(norm(name + "_2_bn", convolution(name + "_2_conv", x, 1, ONE)))
            x = norm(name + "_3_bn", convolution(name + "_3_conv", x))
            x = relu(shortcut + x)
    return x.mean((1, 2))


def vggface2_resnet50(w, x):
    """WeidiXie/Keras-VGGFace2-ResNet50 up to dim_proj, which has a relu of its own."""
    def conv_norm(name, x, stride=1, pads=NONE):
        x = conv(x, w[name + "/kernel"], stride, pads)
        scale = w[name + "/bn/gamma"] / np.sqrt(w[name + "/bn/moving_variance"] + 1e-3)
        return (x - w[name + "/bn/moving_mean"]) * scale + w[name + "/bn/beta"]

    assert x.shape[1] % 2 == 0  # 'same', 7x7/2 on an even size: two pixels before, three after
    x = relu(conv_norm("conv1/7x7_s2", x, 2, ((2, 3), (2, 3))))
    x = max_pool_3x3_stride_2(x, 0)
    for stage, blocks in enumerate(DEPTH, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}_"
            stride = 2 if stage > 2 and block == 1 else 1
            shortcut = conv_norm(name + "1x1_proj", x, stride) if block == 1 else x
            y = relu(conv_norm(name + "1x1_reduce", x, stride))
            y = relu(conv_norm(name + "3x3", y, 1, ONE))
            x = relu(conv_norm(name + "1x1_increase", y) + shortcut)
    return relu(x.mean((1, 2)) @ w["dim_proj/kernel"] + w["dim_proj/bias"])


def torch_resnet50(w, x):
    """torchvision.models.resnet50 (v1.5: the stride is in the 3x3), up to the pool."""
    def conv_norm(conv_name, norm, x, stride=1, pads=NONE):
        x = conv(x, w[conv_name + ".weight"].transpose(2, 3, 1, 0), stride, pads)
        scale = w[norm + ".weight"] / np.sqrt(w[norm + ".running_var"] + 1e-5)
        return (x - w[norm + ".running_mean"]) * scale + w[norm + ".bias"]

    x = max_pool_3x3_stride_2(relu(conv_norm("conv1", "bn1", x, 2, THREE)), 1)
    for layer, blocks in enumerate(DEPTH, start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}."
            stride = 2 if layer > 1 and block == 0 else 1
            y = relu(conv_norm(name + "conv1", name + "bn1", x))
            y = relu(conv_norm(name + "conv2", name + "bn2", y, stride, ONE))
            y = conv_norm(name + "conv3", name + "bn3", y)
            if block == 0:
                x = conv_norm(name + "downsample.0", name + "downsample.1", x, stride)
            x = relu(y + x)
    return x.mean((1, 2))


# --- random weights under the published names -----------------------------------------------


def bottlenecks():
    """(stage from 0, block from 0, channels in, channels) of ResNet50."""
    channels = WIDTH
    for stage, blocks in enumerate(DEPTH):
        for block in range(blocks):
            yield stage, block, channels, WIDTH * 2**stage
            channels = 4 * WIDTH * 2**stage


def kernel(rng, *shape):
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)


def statistics(rng, n):
    """gamma, beta, moving mean, moving variance"""
    return [a.astype(np.float32) for a in (rng.uniform(0.5, 1, n), rng.normal(0, 0.3, n),
                                           rng.normal(0, 0.3, n), rng.uniform(0.5, 2, n))]


def keras_norm(rng, name, n):
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"{name}/{leaf}": a for leaf, a in zip(leaves, statistics(rng, n))}


def keras_weights(seed=0):
    rng = np.random.default_rng(seed)
    w = {}

    def add(conv_name, norm_name, *shape):
        w[conv_name + "/kernel"] = kernel(rng, *shape)
        w[conv_name + "/bias"] = rng.normal(0, 0.3, shape[-1]).astype(np.float32)
        w.update(keras_norm(rng, norm_name, shape[-1]))

    add("conv1_conv", "conv1_bn", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"conv{stage + 2}_block{block + 1}"
        if block == 0:
            add(name + "_0_conv", name + "_0_bn", 1, 1, c_in, 4 * c)
        add(name + "_1_conv", name + "_1_bn", 1, 1, c_in, c)
        add(name + "_2_conv", name + "_2_bn", 3, 3, c, c)
        add(name + "_3_conv", name + "_3_bn", 1, 1, c, 4 * c)
    return w


def vggface2_weights(projection=12, classes=7):
    rng = np.random.default_rng(1)
    w = {}

    def add(name, *shape):
        w[name + "/kernel"] = kernel(rng, *shape)
        w.update(keras_norm(rng, name + "/bn", shape[-1]))

    add("conv1/7x7_s2", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"conv{stage + 2}_{block + 1}_"
        if block == 0:
            add(name + "1x1_proj", 1, 1, c_in, 4 * c)
        add(name + "1x1_reduce", 1, 1, c_in, c)
        add(name + "3x3", 3, 3, c, c)
        add(name + "1x1_increase", 1, 1, c, 4 * c)
    w["dim_proj/kernel"] = kernel(rng, 32 * WIDTH, projection)
    w["dim_proj/bias"] = rng.normal(0, 0.3, projection).astype(np.float32)
    w["classifier_low_dim/kernel"] = kernel(rng, projection, classes)  # has no bias
    return w


def torch_weights(classes=10):
    rng = np.random.default_rng(2)
    w = {}

    def add(conv_name, norm, *shape_hwio):
        w[conv_name + ".weight"] = np.ascontiguousarray(
            kernel(rng, *shape_hwio).transpose(3, 2, 0, 1))
        leaves = ("weight", "bias", "running_mean", "running_var")
        w.update({f"{norm}.{leaf}": a for leaf, a in zip(leaves, statistics(rng, shape_hwio[-1]))})
        w[norm + ".num_batches_tracked"] = np.array(5, np.int64)

    add("conv1", "bn1", 7, 7, 3, WIDTH)
    for stage, block, c_in, c in bottlenecks():
        name = f"layer{stage + 1}.{block}."
        add(name + "conv1", name + "bn1", 1, 1, c_in, c)
        add(name + "conv2", name + "bn2", 3, 3, c, c)
        add(name + "conv3", name + "bn3", 1, 1, c, 4 * c)
        if block == 0:
            add(name + "downsample.0", name + "downsample.1", 1, 1, c_in, 4 * c)
    w["fc.weight"] = np.ascontiguousarray(kernel(rng, 32 * WIDTH, classes).T)
    w["fc.bias"] = rng.normal(0, 0.3, classes).astype(np.float32)
    return w


# --- the files ------------------------------------------------------------------------------


def write_keras2(path, weights, root="", prefix=None, scope="", suffix=":0"):
    """layer/layer/kernel:0, or with a prefix prefix/layer/kernel:0 (a network within another
    model); below `model_weights` for a whole model. TensorFlow 1 appends _1 to the inner name
    (scope) where a network was built twice in one session."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        layers = sorted({name.rpartition("/")[0] for name in weights})
        group.attrs["layer_names"] = [layer.encode() for layer in layers]
        for name, value in weights.items():
            layer, _, leaf = name.rpartition("/")
            group[f"{layer if prefix is None else prefix}/{layer}{scope}/{leaf}{suffix}"] = value
        if root:
            file["optimizer_weights/adam/iteration:0"] = np.int64(3)
    return path


def write_keras3(path, weights, named=True):
    """layers/conv2d_1/vars/0, numbered by class; `vars` carries the layer's name."""
    order = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    layers = {}
    for name in sorted(weights, key=lambda name: order.index(name.rpartition("/")[2])):
        layers.setdefault(name.rpartition("/")[0], []).append(weights[name])
    with h5py.File(path, "w") as file:
        for i, (layer, arrays) in enumerate(layers.items()):
            kind = "batch_normalization" if layer.endswith("bn") else "conv2d"
            group = file.create_group(f"layers/{kind}_{i}/vars")
            if named:
                group.attrs["name"] = layer
            for j, array in enumerate(arrays):
                group[str(j)] = array
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/dropout/seed_generator/vars/0"] = np.array([1, 2], np.uint32)
        file["layers/dropout/seed_generator/vars"].attrs["name"] = "seed_generator"
        file["layers/dropout_1/seed_generator/vars/0"] = np.array([3, 4], np.uint32)
        file["layers/dropout_1/seed_generator/vars"].attrs["name"] = "seed_generator"
    return path


def write_torch(path, weights):
    safetensors.numpy.save_file(weights, path)
    return path


def trees_equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def test_keras_forward_equals_the_source(tmp_path):
    weights = keras_weights()
    path = write_keras2(tmp_path / "resnet50.h5", weights)
    cfg, model, fresh = prepared("keras", size=51, num_classes=3, preprocess="caffe")
    variables, loaded = load_pretrained(path, fresh, cfg)
    images = np.random.default_rng(3).integers(0, 256, (2, 51, 51, 3)).astype(np.uint8)
    features = keras_resnet50(weights, images[..., ::-1] - [103.939, 116.779, 123.68])
    head = jax.tree.map(np.asarray, variables["params"]["output"])
    assert trees_equal(head, fresh["params"]["output"])
    np.testing.assert_allclose(inference(model, variables, images),
                               features @ head["kernel"] + head["bias"], atol=1e-4, rtol=1e-4)
    assert len(loaded.loaded) == len(weights) == 318
    assert loaded.initialised == ("params/output/bias", "params/output/kernel")
    assert loaded.left_over == ()
    assert "318 tensors loaded (keras layout)" in str(loaded)


def test_vggface2_forward_equals_the_source(tmp_path):
    weights = vggface2_weights()
    path = write_keras2(tmp_path / "weights.h5", weights)
    cfg, model, fresh = prepared("vggface2", size=50, num_classes=3, preprocess="vggface2",
                                 projection=12)
    variables, loaded = load_pretrained(path, fresh, cfg)
    images = np.random.default_rng(4).integers(0, 256, (2, 50, 50, 3)).astype(np.uint8)
    features = vggface2_resnet50(weights, images[..., ::-1] - [91.4953, 103.8827, 131.0912])
    assert np.mean(features == 0) > 0.1, "the relu of dim_proj must matter here"
    head = jax.tree.map(np.asarray, variables["params"]["output"])
    np.testing.assert_allclose(inference(model, variables, images),
                               features @ head["kernel"] + head["bias"], atol=1e-4, rtol=1e-4)
    assert loaded.left_over == ("classifier_low_dim/classifier_low_dim/kernel",)
    assert len(loaded.loaded) == 267


def test_torchvision_forward_equals_the_source(tmp_path):
    weights = torch_weights(classes=10)
    path = write_torch(tmp_path / "resnet50.safetensors", weights)
    cfg, model, fresh = prepared("torchvision", size=50, num_classes=10, preprocess="torch")
    variables, loaded = load_pretrained(path, fresh, cfg)
    images = np.random.default_rng(5).integers(0, 256, (2, 50, 50, 3)).astype(np.uint8)
    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # ten classes here and in the file: its classifier serves
    expected = torch_resnet50(weights, x) @ weights["fc.weight"].T + weights["fc.bias"]
    np.testing.assert_allclose(inference(model, variables, images), expected, atol=1e-4, rtol=1e-4)
    assert loaded.initialised == () and len(loaded.loaded) == 267
    assert all(name.endswith("num_batches_tracked") for name in loaded.left_over)
    assert "53 counters" in str(loaded)
    # another number of classes: the head is as initialised, the rest the same
    cfg, _, fresh = prepared("torchvision", num_classes=3)
    other, loaded = load_pretrained(path, fresh, cfg)
    assert trees_equal(other["params"]["output"], fresh["params"]["output"])
    assert {"fc.bias", "fc.weight"} < set(loaded.left_over)
    assert trees_equal(other["batch_stats"], variables["batch_stats"])
    # a hidden layer as wide as the pool: `output` has the classifier's shape, not its inputs
    cfg, _, fresh = prepared("torchvision", num_classes=10, head_widths=(128,), head_dropout=(0.0,))
    other, _ = load_pretrained(path, fresh, cfg)
    assert other["params"]["output"]["kernel"].shape == weights["fc.weight"].T.shape
    assert trees_equal(other["params"]["output"], fresh["params"]["output"])


def test_one_output_is_never_taken_from_a_file(tmp_path):
    path = write_torch(tmp_path / "age.safetensors", torch_weights(classes=1))
    cfg, _, fresh = prepared("torchvision")
    variables, loaded = load_pretrained(path, fresh, cfg)
    assert trees_equal(variables["params"]["output"], fresh["params"]["output"])
    assert "fc.weight" in loaded.left_over


def test_every_keras_layout_gives_the_same_variables(tmp_path):
    weights = keras_weights()
    cfg, _, fresh = prepared("keras")
    before = jax.tree.map(np.array, fresh)
    paths = [
        write_keras2(tmp_path / "weights.h5", weights),
        write_keras2(tmp_path / "keras3_legacy.h5", weights, suffix=""),
        write_keras2(tmp_path / "second.h5", weights, scope="_1"),
        write_keras2(tmp_path / "whole.h5", weights, root="model_weights"),
        write_keras2(tmp_path / "nested.hdf5", weights, root="model_weights", prefix="resnet50"),
        write_keras3(tmp_path / "keras3.weights.h5", weights),
    ]
    first, _ = load_pretrained(paths[0], fresh, cfg)
    assert trees_equal(fresh, before), "the argument was changed"
    np.testing.assert_array_equal(
        first["params"]["stage2_block1"]["shortcut_norm"]["scale"],
        weights["conv3_block1_0_bn/gamma"])
    np.testing.assert_array_equal(
        first["batch_stats"]["stage2_block1"]["shortcut_norm"]["var"],
        weights["conv3_block1_0_bn/moving_variance"])
    for path in paths[1:]:
        variables, _ = load_pretrained(path, fresh, cfg)
        assert trees_equal(first, variables), path


def test_vggface2_within_another_model_and_without_projection(tmp_path):
    weights = vggface2_weights()
    del weights["classifier_low_dim/kernel"]
    path = write_keras2(tmp_path / "nested.h5", weights, root="model_weights", prefix="model_1")
    with h5py.File(path, "a") as file:
        file["model_weights/dense/dense/kernel:0"] = np.zeros((12, 1), np.float32)
        file["model_weights/dense/dense/bias:0"] = np.zeros(1, np.float32)
    cfg, _, fresh = prepared("vggface2")
    variables, loaded = load_pretrained(path, fresh, cfg)
    np.testing.assert_array_equal(variables["params"]["stem_conv"]["kernel"],
                                  weights["conv1/7x7_s2/kernel"])
    np.testing.assert_array_equal(variables["batch_stats"]["stem_norm"]["mean"],
                                  weights["conv1/7x7_s2/bn/moving_mean"])
    assert loaded.left_over == ("dense/dense/bias", "dense/dense/kernel", "dim_proj/bias",
                                "dim_proj/kernel")
    # keras-vggface's files have no dim_proj: the projection is as initialised
    keras_vggface = {name: a for name, a in weights.items() if not name.startswith("dim_proj")}
    path = write_keras2(tmp_path / "rcmalli.h5", keras_vggface)
    cfg, _, fresh = prepared("vggface2", projection=12)
    variables, loaded = load_pretrained(path, fresh, cfg)
    assert trees_equal(variables["params"]["projection"], fresh["params"]["projection"])
    assert "params/projection/kernel" in loaded.initialised


@pytest.mark.parametrize(
    ("variant", "needed"),
    [("torchvision", "vggface2"), ("torchvision", "keras"), ("keras", "torchvision")])
def test_another_variant_is_named(tmp_path, variant, needed):
    path = tmp_path / ("weights.safetensors" if needed == "torchvision" else "weights.h5")
    if needed == "torchvision":
        write_torch(path, torch_weights())
    else:
        write_keras2(path, keras_weights() if needed == "keras" else vggface2_weights())
    cfg, _, fresh = prepared(variant)
    with pytest.raises(PretrainedError, match=f"set config.model.variant='{needed}'"):
        load_pretrained(path, fresh, cfg)


def refused(path, variant="torchvision", **changes):
    cfg, _, fresh = prepared(variant, **changes)
    with pytest.raises(PretrainedError) as error:
        load_pretrained(path, fresh, cfg)
    return str(error.value)


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path):
    weights = torch_weights()
    path = tmp_path / "resnet50.safetensors"
    del weights["layer3.5.bn2.running_var"]
    weights["layer3.6.conv1.weight"] = np.zeros((16, 64, 1, 1), np.float32)
    weights["layer1.0.se.fc.weight"] = np.zeros((2, 2), np.float32)
    weights["conv1.weight"] = weights["conv1.weight"][:, :, :5, :5]
    message = refused(write_torch(path, weights))
    assert "missing in the file: layer3.5.bn2.running_var." in message
    assert "left over in the file: layer1.0.se.fc.weight, layer3.6.conv1.weight" in message
    assert ("conv1.weight is (4, 3, 5, 5), the model's params/stem_conv/kernel needs "
            "(4, 3, 7, 7)") in message
    assert "num_batches_tracked" not in message and "fc.bias" not in message


def test_projection_of_another_width_is_refused(tmp_path):
    path = write_keras2(tmp_path / "weights.h5", vggface2_weights(projection=12))
    message = refused(path, "vggface2", projection=5)
    assert "dim_proj/kernel is (128, 12), the model's params/projection/kernel needs (128, 5)" \
        in message


def test_a_shallower_network_is_refused(tmp_path):
    path = write_torch(tmp_path / "resnet50.safetensors", torch_weights())
    message = refused(path, name="resnet18")
    assert "does not fit resnet18 (width 4" in message and "left over in the file" in message


def test_files_of_another_kind_are_refused(tmp_path):
    torch_zip = tmp_path / "weights.safetensors"
    torch_zip.write_bytes(b"PK\x03\x04 and so on")
    assert "never opened" in refused(torch_zip)
    for name in ("weights.pth", "weights.pt", "model.pkl", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"anything")
        assert ".safetensors" in refused(tmp_path / name)
    pickled = tmp_path / "weights.h5"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    assert "never opened" in refused(pickled)
    page = tmp_path / "page.h5"
    page.write_bytes(b"<html>404</html>")
    assert "is not an HDF5 file: it starts with b'<html>404" in refused(page)
    cut = write_torch(tmp_path / "cut.safetensors", torch_weights())
    cut.write_bytes(cut.read_bytes()[:-10])
    assert "not a whole safetensors file" in refused(cut)
    (tmp_path / "weights.onnx").write_bytes(b"anything")
    assert "allowed are .h5, .hdf5 (Keras) and .safetensors" in refused(tmp_path / "weights.onnx")
    assert "no file" in refused(tmp_path / "absent.h5")


def test_strange_hdf5_files_are_refused(tmp_path):
    unrelated = tmp_path / "unrelated.h5"
    with h5py.File(unrelated, "w") as file:
        file["data/images"] = np.zeros(3)
    assert "holds no layer of keras.applications" in refused(unrelated, "keras")
    assert "data/images" in refused(unrelated, "keras")
    unnamed = write_keras3(tmp_path / "old.weights.h5", keras_weights(), named=False)
    assert "does not name its layers" in refused(unnamed, "keras")
    twice = write_keras2(tmp_path / "twice.h5", keras_weights())
    with h5py.File(twice, "a") as file:
        file["other/conv1_conv/kernel:0"] = np.zeros(3)
    assert "conv1_conv/kernel twice" in refused(twice, "keras")
    weights = keras_weights()
    weights["conv5_block3_3_bn/beta"][2] = np.nan
    broken = write_keras2(tmp_path / "nan.h5", weights)
    assert "conv5_block3_3_bn/beta holds NaN" in refused(broken, "keras")
    outside = tmp_path / "outside.h5"
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with h5py.File(outside, "w") as file:
        file.create_dataset("conv1_bn/conv1_bn/gamma:0", (4,), "f4",
                            external=[(str(tmp_path / "secret.bin"), 0, 16)])
    assert "points to data in another file" in refused(outside, "keras")


def test_half_precision_files_become_float32(tmp_path):
    weights = {name: a.astype(np.float16) if a.dtype == np.float32 else a
               for name, a in torch_weights().items()}
    path = write_torch(tmp_path / "half.safetensors", weights)
    cfg, _, fresh = prepared("torchvision")
    variables, _ = load_pretrained(path, fresh, cfg)
    flat = traverse_util.flatten_dict(variables, sep="/")
    assert {value.dtype.name for value in flat.values()} == {"float32"}
    np.testing.assert_array_equal(flat["params/stem_norm/bias"],
                                  weights["bn1.bias"].astype(np.float32))
