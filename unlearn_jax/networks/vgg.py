"""VGG16 with batch norm.

    stage1_conv1, ...     3x3 convolutions with batch norm and ReLU; a 2x2 max-pool ends each stage
    classifier_dense1, 2  hidden layers of the published head (`classifier`)
    output

Source: Simonyan and Zisserman 2014 (arXiv:1409.1556), configuration D; torchvision.models.vgg16_bn
for the norms and the head. With `classifier`, the map is averaged to 7x7 pixels and two hidden
layers with dropout follow, as in torchvision. Without it, the mean over all pixels goes to the last
layer, as is usual for small images; the hidden layers alone would have 120 million parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from unlearn_jax.networks.conv_norm import ConvNorm
from unlearn_jax.networks.draws import Normal

CONVOLUTIONS = (2, 2, 3, 3, 3)  # by stage
LEAST_SIZE = 32  # pixels that leave one after five pools
_SIDE, _DROPOUT = 7, 0.5  # of the published head


class VGG16(nn.Module):
    """Maps preprocessed images `[B, H, W, 3]` to float32 `[B, num_outputs]`.

    Attributes:
      num_outputs: logits, or 1.
      width: channels of the first stage, 64 as published.
      classifier: whether it has the published head.
      dtype: of the arithmetic; the last layer is in float32.
      convolutions: their number by stage.
    """

    num_outputs: int
    width: int = 64
    classifier: bool = True
    dtype: str = "float32"
    convolutions: tuple[int, ...] = CONVOLUTIONS

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for stage, count in enumerate(self.convolutions, start=1):
            for i in range(1, count + 1):
                x = ConvNorm(self.width * min(2**(stage - 1), 8), use_bias=True, dtype=self.dtype,
                             name=f"stage{stage}_conv{i}")(x, train)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        if self.classifier:
            # Channels come first in the published order of features.
            x = adaptive_mean(x, _SIDE).transpose(0, 3, 1, 2).reshape(len(x), -1)
            for i in (1, 2):
                x = nn.relu(nn.Dense(64 * self.width, dtype=self.dtype, kernel_init=Normal(0.01),
                                     name=f"classifier_dense{i}")(x))
                x = nn.Dropout(_DROPOUT, deterministic=not train)(x)
        else:
            x = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.num_outputs, dtype=jnp.float32, kernel_init=Normal(),
                        name="output")(x)


def adaptive_mean(x: jax.Array, side: int) -> jax.Array:
    """Means over parts of a map, `[B, side, side, C]`, as PyTorch's AdaptiveAvgPool2d.

    Args:
      x: `[B, s, s, C]`; where s is less than `side`, pixels are repeated.
      side: pixels.
    """
    size = x.shape[1]
    if size == side:
        return x
    parts = np.zeros((side, size), np.float32)
    for i in range(side):
        low, high = i * size // side, -(-(i + 1) * size // side)
        parts[i, low:high] = 1 / (high - low)
    weights = jnp.asarray(parts, x.dtype)
    return jnp.einsum("ih,jw,bhwc->bijc", weights, weights, x)
