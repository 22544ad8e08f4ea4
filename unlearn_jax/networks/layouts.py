"""Names and axes of tensors in files of published weights.

A layout is 'keras', 'vggface2' or 'torchvision', for ResNets, or a key of `torch_names.NAMES`.
"""

import re

import numpy as np

from unlearn_jax.networks.torch_names import NAMES

KERAS = ("keras", "vggface2")  # layouts of HDF5 files
HEAD = {
    "keras": {"output": "predictions"},
    "vggface2": {"projection": "dim_proj", "output": "classifier"},
    "torchvision": {"output": "fc"},
}
# (collection, our leaf): (Keras leaf, PyTorch leaf)
_LEAVES = {
    ("params", "kernel"): ("kernel", "weight"),
    ("params", "bias"): ("bias", "bias"),
    ("params", "scale"): ("gamma", "weight"),
    ("batch_stats", "mean"): ("moving_mean", "running_mean"),
    ("batch_stats", "var"): ("moving_variance", "running_var"),
}


def source_name(ours: str, layout: str) -> str | None:
    """The file's name for our 'collection/module/.../leaf'; None if the layout has none."""
    if layout in NAMES:
        return NAMES[layout](ours)
    collection, *module, leaf = ours.split("/")
    layer = _source_layer("/".join(module), layout)
    if layer is None:
        return None
    keras, torch = _LEAVES[collection, leaf]
    if layout == "torchvision":
        return f"{layer}.{torch}"
    if leaf == "bias" and "norm" in module[-1]:
        keras = "beta"
    return f"{layer}/{keras}"


def _source_layer(module: str, layout: str) -> str | None:
    place = re.fullmatch(r"(?:stem|stage(\d+)_block(\d+)/(shortcut)?)_?(conv|norm)(\d?)", module)
    if place is None:
        return HEAD[layout].get(module)
    stage, block, _, kind, index = place.groups()
    norm = kind == "norm"
    index = int(index or 0)  # 0: the shortcut, or the stem
    if layout == "keras":
        suffix = "bn" if norm else "conv"
        if stage is None:
            return f"conv1_{suffix}"
        return f"conv{int(stage) + 1}_block{block}_{index}_{suffix}"
    if layout == "vggface2":
        part = ("1x1_proj", "1x1_reduce", "3x3", "1x1_increase")[index]
        conv = "conv1/7x7_s2" if stage is None else f"conv{int(stage) + 1}_{block}_{part}"
        return f"{conv}/bn" if norm else conv
    if stage is None:
        return "bn1" if norm else "conv1"
    part = f"{'bn' if norm else 'conv'}{index}" if index else f"downsample.{int(norm)}"
    return f"layer{stage}.{int(block) - 1}.{part}"


def file_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """A shape as the file has it: PyTorch stores convolutions as OIHW and matrices as [out, in]."""
    if layout in KERAS or len(shape) not in (2, 4):
        return tuple(shape)
    return (shape[-1], shape[-2], *shape[:-2])


def our_axes(value: np.ndarray, layout: str) -> np.ndarray:
    """An array of a file with our axes."""
    if layout in KERAS or value.ndim not in (2, 4):
        return value
    return np.transpose(value, (*range(2, value.ndim), 1, 0))
