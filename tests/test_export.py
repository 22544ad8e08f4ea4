"""Models out of a store: read back by our own loader, by Flax and by Orbax.

What PyTorch makes of them stands in test_export_torch.py.
"""

import json

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from unlearn_jax.config import default_config
from unlearn_jax.export.__main__ import main
from unlearn_jax.models import build_model
from unlearn_jax.networks.pretrained import load_pretrained
from unlearn_jax.storage import checkpoints

SEEDS = (3, 5)


def write_stage(root, *, classes=0, seeds=SEEDS, sets="", name="resnet10", bad=None, **model):
    """A stage of random weights; returns (its folder, the model, variables [M, ...])."""
    config = default_config()
    with config.unlocked():
        config.data.task = "classification" if classes else "regression"
        config.data.image_size = 16
        config.model.update({"name": name, "width": 4, "stem": "small", "projection": 0,
                             "head_widths": (), "head_dropout": (), "variant": "torchvision"}
                            | model)
    built = build_model(config.model, 16, classes)
    rng = np.random.default_rng(1)
    flat = {path: _random(rng, path, (len(seeds), *leaf.shape))
            for path, leaf in traverse_util.flatten_dict(built.shapes(), sep="/").items()}
    if bad is not None:
        flat["params/output/bias"][bad] = np.nan
    variables = traverse_util.unflatten_dict(flat, sep="/")
    stage = root / "original" / "0123456789abcdef"
    checkpoints.save(stage / "checkpoint", variables, {
        "stage": "original", "forget_set": sets, "seeds": seeds, "epochs": 4,
        "config_name": "ft", "config": config.to_dict(), "data_fingerprint": "f00d",
        "class_names": tuple("abcdefgh"[:classes]), "label_unit": "years"})
    return stage, built, variables, config


def _random(rng, path, shape):
    if path.endswith(("/var", "/scale")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan = np.prod(shape[1:-1]) if len(shape) > 2 else 10
    return (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)


def member(variables, m):
    return {path: a[m] for path, a in traverse_util.flatten_dict(variables, sep="/").items()}


def fails(capsys, *args, code=2):
    assert main([str(a) for a in args]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) == 2, said
    return said


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
def test_safetensors_go_back_through_our_own_loader(tmp_path, name):
    stage, built, variables, config = write_stage(tmp_path, classes=5, name=name)
    path = tmp_path / "model.safetensors"
    assert main([str(stage), "--seed=5", f"--to={path}"]) == 0
    fresh = traverse_util.unflatten_dict({p: np.zeros_like(a) for p, a in
                                          member(variables, 1).items()}, sep="/")
    loaded, report = load_pretrained(path, fresh, config.model)
    assert report.initialised == () and report.left_over == ()
    found = traverse_util.flatten_dict(loaded, sep="/")
    for p, expected in member(variables, 1).items():
        np.testing.assert_array_equal(found[p], expected, err_msg=p)
    names = safetensors.numpy.load_file(path)
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight",
            "layer2.0.downsample.1.bias", "fc.weight", "fc.bias"} <= names.keys()
    assert names["fc.weight"].shape[0] == 5 and names["conv1.weight"].shape == (4, 3, 3, 3)


def test_the_json_says_how_to_use_the_model_and_how_it_was_made(tmp_path):
    stage, *_ = write_stage(tmp_path, classes=3, preprocess="torch")
    assert main([str(stage), "--seed=3", f"--to={tmp_path / 'm.safetensors'}"]) == 0
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["weights"] == "torchvision" and record["file"] == "m.safetensors"
    assert record["preprocessing"]["mean"] == [123.675, 116.28, 103.53]
    assert record["preprocessing"]["image_size"] == [16, 16]
    assert record["output"] == {"task": "classification", "logits": 3,
                                "class_names": ["a", "b", "c"]}
    assert record["network"]["stem"] == {"kernel": 3, "stride": 1, "max_pool": False}
    assert record["made_by"]["key"] == stage.name and record["made_by"]["seed"] == 3
    assert record["made_by"]["config"]["data"]["image_size"] == 16
    assert set(record["versions"]) >= {"jax", "flax", "safetensors"}


