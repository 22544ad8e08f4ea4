"""Channels: which are chosen, and what perturbing them changes."""

import numpy as np
import pytest
from tiny_population import leaves, net, preparation, setting
from toy import tree_close

from unlearn_jax.config import default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, channels
from unlearn_jax.methods.channels import channel_layers, perturbed, top_channels
from unlearn_jax.models import build_model

BOTH = ["activation", "gradmask"]
# Members 0 and 1: of six channels, a share of a half is three.
SCORES = {"stem_conv": np.array([[5, 1], [-1, -2]], np.float32),
          "stage1_block1/conv1": np.array([[2, 9], [-3, 0]], np.float32),
          "stage1_block1/conv2": np.array([[3, 4], [np.nan, 7]], np.float32)}
CHOSEN = {"stem_conv": [[True, False], [False, False]],
          "stage1_block1/conv1": [[False, True], [False, False]],
          "stage1_block1/conv2": [[False, True], [False, True]]}


def test_the_best_channels_of_all_layers_together():
    scores = {"a": np.array([0.5, 3.0, 1.0]), "b": np.array([2.0, -1.0, 0.0, 0.7])}
    for share, a, b in ((0.1, [0, 1, 0], [0, 0, 0, 0]), (2 / 7, [0, 1, 0], [1, 0, 0, 0]),
                        (0.5, [0, 1, 1], [1, 0, 0, 1]), (0.0, [0, 0, 0], [0, 0, 0, 0]),
                        (1.0, [1, 1, 1], [1, 0, 0, 1])):  # none with a score of 0 or less
        found = top_channels(scores, share)
        np.testing.assert_array_equal(found["a"], np.array(a, bool), str(share))
        np.testing.assert_array_equal(found["b"], np.array(b, bool), str(share))
    # the share of 0.1 of ten channels is one, however 0.1 is rounded
    assert sum(top_channels({"a": np.arange(1.0, 11.0)}, 0.1)["a"]) == 1


def test_the_layers_of_a_network():
    assert channel_layers(net()) == {"stem_conv": 2, "stage1_block1/conv1": 2,
                                     "stage1_block1/conv2": 2}
    assert list(channel_layers(net(frozen=(r"stem", r"conv1/kernel")))) == ["stage1_block1/conv2"]
    c = default_config().model
    with c.unlocked():
        c.update(name="resnet50", variant="keras", width=2)
    model = build_model(c, 32, 0)
    layers = channel_layers(model)
    assert len(layers) == 1 + 3 * (3 + 4 + 6 + 3) and layers["stage2_block3/conv3"] == 16
    assert [model.norm_of(n) for n in ("stem_conv", "stage1_block1/conv2")] == [
        "stem_norm", "stage1_block1/norm2"]


def whose(path, mask):
    """Which entries of a leaf belong to chosen channels, `[M, C]` on its last axis."""
    layer = path.split("/", 1)[1].rpartition("/")[0].replace("norm", "conv")
    return None if layer not in mask else np.array(mask[layer])


def test_noise_moves_the_chosen_channels_by_their_size_and_nothing_else():
    model = net()
    before = preparation(model)
    given = setting("activation", model=model, share=0.5, strength=0.01)
    prepared = perturbed(given, before, SCORES)
    for layer, mask in CHOSEN.items():
        np.testing.assert_array_equal(prepared.touched[layer], mask, layer)
    start, after = leaves(before.variables), leaves(prepared.variables)
    moved = []
    for path, old in start.items():
        mask = whose(path, CHOSEN)
        for m in range(2):
            differs = old[m] != after[path][m]
            if mask is None or path.startswith("batch_stats"):
                assert not differs.any(), path
                continue
            assert not differs[..., ~mask[m]].any() and differs[..., mask[m]].all(), path
            size = 0.01 * np.sqrt(np.mean(old[m] ** 2))
            moved.append(((after[path][m] - old[m]) / size)[..., mask[m]].ravel())
    moved = np.concatenate(moved)
    # 27 or 18 weights of a kernel and two of a norm, for each of the four channels
    assert len(moved) == 27 + 3 * 18 + 4 * 2
    assert abs(moved.mean()) < 4 / np.sqrt(len(moved)) and np.abs(moved).max() < 5
    assert abs(moved.var() - 1) < 4 * np.sqrt(2 / len(moved))


def test_a_reset_channel_is_that_of_a_fresh_network():
    model = net()
    before = preparation(model)
    prepared = perturbed(setting("activation", model=model, share=0.5, perturb="reset"), before,
                         SCORES)
    start, after = leaves(before.variables), leaves(prepared.variables)
    fresh = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
    for path, old in start.items():
        mask, part = whose(path, CHOSEN), path.rpartition("/")[2]
        for m in range(2):
            kept = slice(None) if mask is None else ~mask[m]
            np.testing.assert_array_equal(after[path][m][..., kept], old[m][..., kept], path)
            if mask is not None and part in fresh:
                np.testing.assert_array_equal(after[path][m][..., mask[m]], fresh[part], path)
            elif mask is not None:
                assert (after[path][m][..., mask[m]] != old[m][..., mask[m]]).all()


@pytest.mark.parametrize("perturb", ["noise", "reset"])
def test_frozen_parameters_stay_and_so_do_the_statistics_of_a_frozen_norm(perturb):
    model = net(frozen=(r"stem", r"stage1_block1/norm1"))
    before = preparation(model)
    scores = {layer: SCORES[layer] for layer in list(SCORES)[1:]}
    prepared = perturbed(setting("gradmask", model=model, share=1.0, perturb=perturb), before,
                         scores)
    start, after = leaves(before.variables), leaves(prepared.variables)
    moved = {path for path in start if (start[path] != after[path]).any()}
    expected = {"params/stage1_block1/conv1/kernel", "params/stage1_block1/conv2/kernel",
                "params/stage1_block1/norm2/scale", "params/stage1_block1/norm2/bias"}
    if perturb == "reset":
        expected |= {f"batch_stats/stage1_block1/norm2/{part}" for part in ("mean", "var")}
    assert moved == expected
    assert "stem_conv" not in prepared.touched


def test_nothing_is_chosen_or_nothing_added_and_nothing_changes():
    model = net()
    for options in (dict(share=0.0), dict(strength=0.0)):
        before = preparation(model)
        prepared = perturbed(setting("activation", model=model, **options), before, SCORES)
        tree_close(prepared.variables, before.variables, rtol=0)


def test_the_key_decides_the_noise():
    model, given = net(), setting("activation", share=1.0)
    same = {layer: np.ones_like(s) for layer, s in SCORES.items()}
    one, again = (perturbed(given, preparation(model), same).variables for _ in range(2))
    tree_close(one, again, rtol=0)
    kernel = np.asarray(one["params"]["stem_conv"]["kernel"])
    start = np.asarray(preparation(model).variables["params"]["stem_conv"]["kernel"])
    assert (kernel[0] - start[0] != kernel[1] - start[1]).all()


@pytest.mark.parametrize("name", BOTH)
def test_impossible_options_are_refused(name):
    check = METHODS[name].check
    check(setting(name))
    assert METHODS[name].options == channels.OPTIONS
    for key, value, allowed in (("share", 1.5, "from 0 to 1"), ("strength", -1.0, "at least 0"),
                                ("perturb", "zero", "one of 'noise', 'reset'")):
        with pytest.raises(ConfigError, match=rf"unlearn.{name}.{key} is .*; allowed: {allowed}"):
            check(setting(name, **{key: value}))
    with pytest.raises(ConfigError, match="config.model.frozen is .*at least one convolution"):
        check(setting(name, model=net(frozen=("conv",))))
