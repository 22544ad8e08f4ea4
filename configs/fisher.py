"""Fisher forgetting: noise on the weights of M_O that D_r does not need, then fine-tuning on D_r.

    python -m unlearn_jax.main --config=configs/fisher.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: alpha 1e-6, caps 1e3 and, in the last layer, 1e2. At the default scale alpha is 3e-5,
then 7 epochs as ft, which with the one walk over the retain set are as many images as ft's 8. Of
1e-6, 1e-5, 3e-5, 1e-4 and 1e-3 it is the largest that keeps the retain set's validation error
within 5 % of M_O's; no forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "fisher")
    if not scale:
        c.unlearn.epochs = (2, 7)
        c.unlearn.fisher.alpha = 3e-5
    return c
