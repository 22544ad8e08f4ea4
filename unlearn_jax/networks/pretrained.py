"""Loads published weights into a model: Keras HDF5 and PyTorch safetensors.

Three layouts of ResNets are known; each belongs to one `model.variant`:

    keras        .h5 of keras.applications.ResNet50      conv2_block1_1_conv, ..., predictions
    vggface2     .h5 of WeidiXie/Keras-VGGFace2-ResNet50 conv2_1_1x1_reduce, ..., dim_proj
                 and of rcmalli/keras-vggface            the same names, then classifier
    torchvision  .safetensors of torchvision and timm    layer1.0.conv1, ..., fc

Other networks of the package have one layout each (`torch_names.py`), in .safetensors files.

HDF5 files may be Keras 2 weight files (`layer/layer/kernel:0`), whole models (the same below
`model_weights`, also with the network nested in another model), and Keras 3 `.weights.h5`
files (`layers/conv2d/vars/0`, where `vars` carries the layer's name).

The whole backbone must be in the file, each tensor with the model's shape. VGGFace2's dim_proj
fills `projection`. The file's classifier fills `output` if it comes directly after the pool and has
as many classes, more than one. All else in the head keeps its initial values.
Nothing is ever unpickled.
"""

import dataclasses
import functools
import pathlib
import re
from typing import Any

import h5py
import numpy as np
import safetensors
from flax import traverse_util

from unlearn_jax.errors import ConfigError
from unlearn_jax.networks.file_tensors import FLOATS, FileTensor, safetensors_tensors
from unlearn_jax.networks.layouts import HEAD, KERAS, file_shape, our_axes, source_name
from unlearn_jax.networks.positions import can_resize, resized_positions
from unlearn_jax.networks.registry import NETWORKS
from unlearn_jax.networks.torch_names import NAMES

Variables = dict[str, Any]

# The order in which a Keras 3 layer numbers its variables.
_KERAS3_LEAVES = ("kernel", "bias")
_KERAS3_NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
# Published ResNets by variant: the preprocessing that they were trained with (`ends.PREPROCESS`).
PREPROCESS_OF = {"keras": "caffe", "vggface2": "vggface2", "torchvision": "torch"}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")


class PretrainedError(ConfigError):
    """`model.pretrained` cannot be used with this model; the message says why."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The result of `load_pretrained`, by names.

    Attributes:
      layout: 'keras', 'vggface2' or 'torchvision' of ResNets, or a key of `torch_names.NAMES`.
      loaded: our paths that the file filled, such as 'params/stem_conv/kernel'.
      initialised: our paths, all in the head, that keep their initial values.
      left_over: names in the file without a place in the model: the file's head, counters.
    """

    layout: str
    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        left = [name for name in self.left_over if not name.endswith("num_batches_tracked")]
        counters = len(self.left_over) - len(left)
        left += [f"{counters} counters of batches"] if counters else []
        return (f"{len(self.loaded)} tensors loaded ({self.layout} layout); as initialised: "
                f"{_some(self.initialised) or 'none'}; left over in the file: "
                f"{_some(left) or 'none'}")


def load_pretrained(path: str | pathlib.Path, variables: Variables,
                    model_cfg: Any) -> tuple[Variables, Loaded]:
    """Variables of one member with the file's weights in the backbone.

    Args:
      path: a .h5 (Keras) or .safetensors (PyTorch) file.
      variables: as from `Model.init`, one member; not changed.
      model_cfg: the `model` section of the config.

    Returns:
      (variables, what was loaded); all arrays are float32, those of the file on the host.

    Raises:
      PretrainedError: no such file, a file of another kind, another variant's layout, or
        tensors that are missing, superfluous, of another shape, or not finite.
    """
    path = pathlib.Path(path)
    _check_kind(path)
    own_layout = file_layout(model_cfg.name)
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return _fill(path, safetensors_tensors(file), variables, model_cfg, own_layout)
    if own_layout != "torchvision":
        raise PretrainedError(f"{path}: allowed with {model_cfg.name} are .safetensors files, with "
                              f"the names of {' or '.join(NETWORKS[model_cfg.name].published)}")
    with _open_h5(path) as file:
        tensors = _h5_tensors(path, file, variables)
        layout = _h5_layout(path, tensors, variables)
        return _fill(path, tensors, variables, model_cfg, layout)


def load_members(path: str | pathlib.Path, variables_M: Variables,
                 model_cfg: Any) -> tuple[Variables, Loaded]:
    """Like `load_pretrained` for all members: the file is read once, and they share its arrays.

    Args:
      path, model_cfg: as for `load_pretrained`.
      variables_M: `[M, ...]` on the host; not changed.

    Returns:
      (variables `[M, ...]`, what was loaded); the file's arrays are in memory once, read-only.

    Raises:
      PretrainedError: as for `load_pretrained`.
    """
    flat = traverse_util.flatten_dict(variables_M, sep="/")
    first = _tree({ours: x[0] for ours, x in flat.items()}, variables_M)
    one, loaded = load_pretrained(path, first, model_cfg)
    filled = traverse_util.flatten_dict(one, sep="/")
    shared = {ours: np.broadcast_to(filled[ours], flat[ours].shape) for ours in loaded.loaded}
    return _tree({**flat, **shared}, variables_M), loaded


