"""The NeurIPS 2023 challenge's protocol: are unlearned models distributed like retrained ones?

    python -m unlearn_jax.main --config=configs/challenge.py
    python -m unlearn_jax.main --config=configs/challenge.py --config.unlearn.method=scrub

The classes are age groups of synthetic faces, weighted as in the challenge. The forget set is a
random 2 % of the samples. There are 64 originals, 64 retrained models, and 64 models unlearned from
ONE of the originals. The score is forgetting quality x utility ratios, or 0 if unlearning takes
more than 20 % of retraining's time. Its interval is over models. M_O is scored, too (the floor),
and M_R against itself (the ceiling). A number after the colon changes the size, here to 128 of each
kind:

    python -m unlearn_jax.main --config=configs/challenge.py:128
"""

import ml_collections

from configs import common


def get_config(models: str = "") -> ml_collections.ConfigDict:
    """The config; `models`, after the colon, is how many of each kind: challenge.py:128."""
    count = common.whole_number(models or "64", least=4)
    c = common.unlearning("", "ft")
    c.seeds = tuple(range(count))
    c.data.task = "classification"
    c.data.groups = (20.0, 30.0, 40.0, 50.0)
    c.data.image_size = 16
    c.train.loss = "cross_entropy"
    c.train.class_weights = "balanced"
    c.train.epochs = 12
    c.train.keep = "last"  # fits single samples, which the best epoch does not
    c.forget.sets = ("random:0.02",)
    c.unlearn.from_seed = 0
    c.unlearn.epochs = (2,)
    c.eval.alphas = (0.05, 0.1, 0.25, 0.5, 1.0)  # errors are 1 - p(true class)
    c.eval.alpha = 0.25
    c.eval.audits = ("challenge", "lira", "distances", "mia")
    return c
