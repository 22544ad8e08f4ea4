"""The benchmark of own networks: the two networks are the same, and the figures are written."""

import functools
import json
import sys

import jax

from benchmarks import own_network, own_resnet
from unlearn_jax.config import default_config
from unlearn_jax.models import build_model


def test_the_own_network_is_the_packages():
    c = default_config()
    shapes = []
    for name in ("resnet18", f"{own_resnet.__file__}:ResNet18"):
        with c.unlocked():
            c.model.update(name=name, stem="small", width=16)
        model = build_model(c.model, 32, 0)
        shapes.append(sorted(x.shape for x in jax.tree.leaves(model.shapes())))
        images = jax.ShapeDtypeStruct((2, 32, 32, 3), "uint8")
        text = str(jax.make_jaxpr(functools.partial(model.apply, train=False))(
            model.shapes(), images))
        shapes.append(text.count("conv_general_dilated["))
    assert shapes[:2] == shapes[2:]


def test_figures_are_written_side_by_side(monkeypatch, tmp_path):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", [
        "benchmark", "--network", "resnet4", "--width", "2", "--image-size", "8", "--batch", "4",
        "--steps", "1", "--n", "2", "--members", "2", "--scaled", "--json", str(path)])
    own_network.main()
    rows = json.loads(path.read_text())["rows"]
    assert [(row["network"], row["members"]) for row in rows] == [
        ("resnet4", 2), ("the same, own", 2)]
    for row in rows:
        assert 0 < row["of_reference"]["min"] <= row["of_reference"]["max"]
    assert rows[0]["of_reference"]["median"] == 1
