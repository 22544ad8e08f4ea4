"""Blindspot: M_O learns on D_f from a proxy that never saw D_f, and on D_r from the labels.

    python -m unlearn_jax.main --config=configs/blindspot.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: a proxy of 2 epochs on D_r at rate 0.01, then one epoch over everything, Adam, rate
1e-3, attention weighed with 50. At the default scale one epoch or three at rate 4e-3, which with
the proxy are fewer images than ft's 8 epochs. With three epochs the rates 1e-3, 2e-3, 4e-3 and
8e-3 all keep the retain set's validation error within 5 % of M_O's, the last one barely; no
forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "blindspot")
    if not scale:
        c.unlearn.epochs = (1, 3)
        c.unlearn.learning_rate = 4e-3
    return c
