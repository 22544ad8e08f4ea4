"""Descent on D_r and ascent on D_f in one step (NegGrad+).

    python -m unlearn_jax.main --config=configs/neggrad_plus.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: 10 epochs of SGD, rate 0.01, alpha 0.95, batches of 256; the study's scale takes these.
At the default scale no rate from 5e-4 to 8e-3 kept the retain set's validation error within 5 % of
M_O's (configs/compare.py) while batch norm's running statistics followed D_f as in the public code.
So they follow D_r alone here (`unlearn.neggrad_plus.forget_statistics`): with that, the rate of
configs/ft.py ends at 4.97 years after one epoch and at 4.49 after four, which are about the images
of ft's eight; M_O has 5.25.
No forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "neggrad_plus")
    if scale != "utkface":
        c.unlearn.neggrad_plus.forget_statistics = False
    if not scale:
        c.unlearn.epochs = (1, 4)  # beside each sample of D_r it sees one of D_f
    return c
