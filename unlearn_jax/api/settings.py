"""The config of a study, made of its data, its methods and the changes of the caller."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from unlearn_jax.api.arrays import Data
from unlearn_jax.config import completed, get
from unlearn_jax.config.names import CONFIGS, check_key
from unlearn_jax.config.variants import load_config, method_file
from unlearn_jax.data.given import GIVEN
from unlearn_jax.errors import ConfigError
from unlearn_jax.methods import find_method
from unlearn_jax.system.nested import differing

_SCALES = {"classification": "classes", "regression": ""}  # of the files in configs/


def study_config(data: Data, path: Path, network: str, methods: Sequence[str],
                 changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config of a study; one method runs alone, several run side by side.

    Each method starts from its own file in `configs/`, as on the command line. A method from a
    user's file starts from ft's.

    Args:
      data: the samples.
      path: the .npz file with them.
      network: `config.model.name`.
      methods: names, or FILE.py:NAME; at least one.
      changes: values by key, such as `{"train.epochs": 3}`; they apply to every method.

    Raises:
      ConfigError: a method or a key does not exist, or a value has the wrong type.
    """
    if isinstance(methods, str) or not methods:
        raise ConfigError(f"methods is {methods!r}; allowed: names such as ('ft', 'scrub')")
    configs = {}
    for method in methods:
        found = find_method(method)
        if found.name in configs:
            raise ConfigError(f"methods is {tuple(methods)!r}; allowed: different methods")
        c = load_config(method_file(f"{CONFIGS / 'ft.py'}:{_SCALES[data.task]}", found))
        c.unlearn.method = method
        _describe(c, data, path, network)
        if found.method.make_step is None:
            # Whatever the budgets of the others are: this method takes no steps.
            _change(c, {**changes, "unlearn.epochs": (0,)})
        else:
            _change(c, changes)
        configs[found.name] = completed(c)
    first = next(iter(configs.values()))
    if len(configs) > 1:
        base = first.unlearn.to_dict()
        with first.unlocked():
            first.thesis.arms = tuple(configs)
            for name, c in configs.items():
                first.thesis.unlearn[name] = _nested({
                    key: after for key, _, after in differing(base, c.unlearn.to_dict())}
                    | {"method": c.unlearn.method})
    return first


def _describe(c: ml_collections.ConfigDict, data: Data, path: Path, network: str) -> None:
    """Enters the data and the network."""
    c.data.source, c.data.path, c.data.task = "arrays", str(path.absolute()), data.task
    c.data.image_size = max(8, data.image_size)
    c.data.label_unit = data.label_unit
    c.forget.sets = data.requests
    if data.splits:
        c.data.split = (GIVEN,)
    c.model.name = network
    if data.task == "regression":
        low, high = data.label_range
        c.data.label_min, c.data.label_max, scale = low, high, high - low
        if low + scale < high:  # by rounding; the sigmoid must reach the largest label
            scale = float(np.nextafter(scale, np.inf))
        c.model.output_offset, c.model.output_scale = low, scale


def _change(c: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> None:
    """Enters the caller's values, lists as tuples.

    Raises:
      ConfigError: a key does not exist, or a value has the wrong type.
    """
    for key, value in changes.items():
        check_key(c, key)
        section, _, name = key.rpartition(".")
        held = get(c, section) if section else c
        try:
            held[name] = tuple(value) if isinstance(value, list) else value
        except TypeError as e:
            raise ConfigError(f"config.{key} is {value!r}; allowed: a value of type "
                              f"{type(held[name]).__name__}, such as {held[name]!r}") from e


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a nested dict."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found
