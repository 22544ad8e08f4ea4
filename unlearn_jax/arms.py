"""Arms: a method several times in one run, each time otherwise configured, budgets fixed before.

A comparison (`search.py`) looks for each method's best setting; arms are run as they are given,
as a study describes them. `thesis.unlearn.ARM` holds what an arm changes in the section `unlearn`.
"""

import re
from collections.abc import Sequence

import ml_collections

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import find_method

_RESERVED = ("median", "original", "retrain")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,79}")  # begins the names of files


def arm_config(config: ml_collections.ConfigDict, arm: str) -> ml_collections.ConfigDict:
    """The config of one arm, as for a run of its method alone.

    Args:
      config: with a section `thesis`; what `thesis.unlearn.ARM` holds replaces the keys of
        `unlearn`, `method` among them.
      arm: one of `thesis.arms`.

    Raises:
      ConfigError: the arm is not described.
    """
    if arm not in config.thesis.unlearn:
        known = ", ".join(map(repr, config.thesis.unlearn)) or "none"
        raise ConfigError(f"config.thesis.arms has {arm!r}, which config.thesis.unlearn does not "
                          f"describe; described: {known}")
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.unlearn.update(config.thesis.unlearn[arm])
        c.thesis.arms = ()
        c.thesis.unlearn = ml_collections.ConfigDict()
        c.thesis.elsewhere = ml_collections.ConfigDict()
    return c


def budgets(config: ml_collections.ConfigDict, arm: str,
            forget_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The epochs of an arm by forget set: all of its budgets on the first, `elsewhere` on others.

    Args:
      config: with a section `thesis`.
      arm: one of `thesis.arms`.
      forget_names: in the config's order.
    """
    own = tuple(arm_config(config, arm).unlearn.epochs)
    others = tuple(config.thesis.elsewhere.get(arm, own))
    return {name: others if i else own for i, name in enumerate(forget_names)}


def check_arms(config: ml_collections.ConfigDict) -> None:
    """Refuses arms that cannot be told apart, or that are no unlearning of M_O.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    names = config.thesis.arms
    if len(set(names)) != len(names):
        raise ConfigError(f"config.thesis.arms is {names!r}; allowed: different names")
    if config.compare.methods:
        raise ConfigError("config.thesis.arms and config.compare.methods are both set; allowed: "
                          "one of the two")
    for arm in names:
        if arm in _RESERVED or not _NAME.fullmatch(arm):
            raise ConfigError(f"config.thesis.arms has {arm!r}; allowed: up to 80 letters, digits "
                              f"and _ + -, and none of {', '.join(_RESERVED)}")
        request = arm_config(config, arm).unlearn.method
        found = find_method(request)
        if found.name == "retrain" or found.method.scheme:
            raise ConfigError(f"config.thesis.unlearn.{arm}.method is {request!r}; allowed: "
                              "methods that unlearn M_O")
    for arm, epochs in config.thesis.elsewhere.items():
        whole = isinstance(epochs, tuple) and all(type(e) is int and e >= 0 for e in epochs)
        if not whole or len(set(epochs)) != len(epochs):
            raise ConfigError(f"config.thesis.elsewhere.{arm} is {epochs!r}; allowed: a tuple of "
                              "different whole numbers of at least 0")
