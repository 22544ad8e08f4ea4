"""Do published weights belong to this network? Their running statistics say so.

Tensor names and shapes do not tell where a network has its strides, how it pads or what its inputs
were scaled by. The running statistics do: they are what each batch norm saw in training. Where
weights, network and preprocessing belong together, images of the kind of training give channels
about the same means and deviations. Images of another kind move them, a few layers far. So medians
over layers decide, and an alternative (pool, strides, preprocessing) has to fit clearly better.
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
from unlearn_jax.networks.pretrained import PREPROCESS_OF, load_pretrained

SAMPLES = 64  # images that are looked at
# Medians over layers, chosen by `python -m benchmarks.belonging`. An alternative is the better
# network where it is nearer by the first factor, and as near as right weights are on images of the
# kind of training. On another kind some wrong network can be nearer than the right one by chance,
# but none is near; wrong inputs show there by an alternative that is nearer in every layer.
NEARER, NEAR = 0.55, 0.25
# What right weights reach on images of another kind than in training.
MOST_SHIFT, MOST_RATIO = 6.0, 10.0
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
    # One program for all preprocessings: the images are made those that 'unit' maps to the inputs.
    inputs = preprocess(jnp.asarray(images_BHWC), model.module.preprocess)
    _, (middle, *_), (half_range, *_) = PREPROCESS["unit"]
    images = inputs * half_range + middle
    plain = dataclasses.replace(model, module=model.module.clone(preprocess="unit"))
    found = jax.device_get(_measured(plain, variables, images))
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


@functools.partial(jax.jit, static_argnums=0)
def _measured(model: Model, variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
    """`[2, C]` by layer: means and deviations of the channels behind the norm."""
    features = model.features(variables, images, train=False)[2]
    return {layer: jnp.stack([jnp.mean(x, axis=(0, 1, 2)), jnp.std(x, axis=(0, 1, 2))])
            for layer, x in features.items() if _norm(variables["params"], layer) is not None}


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
    doubt = doubt_of(model, variables, images)
    if doubt:
        found.append(f"config.model.pretrained={model_cfg.pretrained!r}: {doubt}")
    return tuple(found)


def doubt_of(model: Model, variables: Variables, images_BHWC: np.ndarray) -> str:
    """In words, why variables do not look as if they belonged to the network; '' where they do.

    Args:
      model, variables, images_BHWC: as for `statistics_gaps`.
    """
    return doubts(statistics_gaps(model, variables, images_BHWC),
                  {words: statistics_gaps(other, variables, images_BHWC)
                   for words, other in alternatives(model).items()})


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
    parts = {words: dict(variant=dataclasses.replace(variant, **change))
             for words, change in changes.items()}
    own = model.module.preprocess
    # Another mean alone ('caffe' and 'vggface2') is what somewhat lighter images have, too.
    parts |= {f"preprocess={kind!r}": dict(preprocess=kind)
              for kind, (reverse, _, scale) in PREPROCESS.items()
              if (reverse, scale) != (PREPROCESS[own][0], PREPROCESS[own][2])}
    return {words: dataclasses.replace(model, module=model.module.clone(**part))
            for words, part in parts.items()}


def doubts(gaps: list[Gap], others: Mapping[str, list[Gap]]) -> str:
    """In words, why weights do not look as if they belonged to the network; '' where they do.

    Medians over layers decide: images of another kind than in training move a few layers far.
    `NEARER` and `NEAR` say when an alternative is named.

    Args:
      gaps: of the network.
      others: of its alternatives.
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
    """The median over layers of one of a gap's figures."""
    return float(np.median([getattr(g, name) for g in gaps]))


def _norm(params: Any, layer: str) -> Any:
    """The parameters of the norm that follows a convolution; None for what is no convolution."""
    *above, last = layer.split("/")
    for part in above:
        params = params[part]
    return params.get(last.replace("conv", "norm")) if "conv" in last else None


def _order(layer: str) -> tuple[int, str]:
    return (0 if layer.startswith("stem") else 1, layer)
