"""A state dict of PyTorch with torchvision's names is M_O; left out where PyTorch is missing."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from test_export import write_stage

from unlearn_jax.stages.weights import read_weights

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("classes", [0, 7])
def test_a_resnet18_of_pytorch_gives_the_same_outputs(tmp_path, classes):
    from test_export_torch import torchvision_name

    from benchmarks.torch_resnet import TorchResNet

    _, model, _, config = write_stage(tmp_path, name="resnet18", stem="imagenet", width=4,
                                      classes=classes, preprocess="torch")
    torch.manual_seed(1)
    net = TorchResNet(model).train()
    images = np.random.default_rng(2).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    with torch.no_grad():
        net(torch.from_numpy(images))  # its running statistics are no longer the initial ones
        theirs = net.eval()(torch.from_numpy(images)).numpy()
    path = tmp_path / "resnet18.safetensors"
    safetensors.numpy.save_file({torchvision_name(name): np.ascontiguousarray(tensor.numpy())
                                 for name, tensor in net.state_dict().items()}, path)
    found = read_weights(path, "original.path", model, config.model)
    ours = np.asarray(jax.jit(lambda v, x: model.apply(v, x, train=False)[0])(found, images))
    assert ours.shape == theirs.shape and np.ptp(ours) > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
