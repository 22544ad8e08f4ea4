"""Writes an exported member: .safetensors, .msgpack or an Orbax folder, and the JSON beside it."""

import importlib.metadata
import json
from pathlib import Path

import flax.serialization
import numpy as np
import safetensors.numpy
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from unlearn_jax.export.member import ExportedMember, description, torch_tensors
from unlearn_jax.system import disk

_PACKAGES = ("jax", "flax", "numpy", "safetensors", "orbax-checkpoint")


def write_member(member: ExportedMember, path: Path) -> Path:
    """Writes the weights and after them the JSON; returns the path of the JSON.

    Args:
      member: as read.
      path: ends with .safetensors, .msgpack or .orbax; it does not exist yet.

    Raises:
      disk.DiskError: the file cannot be written.
    """
    layout = "flax"
    if path.suffix == ".safetensors":
        layout, tensors = torch_tensors(member)
        disk.write_file(path, safetensors.numpy.save(tensors, {"format": "pt"}))
    elif path.suffix == ".msgpack":
        disk.write_file(path, flax.serialization.msgpack_serialize(_tree(member)))
    else:
        with disk.temporary_directory(path.absolute()) as temp:
            ocp.save(temp / "tree", _tree(member))
            disk.move_into_place(temp, path.absolute())
    record = path.with_suffix(".json")
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    content = {"file": path.name, **description(member, layout), "versions": versions}
    disk.write_file(record, json.dumps(content, indent=1) + "\n")
    return record


def _tree(member: ExportedMember) -> dict[str, dict]:
    return traverse_util.unflatten_dict(
        {name: np.ascontiguousarray(a) for name, a in member.weights.items()}, sep="/")
