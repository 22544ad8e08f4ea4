"""The benchmark's network in PyTorch: torchvision's ResNet with our parameter names.

Only `benchmarks.versus_torch` and `benchmarks.audit` need PyTorch (requirements-bench.txt).
"""

import jax
import numpy as np
import torch
from flax import traverse_util
from torch import nn

from unlearn_jax.models import STEMS, Model, Variables


class Block(nn.Module):
    """One residual block; bottlenecks have the stride at the 3x3 convolution (v1.5)."""

    def __init__(self, channels: int, features: int, stride: int, bottleneck: bool):
        super().__init__()
        path = [(1, 1, features), (3, stride, features), (1, 1, 4 * features)] if bottleneck \
            else [(3, stride, features), (3, 1, features)]
        self.depth = len(path)
        out = path[-1][2]
        if stride != 1 or channels != out:
            self.shortcut_conv = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(out)
        for i, (kernel, step, width) in enumerate(path, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, kernel, step, kernel // 2,
                                                  bias=False))
            self.add_module(f"norm{i}", nn.BatchNorm2d(width))
            channels = width
        self.out = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = torch.relu_(y)
        if hasattr(self, "shortcut_conv"):
            x = self.shortcut_norm(self.shortcut_conv(x))
        return torch.relu_(y.add_(x))


class TorchResNet(nn.Module):
    """uint8 images `[B, H, W, 3]` to `[B]` label units, like our variant 'torchvision'."""

    def __init__(self, model: Model):
        super().__init__()
        m = model.module
        if m.head or m.projection or m.num_classes or m.preprocess != "unit":
            raise ValueError(f"only the plain regression network has a twin here, not {m}")
        kernel, stride, self.pool = STEMS[m.stem]
        self.stem_conv = nn.Conv2d(3, m.width, kernel, stride, kernel // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(m.width)
        channels, self.blocks = m.width, []
        for stage, blocks in enumerate(m.blocks):
            for block in range(blocks):
                made = Block(channels, m.width * 2**stage, 2 if stage and not block else 1,
                             m.bottleneck)
                self.blocks.append(f"stage{stage + 1}_block{block + 1}")
                self.add_module(self.blocks[-1], made)
                channels = made.out
        self.output = nn.Linear(channels, 1)
        self.scale, self.offset = m.output_scale, m.output_offset

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # A permuted NHWC batch already has PyTorch's channels_last layout.
        x = images.permute(0, 3, 1, 2).to(torch.float32).sub_(127.5).div_(127.5)
        x = torch.relu_(self.stem_norm(self.stem_conv(x)))
        if self.pool:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for name in self.blocks:
            x = getattr(self, name)(x)
        value = torch.sigmoid(self.output(x.float().mean((2, 3)))[:, 0].float())
        return self.offset + self.scale * value


def torch_twin(model: Model, variables: Variables) -> TorchResNet:
    """A PyTorch network with one member's variables, channels_last, in training mode."""
    net = TorchResNet(model)
    flat = traverse_util.flatten_dict(variables, sep="/")
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
              "var": "running_var"}
    with torch.no_grad():
        for path, value in flat.items():
            module, leaf = path.split("/", 1)[1].rsplit("/", 1)
            ours = torch.from_numpy(to_torch_axes(value))
            getattr(net.get_submodule(module.replace("/", ".")), leaves[leaf]).copy_(ours)
    return net.to(memory_format=torch.channels_last).train()


def to_torch_axes(value: jax.Array) -> np.ndarray:
    """HWIO to OIHW, and (in, out) to (out, in)."""
    value = np.array(value)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else \
        value.T if value.ndim == 2 else value
