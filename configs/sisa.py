"""SISA: an ensemble over shards and slices, whose deletions retrain only what they touch.

    python -m unlearn_jax.main --config=configs/sisa.py                5 shards of 4 slices
    python -m unlearn_jax.main --config=configs/sisa.py:digits         classification, by vote
    python -m unlearn_jax.main --config=configs/sisa.py \\
        --config.forget.sets="('ids:request.txt',)"                    another deletion

The second deletion costs only itself: the training is in the store. Each request starts from the
ensemble before any deletion, so a later request must name the earlier samples as well. That
ensemble stays in the store (`sisa_original/`), as M_O does. Shares M_O and M_R with the other
configs.

The constituents train as `config.train` says, in each of R slices for 2 E / (R + 1) epochs
(Bourtoule et al. 2021), so that SISA costs as many images as training M_O for all its E epochs.
Nothing is tuned.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "sisa")
    if c.data.task == "classification":
        c.unlearn.sisa.aggregate = "vote"  # as published; the mean is for regression
    return c
