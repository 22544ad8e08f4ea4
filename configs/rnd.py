"""Random labels: M_O continues on the retain set and the relabelled forget set.

    python -m unlearn_jax.main --config=configs/rnd.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
`--config.unlearn.labels=uniform` draws from the whole label range instead of near the true
label; `--config.unlearn.label_units=as_published` repeats the study's unit error.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "rnd")
    if c.data.task == "classification":
        c.unlearn.labels = "uniform"
    if not scale:
        # As many images as ft sees in its 8 epochs, since rnd walks over the forget set as well.
        c.unlearn.epochs = (2, 5)
    return c
