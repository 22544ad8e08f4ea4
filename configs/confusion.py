"""The interclass confusion test: labels of two groups are exchanged, then forgotten.

    python -m unlearn_jax.main --config=configs/confusion.py            ages of synthetic faces
    python -m unlearn_jax.main --config=configs/confusion.py:digits     threes and eights
    python -m unlearn_jax.main --config=configs/confusion.py --config.unlearn.method=scrub

The metrics `confusion_test` and `confusion_forget` are the share of the two groups' samples that a
model takes for the other group: high for M_O, low for M_R. An age model that learned both labels of
a group predicts something between. So `confusion_nearer_test` and `confusion_nearer_forget` are the
share that is predicted nearer to the other group than to their own. Source: Goel et al. 2022.
"""

import ml_collections

from configs import common


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.unlearning(scale, "ft")
    c.data.inject = "confusion:3:8:160" if scale == "digits" else "confusion:20-26:50-60:240"
    c.forget.sets = ("injected",)
    c.eval.audits = ("confusion", "mia")
    return c
