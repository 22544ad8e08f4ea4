"""An exported network in PyTorch gives the same outputs; left out where PyTorch is missing."""

import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from test_export import member, write_stage

from unlearn_jax.export.__main__ import main

torch = pytest.importorskip("torch")
COMPILE_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def torchvision_name(name: str) -> str:
    """The twin's name of a tensor, which is ours with dots, as torchvision writes it."""
    name = re.sub(r"^stage(\d+)_block(\d+)", lambda m: f"layer{m[1]}.{int(m[2]) - 1}", name)
    for ours, theirs in (("stem_conv", "conv1"), ("stem_norm", "bn1"), ("output", "fc"),
                         ("shortcut_conv", "downsample.0"), ("shortcut_norm", "downsample.1"),
                         (".norm", ".bn")):
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("name, stem", [("resnet50", "small"), ("resnet50", "imagenet"),
                                        ("resnet10", "small")])
def test_pytorch_gives_the_same_outputs(tmp_path, name, stem):
    from benchmarks.torch_resnet import TorchResNet

    stage, model, variables, _ = write_stage(tmp_path, name=name, stem=stem, width=8,
                                             output="sigmoid", output_scale=40.0,
                                             output_offset=20.0)
    path = tmp_path / "model.safetensors"
    assert main([str(stage), "--seed=5", f"--to={path}"]) == 0
    net = TorchResNet(model)
    tensors = safetensors.numpy.load_file(path)
    wanted = {n: torchvision_name(n) for n in net.state_dict()
              if not n.endswith("num_batches_tracked")}
    assert sorted(wanted.values()) == sorted(tensors)
    net.load_state_dict({n: torch.from_numpy(tensors[theirs]) for n, theirs in wanted.items()},
                        strict=False)
    images = np.random.default_rng(2).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    with torch.no_grad():
        theirs = net.eval()(torch.from_numpy(images)).numpy()
    one = traverse_util.unflatten_dict(member(variables, 1), sep="/")
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False)[0], compiler_options=COMPILE_FAST)
    ours = np.asarray(apply(one, images))
    assert np.ptp(ours) > 0.01  # they do differ between images
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
