"""One member of a checkpoint: its weights by path, and the description that a reader needs."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.errors import InputError
from unlearn_jax.inspect.tree import Checkpoint, open_checkpoint
from unlearn_jax.models import DEPTHS, PREPROCESS, STEMS
from unlearn_jax.networks.layouts import source_name
from unlearn_jax.networks.pretrained import file_layout
from unlearn_jax.networks.registry import NETWORKS
from unlearn_jax.storage import checkpoints

TORCHVISION, PATHS = "torchvision", "unlearn_jax"


@dataclasses.dataclass(frozen=True, eq=False)
class ExportedMember:
    """A member of a stage.

    Attributes:
      weights: arrays by path, such as 'params/stem_conv/kernel', without the member axis.
      seed, forget_set: identify the member; '' for a model trained on all samples.
      checkpoint: the checkpoint that it was read from.
    """

    weights: dict[str, np.ndarray]
    seed: int
    forget_set: str
    checkpoint: Checkpoint

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the stage: config, seeds, data, ..."""
        return self.checkpoint.content["metadata"]

    @property
    def model(self) -> dict[str, Any]:
        """The section `model` of the config; {} if the checkpoint has none."""
        return self.metadata.get("config", {}).get("model", {})


def read_member(path: Path, seed: int | None, forget_set: str = "") -> ExportedMember:
    """Reads one member.

    Args:
      path: a stage of the store, or a checkpoint.
      seed: seed of the member; None: the only one.
      forget_set: forget set of the member, needed if a stage has several members of one seed.

    Raises:
      InputError: there is no such checkpoint or member, or its weights are not finite.
    """
    checkpoint = open_checkpoint(path)
    if not checkpoint.members:
        raise InputError(f"{checkpoint.path} names no seeds\nallowed: a stage with models, such as "
                         "STORE/original/KEY")
    seeds = [m["seed"] for m in checkpoint.members]
    if seed is None and len(set(seeds)) > 1:
        raise InputError(f"{checkpoint.path} has the models of {len(seeds)} seeds\ngive one as "
                         f"--seed: {', '.join(map(str, dict.fromkeys(seeds)))}")
    found = [m for m in checkpoint.members if seed in (None, m["seed"])]
    if not found:
        raise InputError(f"{checkpoint.path} has no model of seed {seed}\nallowed: "
                         + ", ".join(map(str, dict.fromkeys(seeds))))
    if forget_set:
        sets = [m["forget_set"] for m in found]
        found = [m for m in found if m["forget_set"] == forget_set]
        if not found:
            raise InputError(f"{checkpoint.path} has no model of forget set {forget_set!r}\n"
                             f"allowed: {', '.join(map(repr, dict.fromkeys(sets)))}")
    if len(found) > 1:
        raise InputError(f"{checkpoint.path} has {len(found)} models of seed {found[0]['seed']}\n"
                         f"give one as --forget-set: {', '.join(m['forget_set'] for m in found)}")
    (member,) = found
    arrays = checkpoints.restore_leaves(checkpoint.path, list(checkpoint.specs))
    weights = {name: np.array(a[member["index"]] if checkpoint.has_members(name) else a)
               for name, a in arrays.items()}
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise InputError(f"{checkpoint.path}: {name} of seed {member['seed']} holds numbers "
                             "that are not finite\nthe member failed in training; give another "
                             "seed")
    return ExportedMember(weights, member["seed"], member["forget_set"], checkpoint)


def torch_tensors(member: ExportedMember) -> tuple[str, dict[str, np.ndarray]]:
    """The layout of a .safetensors file, and its tensors by name.

    'torchvision' and 'timm': the names and axes of these libraries; a ResNet's last layer is `fc`,
    and other layers of its head keep our names. 'unlearn_jax': our paths and axes, for networks
    that those libraries do not have.
    """
    network, variant = member.model.get("name", ""), member.model.get("variant")
    if network in NETWORKS and (layout := file_layout(network)):
        library = "timm" if layout == "vit" else TORCHVISION
    elif network in DEPTHS and variant == "torchvision":
        library, layout = TORCHVISION, "torchvision"
    else:
        return PATHS, member.weights
    found = {}
    for path, array in member.weights.items():
        name = source_name(path, layout)
        if name is None:
            _, module, leaf = path.split("/")
            name = f"{module}.{'weight' if leaf == 'kernel' else leaf}"
        found[name] = np.ascontiguousarray(_torch_axes(array))
    return library, found


def _torch_axes(value: np.ndarray) -> np.ndarray:
    """HWIO to OIHW, and [in, out] to [out, in]."""
    if value.ndim == 4:
        return np.transpose(value, (3, 2, 0, 1))
    return value.T if value.ndim == 2 else value


def description(member: ExportedMember, layout: str) -> dict[str, Any]:
    """The content of the JSON beside an exported model.

    Args:
      member: as read.
      layout: layout of the exported weights.
    """
    config, checkpoint = member.metadata.get("config", {}), member.checkpoint
    stage = checkpoint.path.parent
    return {
        "weights": layout, "parameters": sum(a.size for n, a in member.weights.items()
                                             if n.startswith("params/")),
        "preprocessing": _preprocessing(config), "output": _output(member, config),
        "network": _network(member.model),
        "made_by": {
            "stage": member.metadata.get("stage", ""), "key": stage.name,
            "seed": member.seed, "forget_set": member.forget_set,
            "epochs": member.metadata.get("epochs"), "written": checkpoint.content["time"],
            "config_name": member.metadata.get("config_name", ""),
            "data_fingerprint": member.metadata.get("data_fingerprint", ""),
            "device": member.metadata.get("device", ""), "config": config}}


def _preprocessing(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("model", {}).get("preprocess")
    if kind not in PREPROCESS:
        return {}
    reverse, mean, std = PREPROCESS[kind]
    size = config.get("data", {}).get("image_size")
    return {"name": kind, "image_size": [size, size], "grey_levels": [0, 255],
            "channels": "BGR" if reverse else "RGB", "mean": list(mean), "std": list(std),
            "formula": "(image - mean) / std, in grey levels, channel by channel"}


def _output(member: ExportedMember, config: dict[str, Any]) -> dict[str, Any]:
    data, model = config.get("data", {}), member.model
    if data.get("task") == "classification":
        bias = next((a for n, a in member.weights.items() if n == "params/output/bias"), None)
        return {"task": "classification", "logits": None if bias is None else bias.size,
                "class_names": member.metadata.get("class_names")}
    scale, offset = model.get("output_scale"), model.get("output_offset")
    inner = "sigmoid(z)" if model.get("output") == "sigmoid" else "z"
    return {"task": "regression", "label_unit": member.metadata.get("label_unit"),
            "label_min": data.get("label_min"), "label_max": data.get("label_max"),
            "formula": f"{offset} + {scale} * {inner}, z being the last layer's value"}


def _network(model: dict[str, Any]) -> dict[str, Any]:
    if model.get("name") in NETWORKS:
        return {"name": model["name"], "width": model["width"], "stem": model["stem"]}
    if model.get("name") not in DEPTHS:
        return {"name": model.get("name", "")}
    blocks, bottleneck = DEPTHS[model["name"]]
    kernel, stride, pool = STEMS[model["stem"]]
    return {"name": model["name"], "variant": model["variant"], "width": model["width"],
            "blocks": list(blocks), "bottleneck": bottleneck,
            "stem": {"kernel": kernel, "stride": stride, "max_pool": pool},
            "projection": model["projection"], "head_widths": list(model["head_widths"])}
