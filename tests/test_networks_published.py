"""Published weights of VGG16-BN, ViT and ConvNeXt, in and out, against NumPy and PyTorch."""

import dataclasses
import functools

import jax
import numpy as np
import published_others as published
import pytest
import safetensors.numpy
from flax import traverse_util

from unlearn_jax.config import default_config
from unlearn_jax.config.parts import check_parts
from unlearn_jax.errors import ConfigError
from unlearn_jax.export.__main__ import main as export
from unlearn_jax.models import build_model
from unlearn_jax.networks.positions import resized_positions
from unlearn_jax.networks.pretrained import PretrainedError, load_pretrained
from unlearn_jax.stages import belonging
from unlearn_jax.storage import checkpoints

SIZE = 32


def config(name, **changes):
    c = default_config()
    with c.unlocked():
        c.data.update(image_size=SIZE, task="classification")
        c.train.loss = "cross_entropy"
        c.model.update({"name": name, "width": published.WIDTH, "stem": "imagenet"}
                       | published.PUBLISHED[name][0] | changes)
    return c


@functools.cache
def shallow(name, classes=published.CLASSES, preprocess="torch"):
    """The network of the references: ViT and ConvNeXt with fewer blocks."""
    model = build_model(config(name, preprocess=preprocess).model, SIZE, classes)
    depth = {"vit_tiny": dict(depth=published.VIT_DEPTH),
             "convnext_tiny": dict(depths=published.CONVNEXT_DEPTHS)}.get(name, {})
    return dataclasses.replace(model, module=model.module.clone(
        inner=model.module.inner.clone(**depth)))


def blank(model):
    return jax.tree.map(lambda x: np.full(x.shape, 9, x.dtype), model.shapes())


def outputs(model, variables, images):
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
    return np.asarray(apply(variables, images))


def write(path, tensors):
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    return path


@functools.cache
def images():
    return np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)


def inputs():
    return (images() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


@pytest.fixture(scope="module", params=published.PUBLISHED)
def loaded(request, tmp_path_factory):
    """(name, model, file's tensors, filled variables, report)"""
    name = request.param
    tensors, model = published.PUBLISHED[name][1](), shallow(name)
    path = write(tmp_path_factory.mktemp("published") / "in.safetensors", tensors)
    variables, report = load_pretrained(path, blank(model), config(name).model)
    return name, model, tensors, variables, report


def test_a_file_of_the_published_names_gives_the_published_outputs(loaded):
    name, model, tensors, variables, report = loaded
    assert report.initialised == ()
    assert all("num_batches_tracked" in left for left in report.left_over)
    expected = published.PUBLISHED[name][2](tensors, inputs())
    assert expected.shape == (3, published.CLASSES) and np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(outputs(model, variables, images()), expected, atol=2e-4, rtol=1e-3)


def test_an_export_has_the_published_names_and_the_same_numbers(loaded, tmp_path):
    name, _, tensors, variables, _ = loaded
    stage = tmp_path / "original" / "0123456789abcdef"
    checkpoints.save(stage / "checkpoint", jax.tree.map(lambda x: x[None], variables), {
        "stage": "original", "forget_set": "", "seeds": (3,), "epochs": 4, "config_name": "ft",
        "config": config(name).to_dict(), "data_fingerprint": "f00d",
        "class_names": tuple("abcde"), "label_unit": ""})
    assert export([str(stage), "--seed=3", f"--to={tmp_path / 'out.safetensors'}"]) == 0
    written = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    wanted = {k: v for k, v in tensors.items() if "num_batches_tracked" not in k}
    assert written.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


def test_another_number_of_classes_leaves_the_last_layer_alone(loaded, tmp_path):
    name, _, tensors, variables, _ = loaded
    model = shallow(name, 0)  # a regression
    path = write(tmp_path / "in.safetensors", tensors)
    other, report = load_pretrained(path, blank(model), config(name).model)
    assert report.initialised == ("params/output/bias", "params/output/kernel")
    assert set(other["params"]["output"]["bias"]) == {9}
    for path_, leaf in traverse_util.flatten_dict(variables, sep="/").items():
        if "/output/" not in path_:
            np.testing.assert_array_equal(traverse_util.flatten_dict(other, sep="/")[path_], leaf)


def fails(tmp_path, name, tensors, **changes):
    path = write(tmp_path / "bad.safetensors", tensors)
    with pytest.raises(PretrainedError) as e:
        load_pretrained(path, blank(shallow(name)), config(name, **changes).model)
    return str(e.value)


def test_files_that_do_not_fit_are_refused(loaded, tmp_path):
    name, _, tensors, _, _ = loaded
    first = next(k for k in tensors if k.endswith(".weight"))
    without = {k: v for k, v in tensors.items() if k != first}
    assert f"missing in the file: {first}" in fails(tmp_path, name, without)
    assert f"{first} is (2,)" in fails(tmp_path, name, tensors | {first: np.zeros(2, np.float32)})
    # A deeper network of the same kind: its dense layers are no head.
    more = {"vit_tiny": "blocks.2.mlp.fc1.weight", "vgg16_bn": "features.44.weight",
            "convnext_tiny": "features.1.1.block.3.weight"}[name]
    extra = fails(tmp_path, name, tensors | {more: np.zeros((6, 6), np.float32)})
    assert f"left over in the file: {more}" in extra


def test_a_distilled_deit_and_keras_files_are_refused(tmp_path):
    tensors = published.vit_weights()
    token = {"dist_token": np.zeros((1, 1, 6), np.float32)}
    assert "left over in the file: dist_token" in fails(tmp_path, "vit_tiny", tensors | token)
    path = tmp_path / "x.h5"
    import h5py
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(3)
    with pytest.raises(PretrainedError, match="allowed with vit_tiny are .safetensors files, with "
                                              "the names of deit or timm"):
        load_pretrained(path, blank(shallow("vit_tiny")), config("vit_tiny").model)


def test_positions_of_another_size_are_resized_only_if_stated(tmp_path):
    tensors = published.vit_weights(tokens=9)
    said = fails(tmp_path, "vit_tiny", tensors)
    assert "config.model.resize_positions=True" in said
    path = write(tmp_path / "in.safetensors", tensors)
    variables, _ = load_pretrained(path, blank(shallow("vit_tiny")),
                                   config("vit_tiny", resize_positions=True).model)
    found = variables["params"]["position"]
    assert found.shape == (1, 5, 6)
    np.testing.assert_array_equal(found[:, 0], tensors["pos_embed"][:, 0])
    np.testing.assert_array_equal(found, resized_positions(tensors["pos_embed"], 5))
    # Eleven positions are no square behind a class token.
    assert "pos_embed is (1, 11, 6)" in fails(tmp_path, "vit_tiny", published.vit_weights(10),
                                              resize_positions=True)


def test_resized_positions_keep_planes_and_are_those_of_jax():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(1, 1 + 16, 3)).astype(np.float32)
    for side in (2, 4, 7):
        found = resized_positions(value, 1 + side**2)[0, 1:].reshape(side, side, 3)
        expected = jax.image.resize(value[0, 1:].reshape(4, 4, 3), (side, side, 3), "cubic")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    flat = np.full((1, 17, 3), 2.5, np.float32)
    np.testing.assert_allclose(resized_positions(flat, 50), 2.5, rtol=1e-6)


