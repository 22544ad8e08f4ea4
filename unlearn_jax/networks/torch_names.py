"""Names of tensors in published .safetensors files of networks other than the ResNets.

    vgg        torchvision.models.vgg16_bn             features.0, ..., classifier.6
    vit        timm's vision_transformer.py, and DeiT  blocks.0.attn.qkv, ..., head
    convnext   torchvision.models.convnext_tiny        features.1.0.block.0, ..., classifier.2
"""

import dataclasses
import re
from collections.abc import Callable

from unlearn_jax.networks.vgg import CONVOLUTIONS

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
           "var": "running_var"}


@dataclasses.dataclass(frozen=True)
class TorchNames:
    """The names of one kind of network.

    Attributes:
      layer: the file's name of our module 'a/b'; None: the files have no such module.
      own: names of parameters that are no layer's, by our path.
      head: regular expression; a name that matches it may have no place in the network.
    """

    layer: Callable[[str], str | None]
    head: str
    own: Callable[[str], str | None] = lambda path: None

    def __call__(self, ours: str) -> str | None:
        """The file's name for our 'collection/module/.../leaf'; None if the files have none."""
        _, _, path = ours.partition("/")
        module, _, leaf = path.rpartition("/")
        layer = self.layer(module) if leaf in _LEAVES else None
        return self.own(path) if layer is None else f"{layer}.{_LEAVES[leaf]}"


def _vgg(module: str) -> str | None:
    head = {"classifier_dense1": "classifier.0", "classifier_dense2": "classifier.3",
            "output": "classifier.6"}
    place = re.fullmatch(r"stage(\d)_conv(\d)/(conv|norm)", module)
    if place is None:
        return head.get(module)
    stage, index = int(place[1]), int(place[2])
    # A convolution, its norm and its ReLU count as three, a pool as one.
    before = 3 * (sum(CONVOLUTIONS[:stage - 1]) + index - 1) + stage - 1
    return f"features.{before + (place[3] == 'norm')}"


def _vit(module: str) -> str | None:
    place = re.fullmatch(r"block(\d+)/(\w+)", module)
    if place is None:
        return {"patch_embed": "patch_embed.proj", "norm": "norm", "output": "head"}.get(module)
    part = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    return f"blocks.{int(place[1]) - 1}.{part.get(place[2], place[2])}"


def _convnext(module: str) -> str | None:
    if place := re.fullmatch(r"stage(\d)_block(\d+)/(\w+)", module):
        part = {"depthwise": 0, "norm": 2, "fc1": 3, "fc2": 5}[place[3]]
        return f"features.{2 * int(place[1]) - 1}.{int(place[2]) - 1}.block.{part}"
    if place := re.fullmatch(r"downsample(\d)/(norm|conv)", module):
        return f"features.{2 * int(place[1]) - 2}.{int(place[2] == 'conv')}"
    return {"stem_conv": "features.0.0", "stem_norm": "features.0.1", "norm": "classifier.0",
            "output": "classifier.2"}.get(module)


def _layer_scale(path: str) -> str | None:
    place = re.fullmatch(r"stage(\d)_block(\d+)/layer_scale", path)
    return place and f"features.{2 * int(place[1]) - 1}.{int(place[2]) - 1}.layer_scale"


NAMES = {
    "vgg": TorchNames(_vgg, r"classifier\."),
    "vit": TorchNames(_vit, r"head\.", {"class_token": "cls_token",
                                        "position": "pos_embed"}.get),
    "convnext": TorchNames(_convnext, r"classifier\.2\.", _layer_scale),
}
