"""Selective synaptic dampening: shrinks the weights of M_O that D_f needs; trains nothing.

    python -m unlearn_jax.main --config=configs/ssd.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: alpha 10, lambda 1 (`unlearn.ssd.dampening`), for small forget sets. Where D_f is a
tenth of the training set or more, as the forget sets of these scales are, alpha 10 can select no
weight, and a warning says so. Here alpha is 1 and lambda 0.5. Of alpha 1, 1.2, 1.5 and 2 with
lambda 1, 0.5, 0.2 and 0 this is the strongest pair tried that keeps the retain set's validation
error, at the default scale, within 5 % of M_O's; no forget or test sample was used. A small
forget set, such as `random:0.02`, needs a larger alpha. So a comparison searches the
share of the weights that is selected (`unlearn.ssd.share`), from 0.1 % to 10 %, and with it lambda,
from 1 to 0.25.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "ssd")
    c.unlearn.ssd.alpha, c.unlearn.ssd.dampening = 1.0, 0.5
    return c