@pytest.mark.parametrize("name, changes, words", [
    ("vit_tiny", dict(variant="torchvision"), "'deit' (preprocess 'torch'), 'timm' (preprocess "
                                              "'unit')"),
    ("vit_tiny", dict(variant="timm"), "config.model.preprocess is 'torch', but the published"),
    ("vgg16_bn", dict(preprocess="unit"), "were trained with 'torch'"),
    ("vgg16_bn", dict(variant="keras"), "allowed with vgg16_bn: 'torchvision'"),
    ("convnext_tiny", dict(resize_positions=True), "has no position embeddings"),
])
def test_the_source_of_weights_decides_the_preprocessing(tmp_path, name, changes, words):
    (tmp_path / "x.safetensors").write_bytes(b"")
    c = config(name, pretrained=str(tmp_path / "x.safetensors"), **changes)
    c.forget.sets = ("class:0",)
    with pytest.raises(ConfigError) as e:
        check_parts(c)
    assert words in str(e.value)


def test_running_statistics_of_vgg_tell_whether_weights_belong():
    model = shallow("vgg16_bn")
    variables = blank(model)
    gaps = belonging.statistics_gaps(model, variables, images())
    assert [g.layer for g in gaps][:2] == ["stage1_conv1/conv", "stage1_conv2/conv"]
    assert len(gaps) == 13 and set(belonging.alternatives(model)) == {
        "preprocess='unit'", "preprocess='caffe'", "preprocess='vggface2'"}
    for name in ("vit_tiny", "convnext_tiny"):
        assert belonging.doubt_of(shallow(name), blank(shallow(name)), images()) == ""


def torch_twin(name):
    """The narrow network, built from PyTorch's published classes; skipped where they are missing.
    """
    torch = pytest.importorskip("torch")
    if name == "vit_tiny":
        timm = pytest.importorskip("timm.models.vision_transformer")
        return timm.VisionTransformer(img_size=SIZE, patch_size=16, num_classes=published.CLASSES,
                                      embed_dim=6, depth=published.VIT_DEPTH, num_heads=3)
    vision = pytest.importorskip("torchvision.models")
    if name == "convnext_tiny":
        widths = [3 * 2**i for i in range(4)]
        return vision.ConvNeXt([
            vision.convnext.CNBlockConfig(width, 2 * width if i < 3 else None, depth)
            for i, (width, depth) in enumerate(zip(widths, published.CONVNEXT_DEPTHS))],
            num_classes=published.CLASSES)
    widths = [c for stage, count in enumerate(published.VGG_STAGES)
              for c in [published.WIDTH * min(2**stage, 8)] * count + ["M"]]
    net = vision.VGG(vision.vgg.make_layers(widths, batch_norm=True), init_weights=False)
    hidden, last = 64 * published.WIDTH, 8 * published.WIDTH
    nn = torch.nn
    net.classifier = nn.Sequential(
        nn.Linear(last * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden),
        nn.ReLU(), nn.Dropout(), nn.Linear(hidden, published.CLASSES))
    return net


def test_pytorch_gives_the_same_outputs(loaded):
    name, model, tensors, variables, _ = loaded
    net = torch_twin(name)
    import torch

    net.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in tensors.items()})
    with torch.no_grad():
        x = torch.from_numpy(inputs().astype(np.float32).transpose(0, 3, 1, 2).copy())
        theirs = net.eval()(x).numpy()
    np.testing.assert_allclose(outputs(model, variables, images()), theirs, atol=1e-4, rtol=1e-3)