def file_layout(name: str) -> str:
    """The layout of a network's .safetensors files; '' if there are none."""
    return NETWORKS[name].layout if name in NETWORKS else "torchvision"


def published_preprocess(model_cfg: Any) -> str:
    """The preprocessing that published weights were trained with, by the section `model`."""
    if model_cfg.name in NETWORKS:
        return NETWORKS[model_cfg.name].published[model_cfg.variant]
    return PREPROCESS_OF[model_cfg.variant]


def _fill(path: pathlib.Path, tensors: dict[str, FileTensor], variables: Variables,
          model_cfg: Any, layout: str) -> tuple[Variables, Loaded]:
    if layout not in NAMES and layout != model_cfg.variant:
        raise PretrainedError(
            f"{path} has the layout of variant {layout!r}, but config.model.variant is "
            f"{model_cfg.variant!r}: set config.model.variant={layout!r}")
    flat = traverse_util.flatten_dict(variables, sep="/")
    sources = {ours: name for ours in flat if (name := source_name(ours, layout)) is not None}
    for module in ("projection", "output"):
        paths = [ours for ours in sources if ours.split("/")[1] == module]
        if not _head_part_serves(module, {ours: sources[ours] for ours in paths}, flat, tensors,
                                 layout):
            for ours in paths:
                del sources[ours]

    missing = sorted(set(sources.values()) - set(tensors))
    left_over = sorted(set(tensors) - set(sources.values()))
    strange = [name for name in left_over if not _is_head_or_counter(name, tensors, layout)]
    wrong, unread, resized = [], [], set()
    for ours, name in sources.items():
        if name in tensors:
            if not tensors[name].is_float:
                unread.append(f"{name} is {tensors[name].dtype}")
            found, wanted = tensors[name].shape, file_shape(flat[ours].shape, layout)
            if found != wanted and name == "pos_embed" and can_resize(found, wanted):
                resized.add(ours)
            elif found != wanted:
                wrong.append(f"{name} is {found}, the model's {ours} needs {wanted}")
    if resized and not model_cfg.resize_positions:
        wrong.append("pos_embed is for another number of patches: set config.data.image_size and "
                     "config.model.stem as published (224, 'imagenet'), or config.model."
                     "resize_positions=True to interpolate it")
    problems = [text for text in (
        missing and f"missing in the file: {_some(missing)}",
        strange and f"left over in the file: {_some(strange)}",
        wrong and f"of another shape: {_some(wrong, '; ', 3)}",
        unread and f"of a type that only another program can scale: {_some(unread, '; ', 3)}; "
                   f"allowed: {', '.join(FLOATS)}") if text]
    if problems:
        raise PretrainedError(
            f"{path} does not fit {model_cfg.name} (width {model_cfg.width}, stem "
            f"{model_cfg.stem!r}, projection {model_cfg.projection}; published: 64, 'imagenet', "
            f"{'0' if layout in NAMES else 'VGGFace2 512'}). " + ". ".join(problems))

    filled = dict(flat)
    for ours, name in sources.items():
        value = np.asarray(tensors[name].read(), np.float32)
        if not np.isfinite(value).all():
            raise PretrainedError(f"{path}: {name} holds NaN or infinite values")
        filled[ours] = (resized_positions(value, flat[ours].shape[1]) if ours in resized
                        else our_axes(value, layout))
    loaded = Loaded(layout, tuple(sorted(sources)), tuple(sorted(set(flat) - set(sources))),
                    tuple(left_over))
    return _tree(filled, variables), loaded


def _tree(flat: dict[str, Any], like: Variables) -> Variables:
    """Leaves by path as a tree; a collection without leaves (no batch norms) stays in it."""
    return {**{collection: {} for collection in like},
            **traverse_util.unflatten_dict(flat, sep="/")}


def _head_part_serves(module: str, sources: dict[str, str], flat: dict,
                      tensors: dict[str, FileTensor], layout: str) -> bool:
    """Whether the file fills a part of the head; see the module's docstring."""
    if module == "projection":
        return any(name in tensors for name in sources.values())
    if any(path.startswith(("params/projection/", "params/head_dense")) for path in flat):
        return False
    # A single column is a regression value in unknown units.
    return flat["params/output/bias"].size > 1 and all(
        name in tensors and tensors[name].shape == file_shape(flat[ours].shape, layout)
        for ours, name in sources.items())


