"""Random labels on D_f; only the weights move that matter most for it (SalUn).

    python -m unlearn_jax.main --config=configs/salun.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: 10 epochs of SGD, rate 0.013, half of the weights, labels drawn uniformly, batches of
256; the study's scale takes these. Labels are drawn uniformly at every scale: those near the true
one hold D_f where it is (methods/rnd.py).
At the default scale the rate of configs/ft.py and about its images: in configs/compare.py rates up
to 2e-3 kept the retain set's validation error within 5 % of M_O's, 4e-3 did not.
No forget and no test sample was looked at.
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
