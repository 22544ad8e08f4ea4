"""The reference study, reproduced by one command: its tables 3 to 8, and a check of its claims.

    python -m unlearn_jax.main --config=configs/thesis.py --config.data.path=UTKFace \\
        --config.model.pretrained=vggface2_resnet50.h5        its own scale: for a GPU
    python -m unlearn_jax.main --config=configs/thesis.py:small --config.data.path=UTKFace
    python -m unlearn_jax.main --config=configs/thesis.py:demo          synthetic faces

Three seeds of M_O, of an M_R for each of five forget sets, and of four arms: `ft`, fine-tuning on
D_r; random labels for D_f, `rnd` of a uniform age and `rnd_offset` of 3 to 6 years off, both in
years; and `rnd_units`, the offsets with the unit error of the published code. On the first forget
set all have 2, 4, 8 and 16 epochs; on the others `ft` has 8, random labels 2, as in the study.
After an interruption, the same command continues the study.
"""

import ml_collections

from configs import common
from unlearn_jax.errors import ConfigError

SETS = ("20-28", "28-36", "36-44", "44-52", "52-60")
EPOCHS = (2, 4, 8, 16)
ARMS = {
    "ft": dict(method="ft"),
    "rnd": dict(method="rnd", labels="uniform", label_units="years"),
    "rnd_offset": dict(method="rnd", labels="offset", label_units="years"),
    "rnd_units": dict(method="rnd", labels="offset", label_units="as_published"),
}
ELSEWHERE = {"ft": (8,), "rnd": (2,), "rnd_offset": (2,), "rnd_units": (2,)}


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon: nothing, `small` or `demo`."""
    if scale not in _SCALES:
        raise ConfigError(f"--config=FILE:{scale}: no such scale; allowed: "
                          + ", ".join(map(repr, _SCALES)))
    base, change = _SCALES[scale]
    c = common.config(base)
    c.forget.sets = SETS
    c.unlearn.epochs = EPOCHS
    c.unlearn.schedule = "constant"  # so that the budgets are snapshots of one run, as in the study
    change(c)
    c.thesis.arms = tuple(ARMS)
    with c.unlocked():
        for arm, own in ARMS.items():
            c.thesis.unlearn[arm] = ml_collections.ConfigDict(own)
            c.thesis.elsewhere[arm] = ELSEWHERE[arm]
    return c


def _full(c: ml_collections.ConfigDict) -> None:
    """As published: M_O, M_R and ft are those of configs/ft.py:utkface."""


def _small(c: ml_collections.ConfigDict) -> None:
    """The real faces at 32 pixels, a narrow ResNet."""
    c.data.image_size = 32
    c.unlearn.learning_rate = 5e-4


def _demo(c: ml_collections.ConfigDict) -> None:
    """Synthetic faces, fewer and smaller than those of configs/ft.py."""
    c.data.size = 2000
    c.data.image_size = 24
    c.unlearn.learning_rate = 5e-4


# What follows the colon: the scale of configs/common.py that it starts from, and its changes.
_SCALES = {"": ("utkface", _full), "small": ("utkface_small", _small), "demo": ("", _demo)}
