"""The scales that the configs of this folder share: SCALE in `--config=FILE:SCALE`."""

from typing import Any

import ml_collections

from unlearn_jax.config import ConfigError, default_config
from unlearn_jax.methods import METHODS


def config(scale: str) -> ml_collections.ConfigDict:
    """The config of a scale, before a method is chosen.

    Args:
      scale: a key of `SCALES`.

    Raises:
      ConfigError: there is no such scale.
    """
    if scale not in SCALES:
        names = ", ".join(repr(name) for name in SCALES)
        raise ConfigError(f"--config=FILE:{scale}: no such scale; allowed: {names}")
    c = default_config()
    SCALES[scale](c)
    return c


def unlearning(scale: str, method: str) -> ml_collections.ConfigDict:
    """The config of a scale with a method; the study's scale takes the method's published keys.

    Args:
      scale: a key of `SCALES`.
      method: a key of `unlearn_jax.methods.METHODS`.
    """
    c = config(scale)
    c.unlearn.method = method
    if METHODS[method].make_step is None:
        c.unlearn.epochs = (0,)
    if scale == "utkface":
        c.unlearn.update(dict(METHODS[method].published))
    return c


def changes(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The values of a nested dict that differ from another's, in its form."""
    found = {}
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            value = changes(base[key], value)
            if value:
                found[key] = value
        elif key not in base or base[key] != value:
            found[key] = value
    return found


def whole_number(text: str, least: int) -> int:
    """The number after the colon.

    Raises:
      ConfigError: it is no whole number, or too small.
    """
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"--config=FILE:{text}: allowed: a whole number of at least {least}")
    return int(text)


def _demo(c: ml_collections.ConfigDict) -> None:
    """Synthetic faces of 32 pixels, a narrow ResNet: about a minute on two CPU cores."""


def _utkface(c: ml_collections.ConfigDict) -> None:
    """The reference study: UTKFace, ResNet50 at 224 pixels, its hyperparameters. For a GPU.

    Give the face-pretrained weights as `model.pretrained` to start where the study did.
    Without them the network starts at random.
    """
    c.data.source = "utkface"
    c.data.path = "data/UTKFace"
    c.data.image_size = 224
    c.data.fraction = 0.3
    c.data.quality = "on"
    c.data.balance = 150
    c.model.name = "resnet50"
    c.model.variant = "vggface2"
    c.model.width = 64
    c.model.stem = "imagenet"
    c.model.projection = 512
    c.model.head_widths = (256, 128)
    c.model.head_dropout = (0.5, 0.2)
    c.model.output_scale = 60.0
    c.model.output_offset = 0.0
    # VGGFace2's weights were trained with 'vggface2', whose mean differs by 12 grey levels. The
    # study took ImageNet's, and so does its scale.
    c.model.preprocess = "caffe"
    c.model.own_preprocess = True
    c.train.epochs = 200
    c.train.batch_size = 32
    c.train.learning_rate = 1e-5
    c.train.schedule = "constant"
    c.train.patience = 15
    c.unlearn.epochs = (2, 4, 8, 16)
    c.unlearn.batch_size = 32
    c.unlearn.learning_rate = 1e-5
    c.unlearn.schedule = "constant"
    c.eval.batch_size = 128


def _utkface_small(c: ml_collections.ConfigDict) -> None:
    """The study's protocol on the real UTKFace, CPU-sized: 48 pixels, a narrow ResNet.

    The quality filter is off, as its bounds were chosen for the 200 pixels of the originals.
    """
    c.data.source = "utkface"
    c.data.path = "data/UTKFace"
    c.data.image_size = 48
    c.data.fraction = 0.3
    c.data.balance = 150
    c.train.epochs = 12
    c.unlearn.epochs = (1, 3)


def _digits(c: ml_collections.ConfigDict) -> None:
    """Classification: scikit-learn's handwritten digits, one class is forgotten."""
    c.data.source = "digits"
    c.data.image_size = 16
    c.model.stem = "small"
    c.forget.sets = ("class:3",)
    _of_classes(c)


def _classes(c: ml_collections.ConfigDict) -> None:
    """Classification: a folder with a folder of images for each class; the first one is forgotten.

    `data.path` has no default. With `data.split=given` it holds `train/`, `val/` and `test/`, each
    with class folders. If these have numbers for names and none is named 0, `forget.sets` must be
    given, too. 32 pixels and a narrow ResNet, for a CPU.
    """
    c.data.source = "folder"
    c.forget.sets = ("class:0",)
    _of_classes(c)


def _of_classes(c: ml_collections.ConfigDict) -> None:
    c.data.task = "classification"
    c.train.loss = "cross_entropy"
    c.train.epochs = 8
    c.unlearn.epochs = (2,)
    c.eval.alphas = (0.05, 0.1, 0.25, 0.5, 1.0)  # errors are 1 - p(true class)
    c.eval.alpha = 0.25


SCALES = {
    "": _demo,
    "utkface": _utkface,
    "utkface_small": _utkface_small,
    "digits": _digits,
    "classes": _classes,
}
