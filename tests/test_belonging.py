"""Networks whose running statistics are known, and the same weights where they do not belong."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from unlearn_jax.config import check_config, default_config
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.errors import ConfigError
from unlearn_jax.models import build_model
from unlearn_jax.networks.pretrained import PREPROCESS_OF, PretrainedError
from unlearn_jax.stages import workdir
from unlearn_jax.stages.belonging import Gap, alternatives, doubts, notes, statistics_gaps
from unlearn_jax.stages.loading import prepare
from unlearn_jax.storage.store import Store

SIZE = 32


def config(**changes):
    c = default_config()
    with c.unlocked():
        c.model.update({"name": "resnet18", "width": 4, "stem": "small", "preprocess": "torch"}
                       | changes)
    return c


@functools.cache
def images():
    return load_synthetic(80, SIZE, 3, 2.0).images


@functools.cache
def settled():
    """A network whose running statistics are those of images, as after training on them."""
    model = build_model(config().model, SIZE, 0)
    variables = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x + jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32)
        if jax.tree_util.keystr(path[-1:], simple=True) in ("scale", "bias") else x,
        variables["params"])
    pass_on = jax.jit(lambda v, x: {**v, "batch_stats": model.apply(v, x, train=True)[1]})
    variables = {**variables, "params": params}
    for _ in range(60):
        variables = pass_on(variables, images()[:64])
    return model, jax.device_get(variables)


def test_gaps_by_hand():
    """Two channels of a stem: one as in training, one whose mean and deviation are off."""
    model, variables = settled()
    gaps = statistics_gaps(model, variables, images()[:64])
    assert [g.layer for g in gaps[:3]] == ["stem_conv", "stage1_block1/conv1",
                                           "stage1_block1/conv2"]
    assert len(gaps) == 17 and all(g.shift < 0.2 and g.ratio < 1.2 for g in gaps[:3])
    flat = traverse_util.flatten_dict(variables, sep="/")
    mean, var = flat["batch_stats/stem_norm/mean"], flat["batch_stats/stem_norm/var"]
    moved = {**flat, "batch_stats/stem_norm/mean": mean + 3 * np.sqrt(var),
             "batch_stats/stem_norm/var": var / 16}
    (stem, *_) = statistics_gaps(model, traverse_util.unflatten_dict(moved, sep="/"),
                                 images()[:64])
    assert stem.shift == pytest.approx(12, rel=0.1) and stem.ratio == pytest.approx(4, rel=0.1)


def test_channels_that_are_switched_off_do_not_count():
    model, variables = settled()
    flat = traverse_util.flatten_dict(variables, sep="/")
    off = {**flat, "params/stem_norm/scale": np.array([0, 0, 1, 1], np.float32)}
    found = statistics_gaps(model, traverse_util.unflatten_dict(off, sep="/"), images()[:64])
    assert np.isfinite([(g.shift, g.ratio) for g in found]).all()
    none = {**flat, "params/stem_norm/scale": np.zeros(4, np.float32)}
    found = statistics_gaps(model, traverse_util.unflatten_dict(none, sep="/"), images()[:64])
    assert "stem_conv" not in [g.layer for g in found]


def test_doubts_go_by_the_median_layer_and_name_the_worst():
    right = [Gap("stem_conv", 0.1, 1.1), Gap("a", 5.3, 9.3), Gap("b", 50.0, 90.0)]
    assert doubts(right, {}) == ""
    shifted = [Gap("stem_conv", 0.1, 1.1), Gap("a", 7.5, 1.3), Gap("b", 9.0, 1.2)]
    text = doubts(shifted, {})
    assert "7.5 standard deviations" in text and "at most in b, by 9 and 1.2" in text
    assert "factor of 17" in doubts([Gap("a", 0.1, 17.0)], {})


def test_an_alternative_that_is_nearer_in_the_median_layer_is_named():
    own = [Gap(name, 0.4, 1.5) for name in "abcd"]
    nearer = [Gap(name, 0.1, 1.1) for name in "abcd"]
    assert "rather those of a network with an unpadded pool: in the median layer" in doubts(
        own, {"another stride": own, "an unpadded pool": nearer})
    assert doubts(nearer, {"an unpadded pool": own}) == ""
    text = doubts(own, {"preprocess='torch'": nearer})
    assert "preprocess='torch'" in text and "trained with other inputs" in text


def test_outlying_layers_name_no_network():
    """The images are of another kind; on those some layers are far off in any network."""
    far = [Gap("a", 90.0, 9.0), *(Gap(name, 0.5, 1.5) for name in "bcd"), Gap("e", 90.0, 9.0)]
    nearer = [Gap("a", 9.0, 1.1), *(Gap(name, 0.4, 1.4) for name in "bcd"), Gap("e", 9.0, 1.1)]
    assert doubts(far, {"an unpadded pool": nearer}) == ""
    # nor does a network that is nearer, but not near itself
    some = [Gap(name, 0.3, 1.1) for name in "abcde"]
    assert doubts(far, {"an unpadded pool": some}) == ""
    # Other inputs do, if they bring every layer nearer.
    assert "trained with other inputs" in doubts(far, {"preprocess='torch'": some})
    assert doubts(far, {"preprocess='torch'": [*some[:4], Gap("e", 91.0, 9.0)]}) == ""


def test_alternatives_have_the_same_tensors():
    c = config(name="resnet50", stem="imagenet")
    model = build_model(c.model, SIZE, 0)
    found = alternatives(model)
    assert list(found) == ["strides in the first 1x1 convolutions", "an unpadded pool",
                           "strides in the first 1x1 convolutions and an unpadded pool",
                           "preprocess='unit'", "preprocess='caffe'", "preprocess='vggface2'"]
    both = found["strides in the first 1x1 convolutions and an unpadded pool"].module.variant
    assert (both.stride_at_3x3, both.pool_padding) == (False, 0)
    for other in found.values():
        assert jax.tree.map(lambda x: x.shape, other.shapes()) \
            == jax.tree.map(lambda x: x.shape, model.shapes())
    c = config(name="resnet50", variant="vggface2", stem="imagenet")
    assert list(alternatives(build_model(c.model, SIZE, 0)))[:2] == [
        "strides in the 3x3 convolutions", "a padded pool"]
    # resnet18 has its strides in one place, and this stem no pool
    assert list(alternatives(build_model(config(preprocess="unit").model, SIZE, 0))) == [
        "preprocess='caffe'", "preprocess='vggface2'", "preprocess='torch'"]
    # somewhat lighter images would look like the other mean
    assert list(alternatives(build_model(config(preprocess="caffe").model, SIZE, 0))) == [
        "preprocess='unit'", "preprocess='torch'"]


def write(path, variables):
    """The network as torchvision would store it."""
    found = {}
    for name, x in traverse_util.flatten_dict(variables, sep="/").items():
        kind, *layer, leaf = name.split("/")
        if layer[0] in ("output",):
            continue
        stage = layer[0].partition("_")[0].removeprefix("stage")
        block = layer[0].partition("block")[2]
        if layer[0].startswith("stem"):
            base = "conv1" if "conv" in layer[0] else "bn1"
        elif layer[1].startswith("shortcut"):
            base = f"layer{stage}.{int(block) - 1}.downsample.{int('norm' in layer[1])}"
        else:
            base = f"layer{stage}.{int(block) - 1}." + layer[1].replace("norm", "bn")
        leaf = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
                "var": "running_var"}[leaf]
        x = np.asarray(x)
        found[f"{base}.{leaf}"] = np.ascontiguousarray(x.transpose(3, 2, 0, 1) if x.ndim == 4
                                                       else x)
    safetensors.numpy.save_file(found, path)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "settled.safetensors", settled()[1])


def noted(file, **changes):
    c = config(pretrained=file, **changes)
    check_config(c)
    return notes(c.model, build_model(c.model, SIZE, 0), images(), np.arange(16, 80))


def test_what_belongs_is_not_doubted_and_other_inputs_are(file):
    assert noted(file) == ()
    on_purpose, doubt = noted(file, preprocess="caffe", own_preprocess=True)
    assert "preprocess='caffe' is kept on purpose" in on_purpose and "with 'torch'" in on_purpose
    assert (f"config.model.pretrained={file!r}: the running statistics are rather those of a "
            "network with preprocess='torch'") in doubt


def test_without_pretrained_weights_nothing_is_said():
    c = config()
    assert notes(c.model, None, None, None) == ()


def test_a_file_that_does_not_fit_is_refused_before_any_training(file):
    with pytest.raises(PretrainedError, match="does not fit resnet10"):
        noted(file, name="resnet10")


@pytest.mark.parametrize("variant", PREPROCESS_OF)
def test_each_source_has_one_preprocess(file, variant):
    published = PREPROCESS_OF[variant]
    for other in {"unit", "caffe", "vggface2", "torch"} - {published}:
        c = config(pretrained=file, variant=variant, preprocess=other)
        with pytest.raises(ConfigError, match=f"preprocess is {other!r}.*variant={variant!r} were "
                                              f"trained with {published!r}.*own_preprocess=True"):
            check_config(c)
        c.model.own_preprocess = True
        check_config(c)
        c = config(variant=variant, preprocess=other)
        check_config(c)  # nothing pretrained
    check_config(config(pretrained=file, variant=variant, preprocess=published))


def test_the_report_is_told_before_any_training(tmp_path):
    c = config(name="resnet4", own_preprocess=True, preprocess="unit")
    model = build_model(c.model, 16, 0)
    path = write(tmp_path / "fresh.safetensors", jax.device_get(model.init(jax.random.key(0))))
    with c.unlocked():
        c.model.pretrained = path
        c.data.update(size=150, image_size=16)
    with workdir.claim(tmp_path / "work", c, "test", "test") as run:
        study = prepare(c, "test", Store(tmp_path / "store"), run, None)
        run.finish()
    warnings = json.loads((tmp_path / "work" / "run.json").read_text())["warnings"]
    assert study.notes and set(study.notes) <= set(warnings)
    assert any("preprocess='unit' is kept on purpose" in w for w in warnings)
