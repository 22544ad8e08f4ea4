"""M_O learns D_f with labels drawn from the labels of all training samples.

    python -m unlearn_jax.main --config=configs/gaussian_amnesiac.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: one epoch of Adam, rate 1e-3, batches of 256; the study's scale takes these.
The default scale has the rate of configs/ft.py and about as many images: rates from 5e-4 to 8e-3
all kept the retain set's validation error within 5 % of M_O's (configs/compare.py).
No forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "gaussian_amnesiac")
    if not scale:
        c.unlearn.epochs = (2, 5)  # it walks over D_f as well
    return c
