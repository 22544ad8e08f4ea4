"""Flags read so that a user's mistake becomes a message of a line or two."""

from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from unlearn_jax.errors import ConfigError, InputError

_OF_A_PROCESS = ("coordinator", "processes", "process_id", "process_timeout")


def read_config(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config of `--config=FILE:SCALE` and `--config.KEY=VALUE`, as `main` would have it.

    Raises:
      InputError: see `parse`.
    """
    values = flags.FlagValues()
    argv = ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(argv, values)
    return values[holder.name].value


def parse(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses all flags, `--config` among them.

    Args:
      argv: with the program's name.
      values: the flags that there are.

    Raises:
      InputError: a flag, a config key or its value is wrong, or the config file is missing.
    """
    try:
        rest = values(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, InputError) as e:
        # What a config file raises comes back as text with its traceback; here is the original.
        origin = e
        while isinstance(origin.__context__, InputError):
            origin = origin.__context__
        if isinstance(origin, InputError):
            raise origin from None
        _check_keys(argv)
        given = " ".join(a for a in argv[1:] if a.startswith("--config")) or "the flags"
        message = " ".join(str(e).replace("\\n", " ").split())
        raise InputError(f"{message}\n(in {given})") from e
    if len(rest) > 1:
        raise InputError(f"arguments not understood: {' '.join(rest[1:])}; flags look like "
                         "--config.train.epochs=3")
    if not values["config"].present:
        raise InputError("--config is missing; give a file of configs/, as --config=configs/ft.py")
    file, _ = config_name(values)
    if not Path(file).is_file():
        raise InputError(f"--config={file} is no file; give one of configs/, as "
                         "--config=configs/ft.py")
    return rest


def _check_keys(argv: list[str]) -> None:
    """Refuses a key that the config file does not have, of which ml_collections names the end.

    Raises:
      InputError: names the whole key and what is allowed there.
    """
    names = [word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")]
    keys = [name.removeprefix("config.") for name in names if name.startswith("config.")]
    file = [word for word in argv[1:] if word.lstrip("-").startswith("config=")]
    if keys and file:
        plain = read_config(file)
        for key in keys:
            check_key(plain, key.partition("[")[0])


def check_key(config: ml_collections.ConfigDict, key: str) -> None:
    """Refuses a dotted key that has no value.

    Raises:
      ConfigError: names the whole key and what is allowed there.
    """
    held, above = config, "config"
    for part in key.split("."):
        if not isinstance(held, ml_collections.ConfigDict):
            raise ConfigError(f"config.{key} is not there: {above} is a value, and no section")
        if part not in held:
            raise ConfigError(f"config.{key} is not there; allowed in {above}: "
                             f"{', '.join(sorted(held))}")
        held, above = held[part], f"{above}.{part}"
    if isinstance(held, ml_collections.ConfigDict):
        raise ConfigError(f"config.{key} is a section; allowed: one of its keys, as in "
                         f"{key}.{next(iter(sorted(held)), 'KEY')}")


def of_the_study(argv: list[str]) -> list[str]:
    """The flags without those that say which of several processes this is."""
    kept, words = [], iter(argv[1:])
    for word in words:
        name, equals, _ = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in _OF_A_PROCESS:
            kept.append(word)
        elif not equals:
            next(words, None)  # its value, as `--processes 2`
    return kept


def config_name(values: flags.FlagValues = flags.FLAGS) -> tuple[str, str]:
    """(file, scale) of `--config=FILE:SCALE`; the scale may be empty."""
    given = config_flags.get_config_filename(values["config"])
    file, _, scale = given.partition(":")
    return file, scale
