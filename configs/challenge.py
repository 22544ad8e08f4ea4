"""The NeurIPS 2023 challenge's protocol: is a population of unlearned models one of retrained ones?

    python -m unlearn_jax.main --config=configs/challenge.py
    python -m unlearn_jax.main --config=configs/challenge.py --config.unlearn.method=scrub

Digits as a class-weighted classification, 2 % of the samples at random to be forgotten; 64
originals, 64 retrained models and 64 models unlearned from ONE of the originals. The score is
forgetting quality x utility ratios, 0 where unlearning takes more than 20 % of retraining's time;
its interval is over models. M_O is scored, too (the floor), and M_R against itself (the ceiling).
Another size: --config.seeds="tuple(range(128))" in a config file of one's own, or as below.
"""

import ml_collections

from configs import common


def get_config(models: str = "") -> ml_collections.ConfigDict:
    """The config; `models` behind the colon is how many of each kind: challenge.py:128."""
    count = common.whole_number(models or "64", least=4)
    c = common.unlearning("digits", "ft")
    c.seeds = tuple(range(count))
    c.data.image_size = 8
    c.model.name = "resnet4"
    c.model.width = 8
    c.train.class_weights = "balanced"
    c.train.epochs = 12
    c.forget.sets = ("random:0.02",)
    c.unlearn.from_seed = 0
    c.unlearn.epochs = (2,)
    c.eval.audits = ("challenge", "lira", "distances", "mia")
    return c
