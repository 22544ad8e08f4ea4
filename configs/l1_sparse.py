"""Fine-tuning on D_r with an L1 penalty that falls to zero.

    python -m unlearn_jax.main --config=configs/l1_sparse.py

The scales are those of configs/ft.py, with which it shares M_O and M_R through the store.
Published: 10 epochs of SGD, rate 0.01, batches of 256; the study's scale takes these. The alpha of
1e-4 is ours; a comparison searches from 2.5e-5 to 1.6e-3.
At the default scale the budgets and the rate of configs/ft.py: rates from 5e-4 to 8e-3 all kept the
retain set's validation error within 5 % of M_O's at this alpha (configs/compare.py).
No forget or test sample was used.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    return common.unlearning(scale, "l1_sparse")
