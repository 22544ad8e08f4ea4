"""Do published weights belong to this network? Their running statistics say so.

Tensor names and shapes do not tell where a network has its strides, how it pads or what its inputs
were scaled by. The running statistics do: they are what each batch norm saw in training. Where
weights, network and preprocessing belong together, images of any natural kind give channels about
the same means and deviations.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models import STEMS, Model, Variables
from unlearn_jax.networks.pretrained import PREPROCESS_OF, load_pretrained

SAMPLES = 64  # images that are looked at
# Medians over layers of what belongs together, also on images of another kind than in training.
MOST_SHIFT, MOST_RATIO = 1.0, 2.5
# An alternative is the better network where it is nearer by this factor, in most of the layers.
NEARER, MOSTLY = 0.7, 0.7
_SMALL = 1e-3  # a norm's scale below it switches its channel off


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far a layer's channels are from its running statistics; medians over channels.

    Attributes:
      layer: the convolution, by the name that `Model.features` gives it.
      shift: of a channel's mean from the running mean, in running standard deviations.
      ratio: of the larger to the smaller of a channel's deviation and the running one, at least 1.
    """

    layer: str
    shift: float
    ratio: float

    @property
    def size(self) -> float:
        """Both in one number: the shift and the ratio's logarithm."""
        return self.shift + float(np.log(self.ratio))


def statistics_gaps(model: Model, variables: Variables, images_BHWC: np.ndarray) -> list[Gap]:
    """The gap of each convolution that a norm follows, in the order of the network.

    Args:
      model: the network.
      variables: of one member.
      images_BHWC: uint8, about `SAMPLES`.
    """
    @jax.jit
    def measured(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        features = model.features(variables, images, train=False)[2]
        return {layer: jnp.stack([jnp.mean(x, axis=(0, 1, 2)), jnp.std(x, axis=(0, 1, 2))])
                for layer, x in features.items() if _norm(variables["params"], layer) is not None}

    found = jax.device_get(measured(variables, jnp.asarray(images_BHWC)))
    gaps = []
    for layer in sorted(found, key=_order):
        norm = _norm(variables["params"], layer)
        scale = np.abs(np.asarray(norm["scale"]))
        on = scale > _SMALL
        mean, deviation = found[layer][:, on]
        if on.any():
            # After the norm a channel that is as in training has its bias for mean, its scale for
            # deviation.
            shift = np.abs(mean - np.asarray(norm["bias"])[on]) / scale[on]
            ratio = np.abs(np.log(np.maximum(deviation, 1e-12) / scale[on]))
            gaps.append(Gap(layer, float(np.median(shift)), float(np.exp(np.median(ratio)))))
    return gaps


def notes(model_cfg: Any, model: Model, images_NHWC: np.ndarray,
          rows: np.ndarray) -> tuple[str, ...]:
    """What a reader must know of the config's pretrained weights; nothing where it has none.

    Args:
      model_cfg: the `model` section of the config.
      model: its network.
      images_NHWC: of the data set, uint8; may be a memory map.
      rows: `[n]` those of the training set.

    Raises:
      PretrainedError: the file cannot be used with this model.
    """
    if not model_cfg.pretrained:
        return ()
    published, found = PREPROCESS_OF[model_cfg.variant], []
    if model_cfg.preprocess != published:
        found.append(
            f"config.model.preprocess={model_cfg.preprocess!r} is kept on purpose (config.model."
            f"own_preprocess): the published weights of variant {model_cfg.variant!r} were trained "
            f"with {published!r}")
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), model.shapes())
    variables, _ = load_pretrained(model_cfg.pretrained, blank, model_cfg)
    chosen = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)]
    images = np.stack([images_NHWC[r] for r in chosen])
    gaps = statistics_gaps(model, variables, images)
    others = {words: statistics_gaps(other, variables, images)
              for words, other in alternatives(model).items()}
    doubt = doubts(gaps, others)
    if doubt:
        found.append(f"config.model.pretrained={model_cfg.pretrained!r}: {doubt}")
    return tuple(found)


def alternatives(model: Model) -> dict[str, Model]:
    """Networks with the same tensors that compute something else, by what is different."""
    variant, changes = model.module.variant, {}
    if model.module.bottleneck:
        where = "first 1x1" if variant.stride_at_3x3 else "3x3"
        changes[f"strides in the {where} convolutions"] = dict(
            stride_at_3x3=not variant.stride_at_3x3)
    if STEMS[model.module.stem][2]:
        kind = "an unpadded" if variant.pool_padding else "a padded"
        changes[f"{kind} pool"] = dict(pool_padding=int(not variant.pool_padding))
    if len(changes) > 1:
        changes[" and ".join(changes)] = functools.reduce(operator.or_, changes.values())
    return {words: dataclasses.replace(model, module=model.module.clone(
        variant=dataclasses.replace(variant, **change))) for words, change in changes.items()}


def doubts(gaps: list[Gap], others: Mapping[str, list[Gap]]) -> str:
    """In words, why weights do not look as if they belonged to the network; '' where they do.

    Args:
      gaps: of the network.
      others: of its alternatives. Images of another kind than in training move all of them alike,
        so that one which is nearer in nearly every layer is the better network.
    """
    own = np.array([g.size for g in gaps])
    for words, found in sorted(others.items(), key=lambda item: sum(g.size for g in item[1])):
        sizes = np.array([g.size for g in found])
        if sizes.sum() < NEARER * own.sum() and (sizes < own).mean() > MOSTLY:
            return (f"the running statistics are rather those of a network with {words}: its "
                    f"channels are {sizes.mean():.2g} away from them on average, those of this one "
                    f"{own.mean():.2g} (standard deviations of the mean, and the logarithm of the "
                    "deviation's factor). The weights seem to be of another architecture with the "
                    "same names")
    shift, ratio = (float(np.median([getattr(g, name) for g in gaps]))
                    for name in ("shift", "ratio"))
    if shift <= MOST_SHIFT and ratio <= MOST_RATIO:
        return ""
    worst = max(gaps, key=lambda g: g.size)
    return (
        "the running statistics are not those of this network on these images. Channels' means are "
        f"{shift:.2g} standard deviations away from the running ones (up to {MOST_SHIFT:g} is "
        f"common), their deviations off by a factor of {ratio:.2g} (up to {MOST_RATIO:g}); at most "
        f"in {worst.layer}, by {worst.shift:.2g} and {worst.ratio:.2g}. The weights may be of "
        "another architecture with the same names (stride, padding, pooling), or trained with "
        "other preprocessing or on images of another kind")


def _norm(params: Any, layer: str) -> Any:
    """The parameters of the norm that follows a convolution; None for what is no convolution."""
    *above, last = layer.split("/")
    for part in above:
        params = params[part]
    return params.get(last.replace("conv", "norm")) if "conv" in last else None


def _order(layer: str) -> tuple[int, str]:
    return (0 if layer.startswith("stem") else 1, layer)
