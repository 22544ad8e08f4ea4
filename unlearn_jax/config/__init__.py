"""The configuration: every key with its default, and the checks that run before any work.

A file in `configs/` calls `default_config()` and sets what it changes. `check_config` refuses
impossible values with a message that names the key, the value and what is allowed. The table of
the keys is in `keys.py`.
"""

import functools
from typing import Any

import ml_collections

from unlearn_jax.config.keys import KEYS, TASKS
from unlearn_jax.config.label_units import check_units, in_label_units
from unlearn_jax.config.parts import check_parts
from unlearn_jax.config.relations import check_relations
from unlearn_jax.config.values import check_values, get, require
from unlearn_jax.config.variants import arm_config, check_arms, make_trials, method_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import METHODS, find_method

__all__ = ["KEYS", "TASKS", "ConfigError", "check_config", "completed", "default_config", "get"]


def default_config() -> ml_collections.ConfigDict:
    """The embedded default: synthetic faces, a narrow ResNet, three seeds, two CPU cores."""
    tree: dict[str, Any] = {}
    for name, key in KEYS.items():
        section, _, last = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[last] = key.default
    for name, method in METHODS.items():  # unlearn.METHOD.KEY; each method's file explains its own
        if method.options:
            tree["unlearn"][name] = dict(method.options)
    c = ml_collections.ConfigDict(tree)
    c.lock()
    return c


@functools.cache
def _defaults() -> ml_collections.ConfigDict:
    """`default_config()`, only to be read; a comparison reads it for each of its trials."""
    return default_config()


def completed(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of the run: keys in label units get defaults for its labels (label_units.py)."""
    return in_label_units(c, _defaults())


def check_config(c: ml_collections.ConfigDict) -> None:
    """Refuses a config that cannot run.

    Args:
      c: the whole config; `completed` is applied first.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    c = completed(c)
    check_values(c)
    check_relations(c)
    check_units(c, _defaults())
    check_parts(c)
    if c.compare.methods:
        _check_comparison(c)
    if c.thesis.arms:
        check_arms(c)
        for arm in c.thesis.arms:
            check_config(arm_config(c, arm))


def _check_comparison(c: ml_collections.ConfigDict) -> None:
    found = [find_method(request) for request in c.compare.methods]
    names = [f.name for f in found]
    require(c.compare.rates[0] <= c.compare.rates[1], c, "compare.rates", "(weakest, strongest)")
    require(c.compare.rank_by != "attack" or "mia" in c.eval.audits, c, "compare.rank_by",
            f"'forgetting' or 'F' for eval.audits {tuple(c.eval.audits)}, which lacks 'mia'")
    require("retrain" not in names, c, "compare.methods", "methods other than 'retrain', which "
            "every comparison holds them to")
    require(not any(f.method.scheme for f in found), c, "compare.methods",
            "methods that unlearn M_O: a training scheme makes other models, at its own cost")
    require(len(set(names)) == len(names), c, "compare.methods", "different methods")
    for request in c.compare.methods:
        check_config(method_config(c, request))
        for trial in make_trials(c, request):
            check_config(trial.config)
