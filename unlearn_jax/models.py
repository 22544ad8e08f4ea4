"""ResNets with the study's head. This module and norm.py are the only ones that know Flax.

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
import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks import norm
from unlearn_jax.networks.conv import member_conv

Variables = dict[str, Any]

# The collection of outputs on the way; Linen leaves this one out of `init`.
FEATURES = "intermediates"


@dataclasses.dataclass(frozen=True)
class ResNetVariant:
    """What distinguishes one published ResNet from another.

    Attributes:
      stride_at_3x3: a bottleneck's stride is in its 3x3 convolution (v1.5), else in its
        first 1x1 (v1, as published).
      conv_bias: convolutions have a bias although a batch norm follows.
      norm_epsilon: added to the variance.
      norm_momentum: share of the old running statistics that a step keeps.
      stem_same: the stem pads as TensorFlow's 'same' (one pixel more at the bottom and right
        where the size is even), else by half a kernel on every side.
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

# name: (channels reversed to BGR, mean, standard deviation) in grey levels, in the order that
# the network sees
PREPROCESS = {
    "unit": (False, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe": (True, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "vggface2": (True, (91.4953, 103.8827, 131.0912), (1.0, 1.0, 1.0)),
    "torch": (False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


def preprocess(images_BHWC: jax.Array, kind: str) -> jax.Array:
    """Grey levels 0..255 RGB, `[B, H, W, 3]`, to what the network expects, float32.

    'unit': -1..1. 'caffe': keras.applications' mode of that name, ImageNet's mean. 'vggface2':
    the same with the faces' mean (WeidiXie/Keras-VGGFace2-ResNet50, keras-vggface version 2).
    'torch': ImageNet's mean and standard deviation of 0..1 values.
    """
    reverse, mean, std = PREPROCESS[kind]
    x = images_BHWC.astype(jnp.float32)
    if reverse:
        x = x[..., ::-1]
    mean_C, std_C = (jnp.asarray(v, jnp.float32).reshape(1, 1, 1, 3) for v in (mean, std))
    return (x - mean_C) / std_C


class _Layers(nn.Module):
    """The two layers that all parts share, as the variant wants them."""

    variant: ResNetVariant
    dtype: str
    frozen_norms: tuple[str, ...]

    def conv(self, name: str, features: int, kernel: int, stride: int, padding: Any) -> nn.Conv:
        return nn.Conv(features, (kernel, kernel), strides=(stride, stride), padding=padding,
                       use_bias=self.variant.conv_bias, dtype=self.dtype,
                       conv_general_dilated=member_conv, name=name)

    def norm(self, name: str, train: bool) -> nn.Module:
        # A frozen norm must not move its statistics either, or the frozen layers would change.
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
            # Where nobody asks for features, `sow` keeps nothing.
            self.sow(FEATURES, f"conv{i}_out", y)
            if i < len(path):
                y = nn.relu(y)
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv("shortcut_conv", y.shape[-1], 1, self.stride, ((0, 0), (0, 0)))(x)
            x = self.norm("shortcut_norm", train)(x)
        return nn.relu(x + y)


class ResNet(_Layers):
    """Images `[B, H, W, 3]` of 0..255 to float32 `[B]` label units or logits `[B, C]`."""

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
        value = nn.sigmoid(z[:, 0]) if self.output == "sigmoid" else z[:, 0]
        return self.output_offset + self.output_scale * value


@dataclasses.dataclass(frozen=True)
class Model:
    """A network for one member; hashable, equal for equal configs, safe to close over in jit.

    Attributes:
      module: the linen module.
      image_size: pixels, height and width.
      frozen: regular expressions (`re.search`) over parameter paths 'a/b/c' that stay fixed.
    """

    module: ResNet
    image_size: int
    frozen: tuple[str, ...] = ()

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables of one member: {'params': tree, 'batch_stats': tree}, float32.

        Convolutions: normal, variance 2 / (h * w * channels out) (He et al. 2015, fan out).
        Dense layers: normal, variance 1 / (features in). Biases 0; norms 1, 0, mean 0,
        variance 1.
        """
        shapes = traverse_util.flatten_dict(self.shapes(), sep="/")
        kernels = [path for path in shapes if path.endswith("/kernel")]
        # One draw for all: XLA takes about a second to compile each separate one on a CPU.
        ends = np.cumsum([shapes[path].size for path in kernels])
        draws = dict(zip(kernels, jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])))
        variables = {}
        for path, leaf in shapes.items():
            if path in draws:
                fan = math.prod(leaf.shape[:2]) * leaf.shape[3] / 2 if leaf.ndim == 4 \
                    else leaf.shape[0]
                variables[path] = draws[path].reshape(leaf.shape) / math.sqrt(fan)
            else:
                one = path.endswith(("/scale", "/var"))
                variables[path] = jnp.full(leaf.shape, float(one), jnp.float32)
        return traverse_util.unflatten_dict(variables, sep="/")

    def shapes(self) -> Variables:
        """The tree of `init` as `jax.ShapeDtypeStruct`s; nothing is computed."""
        images = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), jnp.uint8)
        return jax.eval_shape(lambda x: self.module.init(jax.random.key(0), x, train=False),
                              images)

    def apply(self, variables: Variables, images_BHWC: jax.Array, *, train: bool,
              key: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """The forward pass of one member.

        Args:
          variables: {'params', 'batch_stats'} as from `init`.
          images_BHWC: uint8 or float, 0..255, RGB.
          train: batch statistics and dropout, else running statistics.
          key: for dropout; needed in training where the head has dropout.

        Returns:
          outputs: float32, `[B]` label units (regression) or `[B, C]` logits.
          batch_stats: the new running statistics; unchanged where train is False.

        Raises:
          ValueError: images of another shape, or dropout without a key.
        """
        size = self.image_size
        if images_BHWC.shape[1:] != (size, size, 3):
            raise ValueError(f"images have shape {images_BHWC.shape}; this model takes "
                             f"[B, {size}, {size}, 3]")
        if not train:
            predicted: Any = self.module.apply(variables, images_BHWC, train=False)
            return predicted, variables["batch_stats"]
        if key is None and any(rate > 0 for _, rate in self.module.head):
            raise ValueError("apply(train=True) needs a key: the head has dropout "
                             f"{tuple(rate for _, rate in self.module.head)}")
        rngs = {} if key is None else {"dropout": key}
        outputs, updates = self.module.apply(variables, images_BHWC, train=True, rngs=rngs,
                                             mutable=["batch_stats"])
        return outputs, updates["batch_stats"]

    def features(self, variables: Variables, images_BHWC: jax.Array, *, train: bool,
                 key: jax.Array | None = None,
                 ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """The forward pass with what lies between.

        Args:
          variables, images_BHWC, train, key: as for `apply`.

        Returns:
          outputs, batch_stats: as from `apply`.
          features: `[B, H', W', C]` by path: `stem_conv`, `stage1_block1/conv1`, ... are a
            convolution's channels after their norm and before the ReLU; `stage1_block1`, ... are
            a block's output.
        """
        mutable = [FEATURES, "batch_stats"] if train else [FEATURES]
        rngs = {"dropout": key} if train and key is not None else {}
        outputs, updates = self.module.apply(variables, images_BHWC, train=train, rngs=rngs,
                                             mutable=mutable)
        flat = traverse_util.flatten_dict(updates[FEATURES], sep="/")
        return (outputs, updates["batch_stats"] if train else variables["batch_stats"],
                {path.removesuffix("_out"): found for path, (found,) in flat.items()})

    @property
    def stages(self) -> tuple[str, ...]:
        """The output of each stage, by the name that `features` gives it, first to last."""
        return tuple(f"stage{s}_block{b}" for s, b in enumerate(self.module.blocks, start=1))

    def shifted(self, variables: Variables, images_BHWC: jax.Array,
                shifts: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The evaluation pass with something added to the outputs of blocks.

        The gradient with respect to a shift of zero is that with respect to the block's output.

        Args:
          variables, images_BHWC: as for `apply`.
          shifts: by block, such as `stage4_block1`, arrays `[B, H', W', C]`.

        Returns:
          outputs: as from `apply`.
          features: as from `features`, the shifts included.
        """
        def add(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if not isinstance(context.module, ResidualBlock) or context.method_name != "__call__":
                return output
            shift = shifts.get(context.module.name or "")
            return output if shift is None else output + shift.astype(output.dtype)

        with nn.intercept_methods(add):
            outputs, _, features = self.features(variables, images_BHWC, train=False)
        return outputs, features

    def trainable(self, params: Any) -> Any:
        """A tree like `params` with False where a pattern of `frozen` matches the path."""
        flat = traverse_util.flatten_dict(params, sep="/")
        free = {path: not _matches(self.frozen, path) for path in flat}
        return traverse_util.unflatten_dict(free, sep="/")


def build_model(model_cfg: Any, image_size: int, num_classes: int) -> Model:
    """The model of a config section.

    Args:
      model_cfg: the `model` section of the config, already checked.
      image_size: pixels.
      num_classes: logits; 0 for regression.

    Raises:
      ConfigError: a pattern of `model.frozen` is no regular expression or matches no parameter.
    """
    blocks, bottleneck = DEPTHS[model_cfg.name]
    module = ResNet(
        variant=VARIANTS[model_cfg.variant], dtype=model_cfg.dtype, frozen_norms=(),
        blocks=blocks, bottleneck=bottleneck, width=model_cfg.width, stem=model_cfg.stem,
        projection=model_cfg.projection,
        head=tuple(zip(model_cfg.head_widths, model_cfg.head_dropout, strict=True)),
        num_classes=num_classes, output=model_cfg.output,
        output_scale=model_cfg.output_scale, output_offset=model_cfg.output_offset,
        preprocess=model_cfg.preprocess,
    )
    frozen = tuple(model_cfg.frozen)
    if frozen:
        module = module.clone(frozen_norms=_frozen_norms(module, image_size, frozen))
    return Model(module, image_size, frozen)


def _frozen_norms(module: ResNet, image_size: int, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of the batch norms with all parameters frozen; checks that every pattern matches."""
    shapes = Model(module, image_size).shapes()
    paths = sorted(traverse_util.flatten_dict(shapes["params"], sep="/"))
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except re.error as error:
            raise ConfigError(f"config.model.frozen: {pattern!r} is no regular expression: "
                              f"{error}") from error
        if not found:
            raise ConfigError(f"config.model.frozen: {pattern!r} matches no parameter; "
                              f"paths are such as {', '.join(paths[::max(1, len(paths) // 8)])}")
    statistics = traverse_util.flatten_dict(shapes["batch_stats"], sep="/")
    norms = sorted({path.rpartition("/")[0] for path in statistics})
    return tuple(norm for norm in norms
                 if all(_matches(patterns, f"{norm}/{part}") for part in ("scale", "bias")))


@functools.cache
def _matches(patterns: tuple[str, ...], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
