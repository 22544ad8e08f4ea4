"""The check of each value against the table, and the allowed values in words."""

import math
from typing import Any

import ml_collections

from unlearn_jax.config.keys import KEYS, MOST
from unlearn_jax.config.records import Elements, Key, Range
from unlearn_jax.errors import ConfigError
from unlearn_jax.system.nested import flat


def get(c: ml_collections.ConfigDict, key: str) -> Any:
    """The value at a dotted key, such as `train.epochs`."""
    for part in key.split("."):
        c = c[part]
    return c


def require(condition: bool, c: ml_collections.ConfigDict, key: str, allowed: str) -> None:
    """Refuses the value of `key` unless `condition` holds.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    if not condition:
        raise ConfigError(f"config.{key} is {get(c, key)!r}; allowed: {allowed}")


def check_values(c: ml_collections.ConfigDict) -> None:
    """Refuses values that the table does not allow, and numbers that are not finite.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    for name, key in KEYS.items():
        if isinstance(key.allowed, tuple):
            require(get(c, name) in key.allowed, c, name, "one of " + names(key.allowed))
        elif isinstance(key.allowed, Range):
            _check_number(c, name, key.allowed)
        elif isinstance(key.allowed, Elements):
            _check_tuple(c, name, key.allowed)
    for name, value in flat(c.to_dict()).items():
        require(not isinstance(value, float) or math.isfinite(value), c, name, "a finite number")


def allowed_text(key: Key) -> str:
    """What a key allows, in words."""
    match key.allowed:
        case tuple():
            return names(key.allowed)
        case Range(low=low, high=high):
            return _range_text(low, high, real=False)
        case Elements(choices=choices) if choices:
            return f"a tuple of {names(choices)}"
        case Elements() as elements:
            return _tuple_text(elements) + "".join(
                f", {text}" for text, holds in (
                    ("not empty", elements.filled and not elements.length),
                    (f"each at least {elements.low}", elements.low is not None),
                    (f"each at most {elements.high}", elements.high is not None),
                    (f"or {elements.word!r}", bool(elements.word))) if holds)
    return {bool: "True or False", int: "a whole number", float: "a finite number",
            str: "text", dict: "a section"}[type(key.default)]


def names(values) -> str:
    """Values as a message lists them."""
    return ", ".join(repr(v) for v in values)


def _check_number(c: ml_collections.ConfigDict, key: str, allowed: Range) -> None:
    value, high = get(c, key), allowed.high
    if isinstance(value, int) and value > MOST:
        high = MOST
    # `not low <= value` also catches NaN
    require(allowed.low <= value <= high and value < math.inf, c, key,
            _range_text(allowed.low, high, isinstance(value, float)))


def _check_tuple(c: ml_collections.ConfigDict, key: str, allowed: Elements) -> None:
    value, kind, low, high = get(c, key), allowed.kind, allowed.low, allowed.high
    if allowed.word and value == (allowed.word,):
        return
    kinds = (int, float) if kind is float else (kind,)
    good = isinstance(value, tuple) and (allowed.length is None or len(value) == allowed.length)
    good = good and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value)
    require(good, c, key, _tuple_text(allowed) + f", or {allowed.word!r}" * bool(allowed.word))
    require(bool(value) or not allowed.filled, c, key, "at least one value")
    if kind is float:
        require(all(map(math.isfinite, value)), c, key, "finite values")
    if kind is int:
        require(all(v <= MOST for v in value), c, key, f"values up to {MOST}")
    if low is not None:
        require(all(v >= low for v in value), c, key, f"values of at least {low:g}")
    if allowed.choices:
        require(set(value) <= set(allowed.choices), c, key, f"a tuple of {names(allowed.choices)}")
    if allowed.different:
        # names of metrics hold numbers in this format, so their difference must show in it
        apart = {f"{v:g}" if kind is float else v for v in value}
        require(len(apart) == len(value), c, key, f"different {allowed.different}")
    if high is not None:
        require(all(v <= high for v in value), c, key,
                f"{allowed.different or 'values'} up to {high}")


def _tuple_text(allowed: Elements) -> str:
    return f"a tuple of {allowed.kind.__name__}" + (
        f" of length {allowed.length}" if allowed.length else "")


def _range_text(low: float, high: float, real: bool) -> str:
    if high == math.inf:
        return f"{'a finite number of ' if real else ''}at least {low:g}"
    return f"from {low:g} to {high:.10g}"
