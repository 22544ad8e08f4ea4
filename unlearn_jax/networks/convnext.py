"""ConvNeXt-Tiny.

    stem_conv, stem_norm
    stage1_block1/depthwise, norm, fc1, fc2, layer_scale
    downsample2/norm, conv        before stage 2, 3 and 4
    norm, output                  of the mean over all pixels

Source: Liu et al. 2022 (arXiv:2201.03545); torchvision.models.convnext_tiny. Deviations: no
stochastic depth; initial kernels are normal, not cut at two standard deviations.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.networks.draws import Normal

DEPTHS = (3, 3, 9, 3)
_DRAW = Normal(0.02)
_EPSILON = 1e-6


class ConvNeXt(nn.Module):
    """Maps preprocessed images `[B, H, W, 3]` to float32 `[B, num_outputs]`.

    Attributes:
      num_outputs: logits, or 1.
      channels: of the first stage, 96 as published.
      patch: kernel and stride of the first convolution, pixels; 4 as published.
      depths: blocks by stage.
      dtype: of the arithmetic; the last layer is in float32.
    """

    num_outputs: int
    channels: int = 96
    patch: int = 4
    depths: tuple[int, ...] = DEPTHS
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing differs in training
        sides = (self.patch, self.patch)
        x = nn.Conv(self.channels, sides, strides=sides, padding="VALID", dtype=self.dtype,
                    kernel_init=_DRAW, name="stem_conv")(x)
        x = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="stem_norm")(x)
        for stage, depth in enumerate(self.depths, start=1):
            if stage > 1:
                x = Downsample(self.dtype, name=f"downsample{stage}")(x)
            for block in range(1, depth + 1):
                x = ConvNeXtBlock(self.dtype, name=f"stage{stage}_block{block}")(x)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        x = nn.LayerNorm(epsilon=_EPSILON, name="norm")(x)
        return nn.Dense(self.num_outputs, kernel_init=_DRAW, name="output")(x)


class Downsample(nn.Module):
    """Half the pixels a side, twice the channels."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.Conv(2 * x.shape[-1], (2, 2), strides=(2, 2), padding="VALID", dtype=self.dtype,
                       kernel_init=_DRAW, name="conv")(x)


class ConvNeXtBlock(nn.Module):
    """A depthwise 7x7 convolution and two dense layers for each pixel, added to the input."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = nn.Conv(channels, (7, 7), padding=3, feature_group_count=channels, dtype=self.dtype,
                    kernel_init=_DRAW, name="depthwise")(x)
        y = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")(y)
        y = nn.Dense(4 * channels, dtype=self.dtype, kernel_init=_DRAW, name="fc1")(y)
        y = nn.Dense(channels, dtype=self.dtype, kernel_init=_DRAW,
                     name="fc2")(nn.gelu(y, approximate=False))
        # The shape is the published one.
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (channels, 1, 1))
        return x + y * scale.reshape(1, 1, 1, channels).astype(y.dtype)
