"""Reads a whole network from a file: what `unlearn-jax export` writes, and what others write.

    .safetensors   torchvision's and timm's names where the network has them, else our paths
    .msgpack       Flax: the tree {'params', 'batch_stats'} (flax.serialization)
    a folder       Orbax: the same tree, or a train state that holds it

Every tensor of the network must be in the file, the head included, each with its shape, and the
file may hold no other. Counters of batches, and the optimiser and step of a train state, are no
part of a network and are left. Nothing is ever unpickled.

Names and axes of a .safetensors file are those that the export gives: each number of the network
gets its place, and the places are exported in the place of the numbers.
"""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import ml_collections
import numpy as np
import safetensors
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from unlearn_jax.errors import InputError
from unlearn_jax.export.member import ExportedMember, torch_tensors
from unlearn_jax.inspect.tree import Checkpoint
from unlearn_jax.models import Model, Variables
from unlearn_jax.networks.file_tensors import FileTensor, safetensors_tensors

_COLLECTIONS = ("params", "batch_stats")
_TRAINING = ("opt_state", "step")  # of a train state
_COUNTER = "num_batches_tracked"
_ALLOWED = ("allowed: a .safetensors file, a .msgpack file of Flax, or an Orbax folder; "
            "docs/models_from_outside.md says how to make one")


def digest(path: Path, key: str) -> str:
    """Hash of a file, or of all files of a folder with their names.

    Args:
      path: the file or folder.
      key: the key of the config that names it, such as 'original.path'.

    Raises:
      InputError: there is no such file, or it cannot be read.
    """
    found = hashlib.blake2b()
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as f:
                own = hashlib.file_digest(f, "blake2b").digest()
            found.update(own if file is path else
                         file.relative_to(path).as_posix().encode() + b"\0" + own)
    except OSError as e:
        raise InputError(f"config.{key}: {path} cannot be read ({e.strerror})\n{_ALLOWED}") from e
    return found.hexdigest()[:16]


def read_weights(path: Path, key: str, model: Model,
                 model_cfg: ml_collections.ConfigDict) -> Variables:
    """The variables of one member, float32, on the host.

    Args:
      path: the file or folder.
      key: the key of the config that names it, for messages.
      model: the network.
      model_cfg: the `model` section of the config.

    Raises:
      InputError: a file of another kind; tensors that are missing, superfluous, of another shape
        or type; or numbers that are not finite.
    """
    shapes = traverse_util.flatten_dict(model.shapes(), sep="/")
    ends = np.cumsum([0, *(leaf.size for leaf in shapes.values())])
    places = {ours: np.arange(start, start + leaf.size).reshape(leaf.shape)
              for (ours, leaf), start in zip(shapes.items(), ends)}
    numbers = np.empty(ends[-1], np.float32)
    if path.suffix == ".safetensors" and path.is_file():
        with _open(path, key) as file:
            tensors = safetensors_tensors(file)
            if not any(name.startswith("params/") for name in tensors):
                places = _exported(places, model_cfg)
            _fill(path, key, model_cfg, places, tensors, numbers)
    else:
        tree = _tree(path, key)
        tensors = {ours: FileTensor(a.shape, a.dtype.name, functools.partial(np.asarray, a))
                   for ours, a in tree.items()}
        _fill(path, key, model_cfg, places, tensors, numbers)
    flat = {ours: numbers[start:start + leaf.size].reshape(leaf.shape)
            for (ours, leaf), start in zip(shapes.items(), ends)}
    return {**dict.fromkeys(_COLLECTIONS, {}), **traverse_util.unflatten_dict(flat, sep="/")}


def _exported(places: Mapping[str, np.ndarray],
              model_cfg: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """The places by the names, and with the axes, of an exported file."""
    described = Checkpoint(Path(), {"metadata": {"config": {"model": model_cfg.to_dict()}}}, (), {})
    return torch_tensors(ExportedMember(dict(places), 0, "", described))[1]


def _fill(path: Path, key: str, model_cfg: ml_collections.ConfigDict,
          places: Mapping[str, np.ndarray], tensors: Mapping[str, FileTensor],
          numbers: np.ndarray) -> None:
    """Puts the file's tensors to their places in `numbers`."""
    here = [name for name in places if name in tensors]
    problems = [f"{what}: {_some(names)}" for what, names in (
        ("missing in the file", [name for name in places if name not in tensors]),
        ("not of this network", [name for name in tensors
                                 if name not in places and not name.endswith(_COUNTER)]),
        ("of another shape", [f"{name} is {list(tensors[name].shape)}, the network's "
                              f"{list(places[name].shape)}" for name in here
                              if tensors[name].shape != places[name].shape]),
        ("no floats", [f"{name} ({tensors[name].dtype})" for name in here
                       if not tensors[name].is_float])) if names]
    if problems:
        raise InputError(f"config.{key}: {path} does not fit {model_cfg.name}: "
                         f"{'; '.join(problems)}\nallowed: each tensor of the network that "
                         "config.model and the classes describe, the head included, and no other")
    for name in here:
        value = np.asarray(tensors[name].read(), np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"config.{key}: {path} holds numbers that are not finite, in {name}\n"
                             "allowed: finite numbers")
        numbers[places[name].reshape(-1)] = value.reshape(-1)


def _open(path: Path, key: str) -> Any:
    try:
        return safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as e:
        raise _damaged(path, key, "safetensors file", e) from e


def _tree(path: Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of a Flax or Orbax tree by path, such as 'params/stem_conv/kernel'."""
    if path.is_dir():
        tree = _orbax(path, key)
    elif path.suffix == ".msgpack":
        try:
            tree = flax.serialization.msgpack_restore(path.read_bytes())
        except Exception as e:  # a damaged file raises one of a dozen types
            raise _damaged(path, key, "msgpack file of Flax", e) from e
    else:
        raise InputError(f"config.{key}: {path} ends with {path.suffix!r}\n{_ALLOWED}")
    if not isinstance(tree, dict) or "params" not in tree:
        held = ", ".join(map(repr, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise InputError(f"config.{key}: {path} holds {held or 'nothing'}\nallowed: a tree with "
                         "'params' and, where the network has batch norms, 'batch_stats'")
    flat = traverse_util.flatten_dict(
        {name: node for name, node in tree.items() if name not in _TRAINING}, sep="/")
    return {str(ours): np.asarray(a) for ours, a in flat.items()}


def _orbax(path: Path, key: str) -> Any:
    """The collections of a network; other parts of a train state are not read."""
    folder = (path / "tree" if (path / "tree").is_dir() else path).absolute()
    try:
        described = ocp.metadata(folder).metadata
        if not isinstance(described, dict):
            return described
        # Arrays of NumPy: the devices that the checkpoint was saved from may not be here.
        wanted = {name: jax.tree.map(
            (lambda a: np.empty(a.shape, a.dtype)) if name not in _TRAINING else
            (lambda a: ocp.PLACEHOLDER), node) for name, node in described.items()}
        found = ocp.load(folder, wanted)
    except Exception as e:  # Orbax and TensorStore raise a dozen types
        raise _damaged(path, key, "Orbax checkpoint, nor a step of one", e) from e
    return {name: node for name, node in found.items() if name not in _TRAINING}


def _damaged(path: Path, key: str, kind: str, error: Exception) -> InputError:
    text = " ".join(str(error).split())[:120]
    return InputError(f"config.{key}: {path} is no whole {kind} ({type(error).__name__}: {text})\n"
                      f"{_ALLOWED}")


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
