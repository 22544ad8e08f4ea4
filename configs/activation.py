"""Activation values: perturbs the channels of M_O that D_f activates most, then fine-tunes.

    python -m unlearn_jax.main --config=configs/activation.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store. The study
describes the method and gives no values; at its scale noise has the size of the channels. Ours, at
the others: a tenth of the channels, noise of ten times their size (`unlearn.activation.strength`).
At the default scale 6 epochs as ft follow. With the one walk over the training set that is as many
images as ft's 8. Of strengths 1, 3, 10 and 30, ten is the largest that keeps the retain set's
validation error there within 5 % of M_O's; no forget or test sample was used. With fewer
epochs less noise is possible: a comparison searches from 1 to 30.
`--config.unlearn.activation.perturb=reset` re-initialises the channels.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "activation")
    if scale != "utkface":
        c.unlearn.activation.strength = 10.0
    if not scale:
        c.unlearn.epochs = (2, 6)
    return c
