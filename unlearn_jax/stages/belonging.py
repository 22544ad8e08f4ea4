"""Checks by the running statistics whether published weights belong to a network.

Names and shapes of tensors do not show the strides of a network, its padding or the scale of its
inputs. The running statistics show them: each batch norm holds the mean and the deviation that its
channels had in training. If weights, network and preprocessing belong together, images like those
of the training give each channel about the same mean and deviation. Other images change both, but
strongly in a few layers only. So medians over layers decide. An alternative (pool, strides,
preprocessing) is named only if it fits clearly better.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models import PREPROCESS, STEMS, Model, Variables, preprocess
from unlearn_jax.networks.pretrained import load_pretrained, published_preprocess
from unlearn_jax.networks.resnet import ResNet

SAMPLES = 64  # images that the check passes through the network
# Limits of medians over layers of `Gap.size`, chosen by `python -m benchmarks.belonging`. An
# alternative is named if its median is below NEARER times the network's own, and below NEAR, which
# right weights reach on images like those of their training. On other images a wrong network may
# by chance be nearer than the right one, but its median is not below NEAR. There, another
# preprocessing is named as well if its gap is smaller in every layer.
NEARER, NEAR = 0.55, 0.25
# The largest medians of right weights on images unlike those of their training.
MOST_SHIFT, MOST_RATIO = 6.0, 10.0
_SMALL = 1e-3  # a channel whose scale in the norm is smaller is switched off


@dataclasses.dataclass(frozen=True)
class Gap:
    """The difference between a layer's channels and its running statistics; medians over channels.

    Attributes:
      layer: the convolution, by the name that `Model.features` gives it.
      shift: distance between a channel's mean and the running mean, in running standard deviations.
      ratio: a channel's deviation divided by the running one, or the inverse if that is larger; at
        least 1.
    """

    layer: str
    shift: float
    ratio: float

    @property
    def size(self) -> float:
        """Both in one number: the shift plus the ratio's natural logarithm."""
        return self.shift + float(np.log(self.ratio))


def statistics_gaps(model: Model, variables: Variables, images_BHWC: np.ndarray) -> list[Gap]:
    """The gap of each convolution that a norm follows, in the order of the network.

    Args:
      model: the network.
      variables: those of one member, without a member axis.
      images_BHWC: uint8; about `SAMPLES` images.
    """
    # One program serves all preprocessings: it gets images that 'unit' maps to the same inputs.
    inputs = preprocess(jnp.asarray(images_BHWC), model.module.preprocess)
    _, (middle, *_), (half_range, *_) = PREPROCESS["unit"]
    images = inputs * half_range + middle
    plain = dataclasses.replace(model, module=model.module.clone(preprocess="unit"))
    found = jax.device_get(_measured(plain, variables, images))
    gaps = []
    for layer in sorted(found, key=_order):
        norm = _parameters_of_norm(model, variables, layer)
        scale = np.abs(np.asarray(norm["scale"]))
        on = scale > _SMALL
        mean, deviation = found[layer][:, on]
        if on.any():
            # `found` holds values after the norm. There, a channel with the statistics of the
            # training has the norm's bias as its mean and the norm's scale as its deviation.
            shift = np.abs(mean - np.asarray(norm["bias"])[on]) / scale[on]
            ratio = np.abs(np.log(np.maximum(deviation, 1e-12) / scale[on]))
            gaps.append(Gap(layer, float(np.median(shift)), float(np.exp(np.median(ratio)))))
    return gaps


@functools.partial(jax.jit, static_argnums=0)
def _measured(model: Model, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    """By layer, means and deviations `[2, C]` of the channels after the norm."""
    features = model.features(variables, images, train=False)[2]
    return {layer: jnp.stack([jnp.mean(x, axis=(0, 1, 2)), jnp.std(x, axis=(0, 1, 2))])
            for layer, x in features.items()
            if _parameters_of_norm(model, variables, layer) is not None}


def notes(model_cfg: Any, model: Model, images_NHWC: np.ndarray,
          rows: np.ndarray) -> tuple[str, ...]:
    """Warnings about the config's pretrained weights; empty if the config names none.

    Args:
      model_cfg: the `model` section of the config.
      model: the network of that section.
      images_NHWC: uint8 images of the data set; may be a memory map.
      rows: `[n]` rows of the training samples in the data set.

    Raises:
      PretrainedError: the file cannot be used with this model.
    """
    if not model_cfg.pretrained:
        return ()
    published, found = published_preprocess(model_cfg), []
    if model_cfg.preprocess != published:
        found.append(
            f"config.model.preprocess={model_cfg.preprocess!r} is kept on purpose (config.model."
            f"own_preprocess): the published weights of variant {model_cfg.variant!r} were trained "
            f"with {published!r}")
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), model.shapes())
    variables, _ = load_pretrained(model_cfg.pretrained, blank, model_cfg)
    chosen = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)]
    images = np.stack([images_NHWC[r] for r in chosen])
    doubt = doubt_of(model, variables, images)
    if doubt:
        found.append(f"config.model.pretrained={model_cfg.pretrained!r}: {doubt}")
    return tuple(found)


