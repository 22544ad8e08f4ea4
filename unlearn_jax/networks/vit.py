"""Vision transformers, ViT-Tiny and ViT-Small.

    patch_embed                             convolution of the patches
    class_token, position                   [1, 1, C], [1, 1 + patches, C]
    block1/norm1, qkv, proj, norm2, fc1, fc2
    norm, output                            of the class token

Source: Dosovitskiy et al. 2020 (arXiv:2010.11929); the sizes and settings of Touvron et al. 2020
(DeiT, arXiv:2012.12877) and of timm's vision_transformer.py: 12 blocks, 3 or 6 heads with 64
channels each. Deviations: no stochastic depth; initial kernels are normal, not cut
at two standard deviations.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.networks.draws import Normal

_DRAW = Normal(0.02)
_EPSILON = 1e-6


class VisionTransformer(nn.Module):
    """Maps preprocessed images `[B, H, W, 3]` to float32 `[B, num_outputs]`.

    Attributes:
      num_outputs: logits, or 1.
      heads: of attention.
      width: channels of a head, 64 as published.
      patch: side of a patch, pixels.
      depth: blocks.
      dtype: of the arithmetic; the last layer is in float32.
    """

    num_outputs: int
    heads: int
    width: int = 64
    patch: int = 16
    depth: int = 12
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train  # nothing differs in training
        channels = self.heads * self.width
        sides = (self.patch, self.patch)
        x = nn.Conv(channels, sides, strides=sides, padding="VALID", dtype=self.dtype,
                    name="patch_embed")(x)
        x = x.reshape(len(x), -1, channels)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, channels))
        x = jnp.concatenate([jnp.tile(token.astype(x.dtype), (len(x), 1, 1)), x], axis=1)
        x = x + self.param("position", _DRAW, (1, *x.shape[1:])).astype(x.dtype)
        for block in range(1, self.depth + 1):
            x = EncoderBlock(self.heads, self.dtype, name=f"block{block}")(x)
        x = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")(x)
        return nn.Dense(self.num_outputs, dtype=jnp.float32, kernel_init=_DRAW,
                        name="output")(x[:, 0])


class EncoderBlock(nn.Module):
    """Attention among tokens `[B, N, C]`, then two dense layers for each token; both add."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]

        def dense(name: str, features: int) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=_DRAW, name=name)

        y = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm1")(x)
        # As published, queries, keys and values come from one layer.
        y = dense("qkv", 3 * channels)(y).reshape(*y.shape[:2], 3, self.heads, -1)
        y = nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        x = x + dense("proj", channels)(y.reshape(x.shape))
        y = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(dense("fc1", 4 * channels)(y), approximate=False)
        return x + dense("fc2", channels)(y)
