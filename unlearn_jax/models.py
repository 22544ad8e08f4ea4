"""Models: a network for one member, with the queries that methods and explanations need.

Only this module and `networks/` use Flax; all other code handles trees of arrays.
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
from unlearn_jax.networks import own
from unlearn_jax.networks.anatomy import Anatomy, add_map, anatomy, as_map
from unlearn_jax.networks.draws import one_draw
from unlearn_jax.networks.ends import PREPROCESS as PREPROCESS
from unlearn_jax.networks.ends import preprocess as preprocess
from unlearn_jax.networks.network import Network
from unlearn_jax.networks.registry import NETWORKS, make_packaged
from unlearn_jax.networks.resnet import (
    DEPTHS,
    FEATURES,
    VARIANTS,
    ResidualBlock,
    ResNet,
    check_variant,
)
from unlearn_jax.networks.resnet import STEMS as STEMS
from unlearn_jax.system.made_once import made_once

Variables = dict[str, Any]
# Values of `config.model.name` that need no file.
NAMES = (*DEPTHS, *NETWORKS)


@dataclasses.dataclass(frozen=True)
class Model:
    """A network for one member; hashable, equal for equal configs, usable as a constant in jit.

    Attributes:
      module: the linen module.
      image_size: pixels, height and width.
      frozen: regular expressions (`re.search`) over parameter paths 'a/b/c' that stay fixed.
    """

    module: Any
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
        # One draw for all variables: on a CPU, XLA takes about a second to compile each draw.
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
        return jax.tree.map(lambda shape: shape, _shapes(self))  # a tree of the caller's own

    def apply(self, variables: Variables, images_BHWC: jax.Array, *, train: bool,
              key: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """The forward pass of one member.

        Args:
          variables: {'params', 'batch_stats'} as from `init`.
          images_BHWC: uint8 or float, 0..255, RGB.
          train: batch statistics and dropout, else running statistics.
          key: for dropout; needed in training if the head has dropout.

        Returns:
          outputs: float32, `[B]` label units (regression) or `[B, C]` logits.
          batch_stats: the new running statistics; unchanged if train is False.

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
        """The forward pass with intermediate outputs.

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

    @property
    def blocks(self) -> tuple[str, ...]:
        """The outputs whose attention maps a method may compare, by the names of `features`."""
        return tuple(f"stage{s}_block{b + 1}"
                     for s, blocks in enumerate(self.module.blocks, start=1) for b in range(blocks))

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers by path, from the images to the outputs; () for the order of their names."""
        return ()

    @property
    def ends(self) -> tuple[str, ...]:
        """The names of the first and of the last layer that have parameters.

        It is () if the order of the layers is unknown.
        """
        return "stem_conv", "output"

    def norm_of(self, layer: str) -> str:
        """The path of the norm that follows a convolution; '' if none does."""
        head, slash, last = layer.rpartition("/")
        return head + slash + last.replace("conv", "norm")

    def norm_momentum(self, norm: str) -> float:
        """The share of the old running statistics that a step keeps, of the norm at a path."""
        del norm
        return self.module.variant.norm_momentum

    def shifted(self, variables: Variables, images_BHWC: jax.Array,
                shifts: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The evaluation pass with shifts added to the outputs of blocks.

        The gradient with respect to a shift at zero equals the one with respect to the output.

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


@dataclasses.dataclass(frozen=True)
class FlaxModel(Model):
    """A model around any Flax network (`networks/network.py`).

    `Model` finds the parts of ResNets by their names; this class finds them by tracing the network
    (`networks/anatomy.py`). The network's own layers draw the fresh variables.
    """

    @property
    def anatomy(self) -> Anatomy:
        """The parts of the network."""
        return anatomy(self.module.inner, self.image_size)

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables of one member: {'params': tree, 'batch_stats': tree}, float32."""
        keys = dict(zip(("params", "dropout"), jax.random.split(key)))
        # Without the ends and the members' layers, which hold no variables and need a device.
        variables = one_draw(self.module.inner, self.image_size, keys)
        return {"params": variables.get("params", {}),
                "batch_stats": variables.get("batch_stats", {})}

    def apply(self, variables: Variables, images_BHWC: jax.Array, *, train: bool,
              key: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """The forward pass of one member; see `Model.apply`."""
        outputs, batch_stats, _ = self._run(variables, images_BHWC, train, key, ())
        return outputs, batch_stats

    def features(self, variables: Variables, images_BHWC: jax.Array, *, train: bool,
                 key: jax.Array | None = None,
                 ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """The forward pass with intermediate outputs; see `Model.features`.

        Returns:
          outputs, batch_stats: as from `apply`.
          features: `[B, H', W', C]` by path: the channels of layers with channels, after their
            norms, and the outputs of `stages`.
        """
        sources, lead = self.anatomy.sources(), dict(self.anatomy.lead)
        outputs, batch_stats, found = self._run(variables, images_BHWC, train, key,
                                                tuple(sources.values()))
        return outputs, batch_stats, {name: as_map(found[source], lead.get(source))
                                      for name, source in sources.items()}

    def _run(self, variables, images_BHWC, train, key, captured):
        size = self.image_size
        if images_BHWC.shape[1:] != (size, size, 3):
            raise ValueError(f"images have shape {images_BHWC.shape}; this model takes "
                             f"[B, {size}, {size}, 3]")
        rngs = {}
        if train and key is not None:  # 'params' serves streams of other names
            rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        mutable = [*(["batch_stats"] if train else []), *([FEATURES] if captured else [])]
        found = self.module.apply(
            variables, images_BHWC, train=train, rngs=rngs, mutable=mutable or False,
            capture_intermediates=captured and (lambda module, method: (
                method == "__call__" and "/".join(module.path) in captured)))
        outputs, updates = found if mutable else (found, {})
        flat = traverse_util.flatten_dict(updates.get(FEATURES, {}), sep="/")
        return (outputs, updates.get("batch_stats", variables["batch_stats"]),
                {path: flat[f"{path}/__call__"][0] for path in captured})

    @property
    def stages(self) -> tuple[str, ...]:
        """The network's feature maps, by the names that `features` gives them, first to last."""
        return self.anatomy.stages

    @property
    def blocks(self) -> tuple[str, ...]:
        """The outputs whose attention maps a method may compare: `stages`."""
        return self.stages

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers by path, from the images to the outputs."""
        return self.anatomy.layers

    @property
    def ends(self) -> tuple[str, ...]:
        """The first and the last layer with parameters; see `Model.ends`."""
        return (self.layers[0], self.layers[-1]) if self.layers else ()

    def norm_of(self, layer: str) -> str:
        """The path of the norm that takes a layer's output; '' if none does."""
        return dict(self.anatomy.channels).get(layer, "")

    def norm_momentum(self, norm: str) -> float:
        """The share of the old running statistics that a step keeps, of the norm at a path."""
        return dict(self.anatomy.momenta)[norm]

    def shifted(self, variables: Variables, images_BHWC: jax.Array,
                shifts: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The evaluation pass with shifts added to the outputs of `stages`; see `Model.shifted`."""
        lead = dict(self.anatomy.lead)

        def add(call, args, kwargs, context):
            output = call(*args, **kwargs)
            path = "/".join(context.module.path)
            if path not in shifts or context.method_name != "__call__":
                return output
            return add_map(output, shifts[path], lead.get(path))

        with nn.intercept_methods(add):
            outputs, _, features = self.features(variables, images_BHWC, train=False)
        return outputs, features


def build_model(model_cfg: Any, image_size: int, num_classes: int) -> Model:
    """Builds the model of a config section.

    Args:
      model_cfg: the `model` section of the config, already checked.
      image_size: pixels.
      num_classes: logits; 0 for regression.

    Raises:
      ConfigError: a pattern of `model.frozen` is no regular expression or matches no parameter; or
        the network cannot be used with this config.
    """
    if model_cfg.name not in DEPTHS:
        return _flax_model(model_cfg, image_size, num_classes)
    check_variant(model_cfg)
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
        module = module.clone(frozen_norms=_frozen_norms(Model(module, image_size, frozen)))
    return Model(module, image_size, frozen)


def network_parts(name: str) -> dict[str, str]:
    """The parts of store keys that identify a network from a file: its name and its file's text."""
    if name in NAMES:
        return {}
    found = own.find(name, NAMES)
    return {"name": found.name, "code": found.code}


def slowest_norm(model_cfg: Any, image_size: int) -> float:
    """The largest share of the old running statistics that a step of a network keeps.

    Args:
      model_cfg, image_size: as for `build_model`.

    Returns:
      The share; 0 for a network without batch norms, and for running statistics of another kind,
      whose share is unknown.
    """
    if model_cfg.name in DEPTHS:
        return VARIANTS[model_cfg.variant].norm_momentum
    momenta = _flax_model(model_cfg, image_size, 1).anatomy.momenta
    return max((m for _, m in momenta), default=0.0) if all(m == m for _, m in momenta) else 0.0


def _flax_model(model_cfg: Any, image_size: int, num_classes: int) -> FlaxModel:
    packaged = model_cfg.name in NETWORKS
    inner = (make_packaged(model_cfg, image_size, num_classes or 1) if packaged
             else own.make(model_cfg, num_classes or 1, NAMES))
    module = Network(inner, num_classes, model_cfg.output, model_cfg.output_scale,
                     model_cfg.output_offset, model_cfg.preprocess)
    if not packaged:
        own.check_traces(module, model_cfg.name, image_size)
    model = FlaxModel(module, image_size, tuple(model_cfg.frozen))
    if not model.frozen:
        return model
    frozen = _frozen_norms(model)
    return dataclasses.replace(model, module=module.clone(frozen_norms=frozen))


@made_once
def _shapes(model: Model) -> Variables:
    if isinstance(model, FlaxModel):
        return jax.eval_shape(lambda: model.init(jax.random.key(0)))
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.uint8)
    return jax.eval_shape(lambda x: model.module.init(jax.random.key(0), x, train=False), images)


def _frozen_norms(model: Model) -> tuple[str, ...]:
    """Paths of the batch norms with all parameters frozen; checks that every pattern matches."""
    shapes, patterns = model.shapes(), model.frozen
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
    parameters = {norm: [p for p in paths if p.rpartition("/")[0] == norm] for norm in norms}
    return tuple(norm for norm, parts in parameters.items()
                 if parts and all(_matches(patterns, path) for path in parts))


@functools.cache
def _matches(patterns: tuple[str, ...], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
