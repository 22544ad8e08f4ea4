"""Weight files are written by hand here, as Keras and PyTorch lay them out; the networks they
belong to are in published_networks.py."""

import functools
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from published_networks import (
    WIDTH,
    keras_resnet50,
    keras_weights,
    torch_resnet50,
    torch_weights,
    vggface2_resnet50,
    vggface2_weights,
)

from unlearn_jax.config import default_config
from unlearn_jax.models import build_model
from unlearn_jax.networks import pretrained
from unlearn_jax.networks.pretrained import PretrainedError, load_members, load_pretrained

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


@pytest.mark.parametrize("variant", ["torchvision", "vggface2"])
def test_members_share_what_one_reading_of_the_file_fills(tmp_path, monkeypatch, variant):
    torch = variant == "torchvision"
    path = write_torch(tmp_path / "weights.safetensors", torch_weights()) if torch \
        else write_keras2(tmp_path / "weights.h5", vggface2_weights())
    cfg, _, fresh = prepared(variant, num_classes=3)
    members = jax.tree.map(lambda x: np.stack([x, x + 1, x + 2]), fresh)
    before = jax.tree.map(np.array, members)
    alone = [load_pretrained(path, jax.tree.map(lambda x, m=m: x[m], members), cfg)[0]
             for m in range(3)]
    opened, read = [], pretrained._fill
    monkeypatch.setattr(pretrained, "_fill", lambda *args: opened.append(path) or read(*args))
    found, loaded = load_members(path, members, cfg)
    assert opened == [path] and trees_equal(members, before)
    assert jax.tree.structure(found) == jax.tree.structure(members)
    assert trees_equal(found, jax.tree.map(lambda *x: np.stack(x), *alone))
    flat = traverse_util.flatten_dict(found, sep="/")
    for ours, value in flat.items():
        assert type(value) is np.ndarray and value.dtype == np.float32, ours
        assert (value.strides[0] == 0) == (ours in loaded.loaded), ours
    head = flat["params/output/kernel"]
    assert (head[0] != head[1]).all()


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


def eight_bits(path, names, dtype):
    """Rewrites tensors of a safetensors file as another type of one byte a number."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, body, moved, start = json.loads(raw[8:8 + size]), b"", {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        part = raw[8 + size + begin:8 + size + end]
        if name in names:
            entry, part = {**entry, "dtype": dtype}, part[::4]
        moved[name] = {**entry, "data_offsets": [start, start + len(part)]}
        body, start = body + part, start + len(part)
    text = json.dumps(moved).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8"])
def test_tensors_that_need_a_scale_are_refused_in_words(tmp_path, dtype):
    weights = torch_weights(classes=10)
    path = write_torch(tmp_path / "small.safetensors", weights)
    message = refused(eight_bits(path, ("layer1.0.conv1.weight", "conv1.weight"), dtype))
    assert f"layer1.0.conv1.weight is {dtype}; conv1.weight is {dtype}" in message
    assert "allowed: F16, BF16, F32, F64" in message
    # one that the model has no place for is no counter
    weights["layer3.6.conv1.weight"] = np.zeros((16, 64, 1, 1), np.float32)
    path = write_torch(tmp_path / "more.safetensors", weights)
    if dtype != "I8":
        message = refused(eight_bits(path, ("layer3.6.conv1.weight",), dtype))
        assert "left over in the file: layer3.6.conv1.weight" in message


def test_whole_numbers_in_hdf5_are_no_weights(tmp_path):
    weights = keras_weights()
    weights["conv1_conv/kernel"] = np.ones_like(weights["conv1_conv/kernel"], np.int8)
    path = write_keras2(tmp_path / "quantised.h5", weights)
    assert "conv1_conv/kernel is int8; allowed" in refused(path, "keras")


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


@pytest.mark.parametrize("half", [np.float16, jnp.bfloat16])
def test_half_precision_files_become_float32(tmp_path, half):
    weights = {name: a.astype(half) if a.dtype == np.float32 else a
               for name, a in torch_weights().items()}
    path = write_torch(tmp_path / "half.safetensors", weights)
    cfg, _, fresh = prepared("torchvision")
    variables, _ = load_pretrained(path, fresh, cfg)
    flat = traverse_util.flatten_dict(variables, sep="/")
    assert {value.dtype.name for value in flat.values()} == {"float32"}
    np.testing.assert_array_equal(flat["params/stem_norm/bias"],
                                  weights["bn1.bias"].astype(np.float32))
