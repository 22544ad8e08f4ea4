"""Programs for a GPU, compiled without one: where jax's CUDA plug-in is installed."""

import argparse
import dataclasses
import json
import sys

import pytest

from benchmarks import gpu_program, hlo
from benchmarks.described import (
    H200,
    described_mesh,
    launches,
    load_device,
    missing,
)
from unlearn_jax.engine import memory
from unlearn_jax.engine.layout import Layout
from unlearn_jax.errors import InputError
from unlearn_jax.networks import norm

compiles = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


def flags(**changes):
    usual = dict(network="resnet4", stem="small", width=8, pixels=16, batch=8, dtype="bfloat16",
                 optimizer="adam", steps=3)
    return argparse.Namespace(**usual | changes)


@compiles
def test_figures_are_written_with_their_context(monkeypatch, capsys, tmp_path):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [
        "gpu_program", "--network", "resnet4", "--width", "8", "--pixels", "16", "--batch", "8",
        "--steps", "3", "--members", "1", "2", "--json", str(path), "--text", str(tmp_path)])
    gpu_program.main()
    content = json.loads(path.read_text())
    assert content["device"] == "NVIDIA H200" and content["versions"]["jax"]
    assert [row["members"] for row in content["rows"]] == [1, 2]
    for row in content["rows"]:
        # a stem and two convolutions; the images take no gradient
        assert row["convolutions"] == 3 * 3 - 1 and row["float32_convolutions"] == 0
        assert row["convolutions_by_dtype"] == {"bf16": 8}
        assert row["kernels"] == pytest.approx(sum(row["kernels_by_kind"].values()))
        assert row["kernels"] > row["convolutions"] and row["donated"]
        assert row["megabytes"] > 0 and row["temp_mb_per_member"] > 0
        assert row["images_per_s_bound"] > 0 and row["compile_s"] > 0
    # Two members share what is not a convolution.
    first, second = content["rows"]
    assert second["kernels"] < 0.8 * first["kernels"]
    assert second["gflop"] == pytest.approx(first["gflop"], rel=1e-3)
    assert "| resnet4, 16 px, batch 8 | 2 |" in capsys.readouterr().out
    assert hlo.kernels((tmp_path / "resnet4_2.hlo").read_text())


def figures_of(recipe, model, **changes):
    """The row of a training step: of two members and three steps."""
    device = load_device(H200)
    with described_mesh(device) as mesh:
        layout = Layout(mesh, 2, 3, **changes)
        return gpu_program.describe(*gpu_program.shaped_programs(recipe, model, layout), device)[0]


@compiles
def test_convolutions_compute_in_the_models_type():
    row = figures_of(*gpu_program.training(flags(dtype="float32")))
    assert row["convolutions_by_dtype"] == {"f32": 8} and row["float32_convolutions"] == 8


@compiles
@pytest.mark.parametrize("graphs", [True, False])
def test_a_call_is_one_cuda_graph_unless_told(graphs):
    row = figures_of(*gpu_program.training(flags()), cuda_graphs=graphs)
    assert ((row["graphs"], row["other_launches"]) == (1, 0)) is graphs
    assert graphs or row["other_launches"] > row["convolutions"]


@compiles
def test_the_guard_does_not_read_the_weights_again():
    # Small images and wide layers: most bytes are those of weights and their moments.
    recipe, model = gpu_program.training(flags(width=128, pixels=8, batch=2))
    own = dataclasses.replace(recipe, step=lambda *args: recipe.step(*args))  # without the mark
    seen, whole = (figures_of(r, model)["megabytes"] for r in (recipe, own))
    assert whole - seen > 2 * memory.tree_bytes(model.shapes()["params"]) / 1e6


@compiles
def test_batch_norm_moves_fewer_bytes_written_out(monkeypatch):
    training = gpu_program.training(flags(batch=64, width=32))
    ours = figures_of(*training)
    monkeypatch.setattr(norm, "written_out", lambda: False)
    flax = figures_of(*training)
    assert ours["megabytes"] < flax["megabytes"] and ours["kernels"] < flax["kernels"]
    assert ours["gflop"] == pytest.approx(flax["gflop"])


@compiles
def test_a_description_that_xla_does_not_take_is_named(tmp_path):
    content = json.loads(H200.read_text())
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content | {"name": "mine", "target_config": ["no_such_field: 1"]}))
    with pytest.raises(InputError, match="mine: XLA does not take its target_config"):
        with described_mesh(load_device(path)):
            pass


def test_a_description_lacks_nothing(tmp_path):
    path = tmp_path / "device.json"
    path.write_text(json.dumps({"name": "mine"}))
    with pytest.raises(InputError, match="must have the keys bytes_per_s.*; it has name"):
        load_device(path)
    with pytest.raises(InputError, match="absent.json is no description"):
        load_device(tmp_path / "absent.json")


def test_figures_follow_from_kernels_and_ceilings():
    device = load_device(H200)
    made = [
        hlo.Kernel("convolution", 4, True, 4.8e6, 0.0, 9.89e9, "bf16", "bound by operations"),
        hlo.Kernel("reduction", 4, True, 2.4e7, 2.4e7, 0.0, "f32", "bound by bytes"),
        hlo.Kernel("copy", 4, True, 8.0, 8.0, 0.0, "f32", "bound by its launch"),
        hlo.Kernel("transpose", 1, False, 1e6, 1e6, 0.0, "f32", "once a call")]
    row = gpu_program.figures(made, 4, 10, device)
    assert row["kernels"] == 3.25 and row["copies_in_loop"] == 1 and row["transposes_in_loop"] == 0
    assert row["megabytes"] == pytest.approx(4.8 + 48 + 16e-6 + 0.5)
    assert row["megabytes_outside_loop"] == pytest.approx(2) and row["gflop"] == 9.89
    assert row["images_per_s_bound"] == pytest.approx(40 / (4 * (1e-5 + 1e-5 + 1e-6) + 1e-6))


def test_what_the_host_launches():
    sequence = """000: kCommandBuffer [source | next=003]
    001: kCopy  [source] kCopy
    002: kWhile [prev=001 | sink]
condition:
        003: kCustomKernel [source | sink] compare
      body:
        004: kCustomKernel [source] add
005: kConvolution [prev=000] kConvolution
000: kCommandBuffer [prev=005 | sink]
    006: kCopy [source] kCopy
"""
    assert launches(sequence) == (2, 1)


@pytest.mark.skipif(not missing(), reason="jax's CUDA plug-in is installed")
def test_a_missing_plug_in_is_named():
    with pytest.raises(InputError, match="requirements-gpu.txt"):
        with described_mesh(load_device(H200)):
            pass


def test_flags_that_make_no_sense_are_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_program", "--members", "0"])
    with pytest.raises(InputError, match=r"--members is \[0\]; it must be at least 1"):
        gpu_program.main()