def doubt_of(model: Model, variables: Variables, images_BHWC: np.ndarray) -> str:
    """Why variables do not seem to belong to the network, in words; '' if they seem to belong.

    A network without batch norms has no running statistics, so it gives no reason for doubt.

    Args:
      model, variables, images_BHWC: as for `statistics_gaps`.
    """
    gaps = statistics_gaps(model, variables, images_BHWC)
    if not gaps:
        return ""
    return doubts(gaps, {words: statistics_gaps(other, variables, images_BHWC)
                         for words, other in alternatives(model).items()})


def alternatives(model: Model) -> dict[str, Model]:
    """Networks with the same tensors but other computations, by a text that names the change."""
    parts = _other_variants(model.module) if isinstance(model.module, ResNet) else {}
    own = model.module.preprocess
    # A preprocessing that differs in the mean alone ('caffe' and 'vggface2') is left out: somewhat
    # lighter images look the same to the network.
    parts |= {f"preprocess={kind!r}": dict(preprocess=kind)
              for kind, (reverse, _, scale) in PREPROCESS.items()
              if (reverse, scale) != (PREPROCESS[own][0], PREPROCESS[own][2])}
    return {words: dataclasses.replace(model, module=model.module.clone(**part))
            for words, part in parts.items()}


def _other_variants(module: ResNet) -> dict[str, dict[str, Any]]:
    """The changes of a ResNet's variant, by the text that names them."""
    variant = module.variant
    changes: dict[str, dict[str, Any]] = {}
    if module.bottleneck:
        where = "first 1x1" if variant.stride_at_3x3 else "3x3"
        changes[f"strides in the {where} convolutions"] = dict(
            stride_at_3x3=not variant.stride_at_3x3)
    if STEMS[module.stem][2]:
        kind = "an unpadded" if variant.pool_padding else "a padded"
        changes[f"{kind} pool"] = dict(pool_padding=int(not variant.pool_padding))
    if len(changes) > 1:
        changes[" and ".join(changes)] = functools.reduce(operator.or_, changes.values())
    return {words: dict(variant=dataclasses.replace(variant, **change))
            for words, change in changes.items()}


def doubts(gaps: list[Gap], others: Mapping[str, list[Gap]]) -> str:
    """Why weights do not seem to belong to the network, in words; '' if they seem to belong.

    Medians over layers decide, because images unlike those of the training change a few layers
    strongly. An alternative is named by the limits `NEARER` and `NEAR`.

    Args:
      gaps: those of the network, one for each layer.
      others: those of each alternative, by the text that names its change.
    """
    own = _median(gaps, "size")
    if others:
        words = min(others, key=lambda words: _median(others[words], "size"))
        other = _median(others[words], "size")
        inputs = words.startswith("preprocess")
        everywhere = all(o.size < g.size for o, g in zip(others[words], gaps, strict=True))
        if other < NEARER * own and (other < NEAR or inputs and everywhere):
            cause = ("were trained with other inputs" if inputs
                     else "seem to be of another architecture with the same names")
            return (f"the running statistics are rather those of a network with {words}: in the "
                    f"median layer its channels are {other:.2g} away from them, those of this one "
                    f"{own:.2g} (standard deviations of the mean, and the logarithm of the "
                    f"deviation's factor). The weights {cause}")
    shift, ratio = _median(gaps, "shift"), _median(gaps, "ratio")
    if shift <= MOST_SHIFT and ratio <= MOST_RATIO:
        return ""
    worst = max(gaps, key=lambda g: g.size)
    return (
        "the running statistics are not those of this network on these images. Channels' means are "
        f"{shift:.2g} standard deviations away from the running ones in the median layer (up to "
        f"{MOST_SHIFT:g} is common), their deviations off by a factor of {ratio:.2g} (up to "
        f"{MOST_RATIO:g}); at most in {worst.layer}, by {worst.shift:.2g} and {worst.ratio:.2g}. "
        "The weights may be of another architecture with the same names (stride, padding, "
        "pooling), or trained with other preprocessing or on images of another kind")


def _median(gaps: list[Gap], name: str) -> float:
    """The median over layers of one attribute of the gaps."""
    return float(np.median([getattr(g, name) for g in gaps]))


def _parameters_of_norm(model: Model, variables: Variables, layer: str) -> Any:
    """The parameters of the batch norm after a layer; None if no batch norm follows."""
    statistics, params = variables["batch_stats"], variables["params"]
    for part in model.norm_of(layer).split("/"):
        if part not in statistics:
            return None
        statistics, params = statistics[part], params[part]
    return params if "var" in statistics else None


def _order(layer: str) -> tuple[int, str]:
    """Sorts layers as the network has them: the stem comes first."""
    return (0 if layer.startswith("stem") else 1, layer)
