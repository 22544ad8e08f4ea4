"""A ResNet18 as a user writes it, plain Flax: the network of `python -m benchmarks.own_network`.

The same computation as the package's `resnet18` with width 16, stem `small` and one output.
"""

from flax import linen as nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x, train):
        def layer(x, kernel, stride, features):
            x = nn.Conv(features, (kernel, kernel), strides=stride, padding=kernel // 2,
                        use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        y = nn.relu(layer(x, 3, self.stride, self.features))
        y = layer(y, 3, 1, self.features)
        if x.shape != y.shape:
            x = layer(x, 1, self.stride, self.features)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Eight blocks in four stages."""

    num_outputs: int
    width: int = 16
    blocks: tuple[int, ...] = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.width, (3, 3), padding=1, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = Block(self.width * 2**stage, 2 if stage and not block else 1)(x, train)
        return nn.Dense(self.num_outputs)(x.mean(axis=(1, 2)))


def ResNet4(num_outputs):
    """One block, for tests of the benchmark."""
    return ResNet18(num_outputs, width=2, blocks=(1,))
