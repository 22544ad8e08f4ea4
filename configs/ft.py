"""Basic fine-tuning: M_O continues on the retain set.

    python -m unlearn_jax.main --config=configs/ft.py                  synthetic faces
    python -m unlearn_jax.main --config=configs/ft.py:digits           classification
    python -m unlearn_jax.main --config=configs/ft.py:classes --config.data.path=CLASS_FOLDERS
    python -m unlearn_jax.main --config=configs/ft.py:utkface_small --config.data.path=UTKFace
    python -m unlearn_jax.main --config=configs/ft.py:utkface --config.data.path=UTKFace
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    return common.unlearning(scale, "ft")
