"""x"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    return common.unlearning(scale, "gaussian_amnesiac")
