"""Only the reference: M_O, M_R and the retrain ceiling; no unlearning method.

    python -m unlearn_jax.main --config=configs/retrain.py
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    return common.unlearning(scale, "retrain")
