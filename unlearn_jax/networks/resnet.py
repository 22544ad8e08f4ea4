"""ResNets with the study's head.

Three published variants of the residual network differ in a few settings (`VARIANTS`); the
blocks are written once. Parameter paths are stable and readable:

    stem_conv, stem_norm
    stage1_block1/conv1, norm1, conv2, norm2, [conv3, norm3], [shortcut_conv, shortcut_norm]
    projection            dense after the pool (model.projection; VGGFace2: dim_proj)
    head_dense1, ...      hidden layers (model.head_widths)
    output                one value, or one logit per class

Sources: He et al. 2015 (arXiv:1512.03385) for the architecture and the initialisation
(arXiv:1502.01852); each variant's definition is named in `VARIANTS`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks import norm
from unlearn_jax.networks.conv import member_conv
from unlearn_jax.networks.ends import label_units, preprocess

# The collection of intermediate outputs; Linen omits a collection of this name from `init`.
FEATURES = "intermediates"


@dataclasses.dataclass(frozen=True)
class ResNetVariant:
    """The settings in which published ResNets differ.

    Attributes:
      stride_at_3x3: a bottleneck's stride is in its 3x3 convolution (v1.5), else in its
        first 1x1 convolution (v1, as published).
      conv_bias: convolutions have a bias although a batch norm follows.
      norm_epsilon: added to the variance.
      norm_momentum: share of the old running statistics that a step keeps.
      stem_same: the stem pads like TensorFlow's 'same' (one more pixel at the bottom and right
        if the size is even), else by half a kernel on every side.
      pool_padding: pixels around the input of the stem's 3x3/2 max-pool. The input is never
        negative there, so zero padding (Keras) and minus infinity (PyTorch) are the same.
    """

    stride_at_3x3: bool
    conv_bias: bool
    norm_epsilon: float
    norm_momentum: float
    stem_same: bool
    pool_padding: int


VARIANTS = {
    # torchvision.models.resnet (v1.5)
    "torchvision": ResNetVariant(True, False, 1e-5, 0.9, False, 1),
    # keras.applications.resnet (v1, conv1_pad / pool1_pad)
    "keras": ResNetVariant(False, True, 1.001e-5, 0.99, False, 1),
    # WeidiXie/Keras-VGGFace2-ResNet50 and rcmalli/keras-vggface
    "vggface2": ResNetVariant(False, False, 1e-3, 0.99, True, 0),
}

# name: (blocks of each stage, bottleneck blocks)
DEPTHS = {
    "resnet4": ((1,), False),
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet50": ((3, 4, 6, 3), True),
}

# name: (kernel size, stride, followed by the 3x3/2 max-pool)
STEMS = {
    "imagenet": (7, 2, True),
    "strided": (5, 2, False),
    "small": (3, 1, False),
}


def check_variant(model_cfg: Any) -> None:
    """Refuses a ResNet with a `model.variant` of other networks.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    if model_cfg.variant not in VARIANTS:
        raise ConfigError(f"config.model.variant is {model_cfg.variant!r}; allowed with "
                          f"{model_cfg.name}: {', '.join(map(repr, VARIANTS))}")


class _Layers(nn.Module):
    """The two layers that all parts share, with the settings of the variant."""

    variant: ResNetVariant
    dtype: str
    frozen_norms: tuple[str, ...]

    def conv(self, name: str, features: int, kernel: int, stride: int, padding: Any) -> nn.Conv:
        return nn.Conv(features, (kernel, kernel), strides=(stride, stride), padding=padding,
                       use_bias=self.variant.conv_bias, dtype=self.dtype,
                       conv_general_dilated=member_conv, name=name)

    def norm(self, name: str, train: bool) -> nn.Module:
        # A frozen norm must not change its statistics either, or the frozen layers would change.
        running = not train or "/".join((*self.path, name)) in self.frozen_norms
        momentum, epsilon = self.variant.norm_momentum, self.variant.norm_epsilon
        if not running and norm.written_out():
            return norm.BatchNorm(momentum, epsilon, name=name)
        return nn.BatchNorm(use_running_average=running, momentum=momentum, epsilon=epsilon,
                            dtype=self.dtype, name=name)


class ResidualBlock(_Layers):
    """One residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with 4x the channels."""

    features: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        # (kernel, stride, features) of each convolution on the main path
        if not self.bottleneck:
            path = [(3, self.stride, self.features), (3, 1, self.features)]
        else:
            strides = (1, self.stride) if self.variant.stride_at_3x3 else (self.stride, 1)
            path = [(1, strides[0], self.features), (3, strides[1], self.features),
                    (1, 1, 4 * self.features)]
        y = x
        for i, (kernel, stride, features) in enumerate(path, start=1):
            padding = ((kernel // 2, kernel // 2),) * 2
            y = self.conv(f"conv{i}", features, kernel, stride, padding)(y)
            y = self.norm(f"norm{i}", train)(y)
            # `sow` keeps nothing unless features are requested.
            self.sow(FEATURES, f"conv{i}_out", y)
            if i < len(path):
                y = nn.relu(y)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv("shortcut_conv", y.shape[-1], 1, self.stride, ((0, 0), (0, 0)))(x)
            x = self.norm("shortcut_norm", train)(x)
        return nn.relu(x + y)


class ResNet(_Layers):
    """Maps images `[B, H, W, 3]` of 0..255 to float32 `[B]` label units or logits `[B, C]`."""

    blocks: tuple[int, ...]
    bottleneck: bool
    width: int
    stem: str
    projection: int
    head: tuple[tuple[int, float], ...]
    num_classes: int
    output: str
    output_scale: float
    output_offset: float
    preprocess: str

    @nn.compact
    def __call__(self, images_BHWC: jax.Array, train: bool) -> jax.Array:
        x = preprocess(images_BHWC, self.preprocess)
        kernel, stride, pool = STEMS[self.stem]
        half = kernel // 2
        padding = "SAME" if self.variant.stem_same else ((half, half), (half, half))
        x = self.conv("stem_conv", self.width, kernel, stride, padding)(x)
        x = self.norm("stem_norm", train)(x)
        self.sow(FEATURES, "stem_conv_out", x)
        x = nn.relu(x)
        if pool:
            pad = self.variant.pool_padding
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((pad, pad), (pad, pad)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = ResidualBlock(
                    self.variant, self.dtype, self.frozen_norms,
                    features=self.width * 2**stage, stride=2 if stage and not block else 1,
                    bottleneck=self.bottleneck, name=f"stage{stage + 1}_block{block + 1}",
                )(x, train)
                self.sow(FEATURES, f"stage{stage + 1}_block{block + 1}_out", x)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        if self.projection:
            x = nn.relu(nn.Dense(self.projection, dtype=self.dtype, name="projection")(x))
        for i, (width, rate) in enumerate(self.head, start=1):
            x = nn.Dropout(rate, deterministic=not train)(x)
            x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"head_dense{i}")(x))
        # The last layer stays in float32: bfloat16 would round an age of 60 to a quarter year.
        z = nn.Dense(self.num_classes or 1, dtype=jnp.float32, name="output")(x)
        if self.num_classes:
            return z
        return label_units(z, self.output, self.output_scale, self.output_offset)
