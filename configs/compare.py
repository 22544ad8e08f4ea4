"""All methods side by side: equal budgets, equal searches, one leaderboard.

    python -m unlearn_jax.main --config=configs/compare.py                synthetic faces
    python -m unlearn_jax.main --config=configs/compare.py:digits         classification
    python -m unlearn_jax.main --config=configs/compare.py:utkface_small --config.data.path=UTKFace

`--config.compare.methods="('ft','rnd','my.py:METHOD')"` compares these alone. What a method's
own config sets stands in `compare.unlearn.METHOD`; the rest comes from `unlearn`.
"""

import importlib

import ml_collections

from configs import common
from unlearn_jax.methods import METHODS


def get_config(scale: str = "") -> ml_collections.ConfigDict:
    """The config; `scale` is what follows the colon."""
    c = common.config(scale)
    if scale == "digits":
        c.forget.sets = ("class:3", "random:0.02")
    # A scheme (SISA) trains models of its own, so that it has no budget to compare.
    c.compare.methods = tuple(name for name, method in METHODS.items()
                              if name != "retrain" and not method.scheme)
    with c.unlocked():
        for name in c.compare.methods:
            own = importlib.import_module(f"configs.{name}").get_config(scale).unlearn
            c.compare.unlearn[name] = ml_collections.ConfigDict(
                common.changes(c.unlearn.to_dict(), own.to_dict()))
    return c
