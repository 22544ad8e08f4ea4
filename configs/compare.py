"""All methods side by side: equal budgets, equal searches, one leaderboard.

    python -m unlearn_jax.main --config=configs/compare.py                synthetic faces
    python -m unlearn_jax.main --config=configs/compare.py:digits         classification
    python -m unlearn_jax.main --config=configs/compare.py:utkface_small --config.data.path=UTKFace

`--config.compare.methods="('ft','rnd','my.py:METHOD')"` compares only these. The values of a
method's own config are in `compare.unlearn.METHOD`, together with every other key that the method
reads. Such a key has the value in `unlearn` unless it is set for this method, as in
`--config.compare.unlearn.ft.learning_rate=1e-3`.
"""

import importlib
from typing import Any

import ml_collections

from configs import common
from unlearn_jax.config.variants import shared_keys
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
            c.compare.unlearn[name] = _following(
                c.unlearn, shared_keys(name), common.changes(c.unlearn.to_dict(), own.to_dict()))
        # No one alpha suits forget sets of an eighth and of a fiftieth: the share is searched.
        c.compare.unlearn.ssd.ssd.share = 0.01
    return c


def _following(section: ml_collections.ConfigDict, keys: tuple[str, ...],
               own: dict[str, Any]) -> ml_collections.ConfigDict:
    """A method's own values, and keys that have those of the section until they are set here."""
    found = ml_collections.ConfigDict()
    for key in dict.fromkeys([*own, *keys]):
        if isinstance(section[key], ml_collections.ConfigDict):
            found[key] = _following(section[key], tuple(section[key]), own.get(key, {}))
        else:
            found[key] = own[key] if key in own else section.get_oneway_ref(key)
    return found
