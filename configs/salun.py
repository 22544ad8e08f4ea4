"""SalUn: random labels on D_f; only the weights that matter most for D_f change.

    python -m unlearn_jax.main --config=configs/salun.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: 10 epochs of SGD, rate 0.013, half of the weights, labels drawn uniformly, batches of
256; the study's scale takes these. Labels are drawn uniformly at every scale: labels near
the true one keep the predictions on D_f where they are (methods/rnd.py).
The default scale has the rate of configs/ft.py and about as many images: in configs/compare.py,
rates up to 2e-3 kept the retain set's validation error within 5 % of M_O's, 4e-3 did not.
No forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "salun")
    c.unlearn.labels = "uniform"
    if not scale:
        c.unlearn.epochs = (2, 5)  # it walks over D_f as well
    return c
