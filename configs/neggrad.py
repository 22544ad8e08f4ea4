"""Gradient ascent on D_f alone (NegGrad): the baseline that forgets everything.

    python -m unlearn_jax.main --config=configs/neggrad.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: 5 epochs of SGD, rate 1e-4, batches of 256; the study's scale takes these.
At the default scale no rate from 5e-4 to 8e-3 kept the retain set's validation error within 5 % of
M_O's (configs/compare.py): batch norm's running statistics alone, which follow D_f as in the public
code, spoil the network. So they stay those of M_O here (`unlearn.neggrad.forget_statistics`), and
the rate is the published one.
No forget and no test sample was looked at.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "neggrad")
    if scale != "utkface":
        c.unlearn.neggrad.forget_statistics = False
        c.unlearn.learning_rate = 1e-4
    return c
