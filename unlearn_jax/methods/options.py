"""Checks of a method's own options, `config.unlearn.METHOD.KEY`."""

import math
from collections.abc import Mapping

import ml_collections

from unlearn_jax.errors import ConfigError


def check_ranges(method: str, options: ml_collections.ConfigDict,
                 ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuses numbers that are outside of the allowed range, or not finite.

    Args:
      method: its name, for the message.
      options: `config.unlearn.METHOD`.
      ranges: by key, the smallest and the largest allowed value; infinity for an open end.

    Raises:
      ConfigError: names the key, the value and what is allowed.
    """
    for key, (low, high) in ranges.items():
        value = options[key]
        # `not low <= value` also catches NaN
        if not low <= value <= high or value == math.inf:
            allowed = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ConfigError(f"config.unlearn.{method}.{key} is {value!r}; allowed: {allowed}")