def _is_head_or_counter(name: str, tensors: dict[str, FileTensor], layout: str) -> bool:
    """Whether a name is a dense layer's, num_batches_tracked, or a random seed's."""
    if tensors[name].counts:
        return True
    if layout in NAMES:
        return re.match(NAMES[layout].head, name) is not None
    layer, separator, _ = name.rpartition("/" if "/" in name else ".")
    kernels = (tensors.get(f"{layer}{separator}{leaf}") for leaf in ("kernel", "weight"))
    return not re.match(r"layer\d", name) and any(k is not None and len(k.shape) == 2
                                                for k in kernels)


def _check_kind(path: pathlib.Path) -> None:
    if not path.is_file():
        raise PretrainedError(f"config.model.pretrained: no file {path}")
    with path.open("rb") as file:
        start = file.read(24)
    if path.suffix in _PICKLES or start[:2] == b"\x80\x02" or start[:4] == b"PK\x03\x04":
        raise PretrainedError(
            f"{path}: pickles and archives are never opened, a pickle can run code. Convert "
            "PyTorch weights to .safetensors (safetensors.torch.save_file of the state dict); "
            "unzip model.weights.h5 from a .keras file")
    if path.suffix in (".h5", ".hdf5"):
        if not h5py.is_hdf5(path):
            raise PretrainedError(f"{path} is not an HDF5 file: it starts with {start!r}")
    elif path.suffix != ".safetensors":
        raise PretrainedError(f"{path}: allowed are .h5, .hdf5 (Keras) and .safetensors (PyTorch)")


def _open_safetensors(path: pathlib.Path):
    try:
        return safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise PretrainedError(f"{path} is not a whole safetensors file: {error}") from error


def _open_h5(path: pathlib.Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise PretrainedError(f"{path} is not a whole HDF5 file: {error}") from error


def _h5_tensors(path: pathlib.Path, file: h5py.File, variables: Variables) -> dict[str, FileTensor]:
    """'layer/leaf' -> tensor, for each of Keras' HDF5 layouts."""
    root = file.get("model_weights", file)
    datasets: dict[str, h5py.Dataset] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    # visititems follows no links, so nothing outside the file can be read.
    root.visititems(note)
    known = _known_layers(variables)
    tensors: dict[str, FileTensor] = {}
    for raw, dataset in datasets.items():
        if raw.startswith(("optimizer/", "optimizer_weights/")):
            continue
        if dataset.external or dataset.is_virtual:
            raise PretrainedError(f"{path}: {raw} points to data in another file")
        name = _h5_name(path, raw, dataset, known)
        if name in tensors:
            raise PretrainedError(f"{path} holds {name} twice (again at {raw})")
        kind = "F32" if dataset.dtype.kind == "f" else dataset.dtype.name
        tensors[name] = FileTensor(dataset.shape, kind, functools.partial(dataset.__getitem__, ()))
    return tensors


def _h5_name(path: pathlib.Path, raw: str, dataset: h5py.Dataset, known: set[str]) -> str:
    parent, _, leaf = raw.rpartition("/")
    if parent.split("/")[-1] != "vars":
        # Layer names may contain slashes (VGGFace2), are repeated in the weight's name, and may be
        # below an outer model: the longest known layer name in the path is the layer.
        layers = [layer for layer in known if f"/{layer}/" in f"/{parent}/"]
        return f"{max(layers, key=len, default=parent)}/{leaf.split(':')[0]}"
    layer = dataset.parent.attrs.get("name")
    if layer is None:
        raise PretrainedError(f"{path}: this Keras 3 file does not name its layers ({raw}); "
                              "save it again with Keras 3.6 or newer, or as a legacy .h5 file")
    leaves = _KERAS3_NORM_LEAVES if layer.endswith("bn") else _KERAS3_LEAVES
    numbered = dict(zip(map(str, range(len(leaves))), leaves))
    return f"{layer if layer in known else parent}/{numbered.get(leaf, leaf)}"


def _h5_layout(path: pathlib.Path, tensors: dict[str, FileTensor], variables: Variables) -> str:
    counts = {layout: len([name for name in _backbone_names(variables, layout) if name in tensors])
              for layout in KERAS}
    layout = max(counts, key=lambda name: counts[name])
    if not counts[layout]:
        raise PretrainedError(
            f"{path} holds no layer of keras.applications' ResNet50 (conv2_block1_1_conv) or of "
            f"VGGFace2's (conv2_1_1x1_reduce); it holds {_some(sorted(tensors)) or 'nothing'}")
    return layout


def _backbone_names(variables: Variables, layout: str) -> list[str]:
    names = (source_name(ours, layout)
             for ours in traverse_util.flatten_dict(variables, sep="/")
             if ours.split("/")[1].startswith("st"))
    return [name for name in names if name is not None]


def _known_layers(variables: Variables) -> set[str]:
    layers = {name.rpartition("/")[0] for layout in KERAS
              for name in _backbone_names(variables, layout)}
    return layers | {name for layout in KERAS for name in HEAD[layout].values()}


def _some(names, separator: str = ", ", most: int = 4) -> str:
    names = list(names)
    rest = f"{separator}and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + rest
