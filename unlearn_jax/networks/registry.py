"""The networks of the package beside the ResNets; a new one needs a file, an entry here and a test.

Of the section `model` of the config they read

- `width`: 64 is the published network, 16 has a quarter of its channels, as with the ResNets;
- `stem`: the first layers, `imagenet` as published, and others for small images;
- `dtype`, `frozen`, `output` and its scale, `preprocess`, `pretrained`.

`head_widths` and `projection` are refused: each has the head of its source.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks import convnext, resnet9, vgg
from unlearn_jax.networks.convnext import ConvNeXt
from unlearn_jax.networks.resnet9 import ResNet9
from unlearn_jax.networks.torch_names import NAMES, TorchNames
from unlearn_jax.networks.vgg import VGG16
from unlearn_jax.networks.vit import VisionTransformer

# Side of a patch by `model.stem`, pixels.
VIT_PATCHES = {"imagenet": 16, "strided": 8, "small": 4}
CONVNEXT_PATCHES = {"imagenet": 4, "strided": 2, "small": 1}
# Keys that only ResNets read, with the value that has no effect.
_UNREAD = {"projection": 0, "head_widths": (), "head_dropout": ()}


@dataclasses.dataclass(frozen=True)
class PackagedNetwork:
    """A network of the package.

    Attributes:
      line: its description in a line.
      make: `(model section of the config, outputs) -> module`.
      least_size: `(stem) -> pixels`, the smallest image side.
      divisor: `(stem) -> pixels`, of which the image side is a multiple.
      published: by `model.variant`, the preprocessing of published weights (`ends.PREPROCESS`).
      layout: the names of tensors in their files, a key of `torch_names.NAMES`; '': there are none.
      even: whether `width` must be even.
    """

    line: str
    make: Callable[[Any, int], nn.Module]
    least_size: Callable[[str], int]
    divisor: Callable[[str], int] = lambda stem: 1
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layout: str = ""
    even: bool = False

    @property
    def names(self) -> TorchNames | None:
        """The names of tensors in published files."""
        return NAMES.get(self.layout)


def _vit(name: str, heads: int) -> PackagedNetwork:
    return PackagedNetwork(
        f"{name} (Dosovitskiy 2020, Touvron 2020): 12 blocks, {heads} heads; patches of 16, 8 or "
        "4 pixels by model.stem; published weights: DeiT, timm",
        make=lambda c, outputs: VisionTransformer(outputs, heads, c.width, VIT_PATCHES[c.stem],
                                                  dtype=c.dtype),
        least_size=VIT_PATCHES.__getitem__, divisor=VIT_PATCHES.__getitem__,
        published={"deit": "torch", "timm": "unit"}, layout="vit")


NETWORKS: dict[str, PackagedNetwork] = {
    "resnet9": PackagedNetwork(
        "ResNet9 (Page 2018, DAWNBench): 8 convolutions, for small images; no published weights",
        make=lambda c, outputs: ResNet9(outputs, c.width, c.dtype),
        least_size=lambda stem: resnet9.LEAST_SIZE),
    "vgg16_bn": PackagedNetwork(
        "VGG16 with batch norm (Simonyan 2014): 13 convolutions, with model.stem='imagenet' and "
        "the two hidden layers of its head; published weights: torchvision",
        make=lambda c, outputs: VGG16(outputs, c.width, c.stem == "imagenet", c.dtype),
        least_size=lambda stem: vgg.LEAST_SIZE,
        published={"torchvision": "torch"}, layout="vgg"),
    "vit_tiny": _vit("ViT-Tiny", 3),
    "vit_small": _vit("ViT-Small", 6),
    "convnext_tiny": PackagedNetwork(
        "ConvNeXt-Tiny (Liu 2022): 18 blocks in 4 stages; first convolution 4x4, 2x2 or 1x1 by "
        "model.stem; published weights: torchvision",
        make=lambda c, outputs: ConvNeXt(outputs, c.width * 3 // 2, CONVNEXT_PATCHES[c.stem],
                                         dtype=c.dtype),
        least_size=lambda stem: CONVNEXT_PATCHES[stem] * 2**(len(convnext.DEPTHS) - 1),
        published={"torchvision": "torch"}, layout="convnext", even=True),
}
# Values of `model.variant` that name the source of weights of these networks.
SOURCES = tuple(dict.fromkeys(v for network in NETWORKS.values() for v in network.published))


def make_packaged(model_cfg: Any, image_size: int, num_outputs: int) -> nn.Module:
    """A network of `NETWORKS`.

    Args:
      model_cfg: the `model` section of the config.
      image_size: pixels.
      num_outputs: logits, or 1.

    Raises:
      ConfigError: as `check_packaged`.
    """
    check_packaged(model_cfg, image_size)
    return NETWORKS[model_cfg.name].make(model_cfg, num_outputs)


def check_packaged(model_cfg: Any, image_size: int) -> None:
    """Refuses a config that a network of `NETWORKS` cannot have.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    name = model_cfg.name
    network = NETWORKS[name]
    for key, nothing in _UNREAD.items():
        if model_cfg[key] != nothing:
            raise ConfigError(f"config.model.{key} is {model_cfg[key]!r}, but {name} has the head "
                              f"of its source; allowed: {nothing!r}")
    least, divisor = network.least_size(model_cfg.stem), network.divisor(model_cfg.stem)
    if image_size < least or image_size % divisor:
        multiple = f", multiples of {divisor}" if divisor > 1 else ""
        raise ConfigError(f"config.data.image_size is {image_size}; allowed with {name} and stem "
                          f"{model_cfg.stem!r}: {least} or more{multiple}")
    if network.even and model_cfg.width % 2:
        raise ConfigError(f"config.model.width is {model_cfg.width}; allowed with {name}: even "
                          "numbers")
    sources = tuple(dict.fromkeys(("torchvision", *network.published)))
    if model_cfg.variant not in sources:
        raise ConfigError(f"config.model.variant is {model_cfg.variant!r}; allowed with {name}: "
                          + ", ".join(map(repr, sources)))
    if model_cfg.pretrained and model_cfg.variant not in network.published:
        has = ", ".join(f"{source!r} (preprocess {kind!r})"
                        for source, kind in network.published.items())
        raise ConfigError(f"config.model.pretrained is {model_cfg.pretrained!r} with "
                          f"config.model.variant={model_cfg.variant!r}; "
                          + (f"allowed with {name}, by the source of the weights: {has}" if has
                             else f"there are no published weights of {name}; allowed: ''"))