def test_a_regression_with_a_head_and_other_variants(tmp_path):
    stage, _, variables, _ = write_stage(tmp_path / "a", projection=6, head_widths=(7,),
                                         head_dropout=(0.5,), output="sigmoid",
                                         output_scale=40.0, output_offset=20.0)
    assert main([str(stage), "--seed=3", f"--to={tmp_path / 'a.safetensors'}"]) == 0
    names = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert names["projection.weight"].shape[0] == 6 and names["head_dense1.weight"].shape == (7, 6)
    output = json.loads((tmp_path / "a.json").read_text())["output"]
    assert output["formula"].startswith("20.0 + 40.0 * sigmoid(z)")
    assert (output["label_unit"], output["label_min"]) == ("years", 20.0)
    stage, _, variables, _ = write_stage(tmp_path / "b", name="resnet50", variant="keras")
    assert main([str(stage), "--seed=3", f"--to={tmp_path / 'b.safetensors'}"]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["weights"] == "unlearn_jax"
    names = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(names["params/stem_conv/kernel"],
                                  variables["params"]["stem_conv"]["kernel"][0])


def test_flax_and_orbax_read_what_is_written_for_them(tmp_path):
    stage, _, variables, _ = write_stage(tmp_path)
    for ending in ("msgpack", "orbax"):
        path = tmp_path / f"{ending}-model.{ending}"
        assert main([str(stage), "--seed=5", f"--to={path}"]) == 0
        assert path.with_suffix(".json").is_file()
        tree = (flax.serialization.msgpack_restore(path.read_bytes()) if ending == "msgpack"
                else ocp.load(path / "tree"))
        found = traverse_util.flatten_dict(tree, sep="/")
        expected = member(variables, 1)
        assert found.keys() == expected.keys()
        for p, array in expected.items():
            np.testing.assert_array_equal(found[p], array)


def test_wrong_calls_are_refused_and_write_nothing(tmp_path, capsys):
    stage, *_ = write_stage(tmp_path / "s", bad=1)
    to = f"--to={tmp_path / 'm.safetensors'}"
    assert "no model of seed 9\nallowed: 3, 5" in fails(capsys, stage, "--seed=9", to)
    assert "give one as --seed: 3, 5" in fails(capsys, stage, to)
    assert "ends with '.pt'\nallowed: .safetensors" in fails(capsys, stage, "--seed=3",
                                                             f"--to={tmp_path / 'm.pt'}")
    assert "not finite" in fails(capsys, stage, "--seed=5", to)
    assert "no model of forget set 'x'" in fails(capsys, stage, "--seed=3", "--forget-set=x", to)
    assert "there is no folder" in fails(capsys, stage, "--seed=3",
                                         f"--to={tmp_path / 'none' / 'm.msgpack'}")
    assert main([str(tmp_path), "--seed=3", to]) == 2  # a store is no stage
    assert "is not a checkpoint" in capsys.readouterr().err
    assert "usage:" in fails(capsys, stage, "--seed=3")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    for name in ("m.json", "m.safetensors"):
        (tmp_path / name).write_text("mine")
        assert f"{name} exists" in fails(capsys, stage, "--seed=3", to)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    several, *_ = write_stage(tmp_path / "t", seeds=(3, 3), sets=["a", "b"])
    assert "--forget-set: a, b" in fails(capsys, several, "--seed=3", to)
    assert main([str(several), "--forget-set=b", to]) == 0
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["made_by"]["forget_set"] == "b"


def test_a_damaged_stage_ends_with_1(tmp_path, capsys):
    stage, *_ = write_stage(tmp_path / "s")
    path = stage / "checkpoint" / "metadata.json"
    path.write_bytes(path.read_bytes().replace(b'"seeds"', b'"seedz"'))
    assert main([str(stage), "--seed=3", f"--to={tmp_path / 'm.msgpack'}"]) == 1
    assert "is damaged" in capsys.readouterr().err
