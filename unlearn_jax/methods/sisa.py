"""SISA: sharded, isolated, sliced and aggregated training, with exact deletions.

It does not change M_O; it is a training scheme of its own: an ensemble with a constituent model for
each shard of the training set. A deletion trains the touched shards again from the checkpoint
before the first touched slice. `stages/shards.py` assigns samples to shards and slices and computes
the costs; `stages/sisa.py` trains, keeps and deletes.

Source: Bourtoule et al., "Machine Unlearning", IEEE S&P 2021; the reference study, section 2.2.
"""

import math

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.method import Method, Setting

AGGREGATES = ("mean", "vote")


def check(setting: Setting) -> None:
    """Refuses impossible options.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    options = setting.options
    for key in ("shards", "slices"):
        _require(options[key] >= 1, options, key, "at least 1")
    _require(0 <= options.slice_epochs < math.inf, options, "slice_epochs",
             "a number of epochs, or 0 for as many as cost train.epochs over all data")
    _require(options.aggregate in AGGREGATES, options, "aggregate",
             " or ".join(map(repr, AGGREGATES)))
    _require(options.aggregate == "mean" or setting.labels.num_classes > 0, options, "aggregate",
             "'mean' for data.task='regression': numbers have no majority")


def _require(condition: bool, options, key: str, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"config.unlearn.sisa.{key} is {options[key]!r}; allowed: {allowed}")


METHOD = Method(
    scheme="sisa", check=check,
    options=dict(
        shards=5,          # S: parts of the training set, each with a model of its own
        slices=4,          # R: parts of a shard, trained on one after the other
        slice_epochs=0.0,  # in each slice; 0: 2 E/(R+1), so that the whole costs train.epochs, E
        aggregate="mean",  # mean (of predictions, or of class probabilities) | vote (classes)
    ),
    source="Bourtoule et al. 2021; the reference study, section 2.2")
