"""Names of configs and of their keys: where the files are, and which keys there are."""

import difflib
from pathlib import Path

import ml_collections

from unlearn_jax.errors import ConfigError

# A folder of a checkout and of an installed package; in both it stands beside the package.
CONFIGS = Path(__file__).parents[2] / "configs"


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Refuses a dotted key that has no value.

    Raises:
      ConfigError: the message names the whole key and what is allowed there.
    """
    held, above = config, "config"
    for part in key.split("."):
        if not isinstance(held, ml_collections.ConfigDict):
            raise ConfigError(f"config.{key} is not there: {above} is a value, and no section")
        if part not in held:
            close = difflib.get_close_matches(part, list(held), 1)
            raise ConfigError(f"config.{key} is not there; allowed in {above}: "
                             + (", ".join(sorted(held)) or "nothing")
                             + "".join(f" (did you mean {name!r}?)" for name in close))
        held, above = held[part], f"{above}.{part}"
    if isinstance(held, ml_collections.ConfigDict):
        raise ConfigError(f"config.{key} is a section; allowed: one of its keys, as in "
                         f"{key}.{next(iter(sorted(held)), 'KEY')}")
