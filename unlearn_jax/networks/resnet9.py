"""ResNet9, the small residual network that won DAWNBench's CIFAR10 race for one GPU.

    stem                  3x3 convolution
    stage1, 2, 3          3x3 convolution to twice the channels, then a 2x2 max-pool
    stage1, 3/residual1   two more convolutions, whose output is added to their input
    output                after a maximum over all pixels; times 1/8

Every convolution has a batch norm and a ReLU. Source: David Page, "How to train your ResNet",
myrtle.ai 2018, part 4 (github.com/davidcpage/cifar10-fast, `dawn.py`). Deviations: the output has
a bias, which a regression needs; the last pool covers the whole map at any image size, as there at
32 pixels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.networks.conv_norm import ConvNorm
from unlearn_jax.networks.draws import Normal

LEAST_SIZE = 8  # pixels that leave one after three pools


class ResNet9(nn.Module):
    """Maps preprocessed images `[B, H, W, 3]` to float32 `[B, num_outputs]`.

    Attributes:
      num_outputs: logits, or 1.
      width: channels of the stem, 64 as published.
      dtype: of the arithmetic; the last layer is in float32.
      residual: for each stage, whether it has the two convolutions beside a shortcut.
    """

    num_outputs: int
    width: int = 64
    dtype: str = "float32"
    residual: tuple[bool, ...] = (True, False, True)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvNorm(self.width, dtype=self.dtype, name="stem")(x, train)
        for stage, residual in enumerate(self.residual, start=1):
            x = PooledStage(self.width * 2**stage, residual, self.dtype,
                            name=f"stage{stage}")(x, train)
        x = x.astype(jnp.float32).max(axis=(1, 2))
        return nn.Dense(self.num_outputs, kernel_init=Normal(), name="output")(x) / 8


class PooledStage(nn.Module):
    """A convolution with a pool, then perhaps two convolutions beside a shortcut."""

    features: int
    residual: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvNorm(self.features, dtype=self.dtype, name="first")(x, train)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        if not self.residual:
            return x
        y = ConvNorm(self.features, dtype=self.dtype, name="residual1")(x, train)
        return x + ConvNorm(self.features, dtype=self.dtype, name="residual2")(y, train)
