"""A 3x3 convolution, a batch norm and a ReLU: the layer of VGG and ResNet9."""

import jax
from flax import linen as nn

from unlearn_jax.networks.draws import Normal


class ConvNorm(nn.Module):
    """Maps `[B, H, W, C]` to `[B, H, W, features]`; the settings of the norm are PyTorch's.

    Attributes:
      features: channels of the output.
      use_bias: whether the convolution has a bias, which the norm makes superfluous.
      dtype: of the arithmetic.
    """

    features: int
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(self.features, (3, 3), padding=1, use_bias=self.use_bias, dtype=self.dtype,
                    kernel_init=Normal(), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5,
                         dtype=self.dtype, name="norm")(x)
        return nn.relu(x)
