"""Whole networks read from files: what an export wrote comes back, and what does not fit is named.
"""

from pathlib import Path

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint
import own_networks
import pytest
import safetensors.numpy
from flax import traverse_util
from orbax.checkpoint import v1 as ocp
from test_export import member, write_stage

from unlearn_jax.config import default_config
from unlearn_jax.errors import InputError
from unlearn_jax.export.__main__ import main as export
from unlearn_jax.models import build_model
from unlearn_jax.stages.weights import digest, read_weights

KEY = "original.path"


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def equal(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.parametrize("name, model", [
    ("m.safetensors", {"classes": 5, "name": "resnet50"}),
    ("m.safetensors", {"head_widths": (6, 4), "head_dropout": (0.5, 0.2), "projection": 3}),
    ("m.safetensors", {"variant": "keras", "name": "resnet50"}),
    ("m.msgpack", {"classes": 3}),
    ("m.orbax", {}),
])
def test_an_exported_model_comes_back(tmp_path, name, model):
    stage, built, variables, config = write_stage(tmp_path, **model)
    assert export([str(stage), "--seed=5", f"--to={tmp_path / name}"]) == 0
    found = read_weights(tmp_path / name, KEY, built, config.model)
    assert jax.tree.structure(found) == jax.tree.structure(built.shapes())
    equal(flat(found), member(variables, 1))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A network, its config, and its tree of one member."""
    _, built, variables, config = write_stage(tmp_path_factory.mktemp("stage"), classes=3,
                                              name="resnet4")
    return built, config, traverse_util.unflatten_dict(member(variables, 0), sep="/")


def test_orbax_checkpoints_of_train_states_are_read_without_the_optimiser(tmp_path, whole):
    built, config, tree = whole
    state = {**tree, "step": np.array(3), "opt_state": (np.ones(2, np.float32),)}
    ocp.save(tmp_path / "v1", tree)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "v0", state)
    with orbax.checkpoint.CheckpointManager(tmp_path / "manager") as manager:
        manager.save(7, args=orbax.checkpoint.args.StandardSave(tree))
        manager.wait_until_finished()
    for path in (tmp_path / "v1", tmp_path / "v0", tmp_path / "manager" / "7"):
        equal(flat(read_weights(path, KEY, built, config.model)), flat(tree))


def test_a_train_state_of_flax_is_read_without_the_optimiser(tmp_path, whole):
    built, config, tree = whole
    path = tmp_path / "state.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(
        {**tree, "step": np.array(3), "opt_state": {"0": np.ones(2, np.float32)}}))
    equal(flat(read_weights(path, KEY, built, config.model)), flat(tree))


def test_a_network_of_ones_own_without_norms(tmp_path):
    config = default_config()
    with config.unlocked():
        config.model.name = f"{Path(own_networks.__file__)}:Tokens"
    built = build_model(config.model, 8, 3)
    rng = np.random.default_rng(0)
    tree = {"params": jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float16),
                                   built.shapes()["params"])}
    (tmp_path / "m.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    safetensors.numpy.save_file(flat(tree), tmp_path / "m.safetensors")
    for name in ("m.msgpack", "m.safetensors"):
        found = read_weights(tmp_path / name, KEY, built, config.model)
        assert found["batch_stats"] == {} == built.shapes()["batch_stats"]
        equal(flat({"params": found["params"]}), {k: np.float32(a) for k, a in flat(tree).items()})


def fails(path, whole):
    with pytest.raises(InputError) as refused:
        read_weights(path, KEY, whole[0], whole[1].model)
    said = str(refused.value)
    assert len(said.splitlines()) == 2 and said.startswith(f"config.{KEY}: {path} ")
    return said


def save(path, **changes):
    """A file with PyTorch's names and changed tensors; None: without this one."""
    stage, *_ = write_stage(path.parent / path.stem, classes=3, name="resnet4", seeds=(3,))
    assert export([str(stage), f"--to={path}"]) == 0
    found = safetensors.numpy.load_file(path) | changes
    safetensors.numpy.save_file({k: v for k, v in found.items() if v is not None}, path)


@pytest.mark.parametrize("name, value, said", [
    ("fc.bias", None, "missing in the file: fc.bias"),
    ("layer9.0.conv1.weight", np.ones(3, np.float32), "not of this network: layer9.0.conv1.weight"),
    ("fc.weight", np.ones((9, 4), np.float32), "fc.weight is [9, 4], the network's [3, 4]"),
    ("fc.bias", np.ones(3, np.int32), "no floats: fc.bias (I32)"),
    ("fc.bias", np.full(3, np.nan, np.float32), "holds numbers that are not finite, in fc.bias"),
])
def test_a_tensor_that_does_not_fit_is_named(tmp_path, whole, name, value, said):
    path = tmp_path / "m.safetensors"
    save(path, **{name: value})
    assert said in fails(path, whole)


def test_counters_of_batches_are_left(tmp_path, whole):
    path = tmp_path / "m.safetensors"
    save(path, **{"bn1.num_batches_tracked": np.array(7)})
    read_weights(path, KEY, whole[0], whole[1].model)


def test_files_of_another_kind_are_refused(tmp_path, whole):
    made = {"model.pt": b"PK", "m.safetensors": b"nothing", "m.msgpack": b"\xc1nothing",
            "list.msgpack": flax.serialization.msgpack_serialize([1, 2]),
            "bare.msgpack": flax.serialization.msgpack_serialize(whole[2]["params"])}
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    assert "ends with '.pt'" in fails(tmp_path / "model.pt", whole)
    assert "no whole safetensors file" in fails(tmp_path / "m.safetensors", whole)
    assert "no whole msgpack file" in fails(tmp_path / "m.msgpack", whole)
    for name in ("list.msgpack", "bare.msgpack"):
        assert "allowed: a tree with 'params'" in fails(tmp_path / name, whole)
    (tmp_path / "folder").mkdir()
    assert "no whole Orbax checkpoint" in fails(tmp_path / "folder", whole)


def test_the_digest_is_of_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"1")
        (tmp_path / f"{name}.file").write_bytes(b"1")
    assert digest(tmp_path / "a", KEY) == digest(tmp_path / "b", KEY)
    assert digest(tmp_path / "a.file", KEY) == digest(tmp_path / "b.file", KEY)
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    (tmp_path / "b.file").write_bytes(b"2")
    assert digest(tmp_path / "a", KEY) != digest(tmp_path / "b", KEY)
    assert digest(tmp_path / "a.file", KEY) != digest(tmp_path / "b.file", KEY)
    with pytest.raises(InputError, match="config.original.path: .*none cannot be read"):
        digest(tmp_path / "none", KEY)
