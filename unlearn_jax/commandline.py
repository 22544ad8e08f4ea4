"""Reads the flags; a user's mistake becomes a message of a line or two."""

import os
import re
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from unlearn_jax.config import get
from unlearn_jax.config.names import CONFIGS, check_key
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.system.nested import flat

_OF_A_PROCESS = ("coordinator", "processes", "process_id", "process_timeout")


def read_config(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config that `main` would get from `--config=FILE:SCALE` and `--config.KEY=VALUE`.

    Raises:
      InputError: see `parse`.
    """
    values = flags.FlagValues()
    argv = ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(argv, values)
    return values[holder.name].value


def find_config(given: str) -> str:
    """The config file for a name such as `ft`, `ft.py` or `configs/ft.py`, from any folder.

    Args:
      given: FILE or FILE:SCALE, where FILE may be a name.

    Returns:
      `given`, if the file exists; else the package's config of that name (and the scale), if there
      is one; else `given`.
    """
    file, colon, scale = given.partition(":")
    found = re.fullmatch(r"(?:configs/)?(\w+?)(?:\.py)?", file)
    if os.path.isfile(file) or not found or not (CONFIGS / f"{found[1]}.py").is_file():
        return given
    path = CONFIGS / f"{found[1]}.py"
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{near}{colon}{scale}"


def _found_configs(argv: list[str]) -> list[str]:
    """The flags, with a name in `--config` replaced by its file."""
    found = list(argv)
    for i, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name.lstrip("-") == "config" and word.startswith("-"):
            if equals:
                found[i] = f"{name}={find_config(value)}"
            elif i + 1 < len(argv):
                found[i + 1] = find_config(argv[i + 1])
    return found


def parse(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses all flags, `--config` among them.

    Args:
      argv: the arguments, with the program's name.
      values: the defined flags.

    Raises:
      InputError: a flag, a config key or its value is wrong, or the config file is missing.
    """
    argv = _found_configs(argv)
    try:
        rest = values(argv)
    except SystemExit as e:
        if e.code:
            raise  # --help ends with 1
        raise InputError(f"the file of --config calls sys.exit({e.code!r}); it must return a "
                         "config") from e
    except (flags.Error, AttributeError, LookupError, TypeError, InputError) as e:
        # absl turns an error of a config file into text with a traceback; this is the original.
        origin = e
        while isinstance(origin.__context__, InputError):
            origin = origin.__context__
        if isinstance(origin, InputError):
            raise origin from None
        _check_change(e, argv)
        given = " ".join(a for a in argv[1:] if a.startswith("--config")) or "the flags"
        message = " ".join(str(e).replace("\\n", " ").split())
        raise InputError(f"{message}\n(in {given})") from e
    if len(rest) > 1:
        raise InputError(f"arguments not understood: {' '.join(rest[1:])}; flags look like "
                         "--config.train.epochs=3")
    if not values["config"].present:
        raise InputError("--config is missing; give a file of configs/, as --config=configs/ft.py, "
                         "or a name, as --config=ft")
    file, _ = config_name(values)
    if not os.path.isfile(file):
        raise InputError(f"--config={file} is no file; give one of configs/, as "
                         "--config=configs/ft.py, or a name: "
                         + ", ".join(sorted(p.stem for p in CONFIGS.glob("*.py")
                                       if p.stem != "common")))
    return rest


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _check_change(error: Exception, argv: list[str]) -> None:
    """Refuses the `--config.KEY=VALUE` that absl could not use; returns if none is the cause.

    Raises:
      ConfigError: the message names the key, the value and what is allowed.
    """
    words = [word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")]
    changes = [word.removeprefix("config.") for word in words if word.startswith("config.")]
    if not changes:
        return
    try:
        config = _own_config(argv)
    except InputError:  # the file itself fails; the current error says how
        return
    for change in changes:
        check_key(config, change.partition("[")[0])
    if isinstance(error, flags.IllegalFlagValueError):
        # Its text is `flag --config.KEY=VALUE: REASON`; the reason is a message of Python.
        key, _, value = str(error).removesuffix(f": {error.__context__}").removeprefix(
            "flag --config.").partition("=")
        if key not in flat(config.to_dict()):
            return
        default = get(config, key)
        allowed = _KINDS.get(type(default), "")
        if isinstance(default, tuple):
            example = default or (1, 2)
            allowed = (f"a tuple such as {example!r}, with its closing bracket: "
                       f'--config.{key}="{example!r}"')
        raise ConfigError(f"config.{key} is {value!r}; allowed: {allowed}")


def _own_config(argv: list[str]) -> ml_collections.ConfigDict:
    """The config of these flags' file, without the changes by flags."""
    words = iter(argv[1:])
    for word in words:
        name, equals, file = word.lstrip("-").partition("=")
        if name == "config":
            return read_config([f"--config={file if equals else next(words, '')}"])
    return ml_collections.ConfigDict()


def of_the_study(argv: list[str]) -> list[str]:
    """The flags without those that give the place of this process among several."""
    kept, words = [], iter(argv[1:])
    for word in words:
        name, equals, _ = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in _OF_A_PROCESS:
            kept.append(word)
        elif not equals:
            next(words, None)  # the flag's value, as in `--processes 2`
    return kept


def config_name(values: flags.FlagValues = flags.FLAGS) -> tuple[str, str]:
    """(file, scale) of `--config=FILE:SCALE`; the scale may be empty."""
    given = config_flags.get_config_filename(values["config"])
    file, _, scale = given.partition(":")
    return file, scale


def run_name(given: str, config: ml_collections.ConfigDict) -> str:
    """The name of a run's default folder: CONFIG, CONFIG-SCALE, CONFIG-METHOD, CONFIG-SCALE-METHOD.

    The method is named if a flag has chosen another one than the config file:
    `--config=ft --config.unlearn.method=anchored.py:METHOD` gives `ft-anchored`. Comparisons and
    the arms of a study have methods of their own, so there the flag adds nothing.

    Args:
      given: FILE or FILE:SCALE, as in `--config`.
      config: that file's config, with the changes by flags.
    """
    file, _, scale = given.partition(":")
    name = Path(file).stem + f"-{scale}" * bool(scale)
    chosen = config.unlearn.method
    if (config.compare.methods or config.thesis.arms
            or chosen == read_config([f"--config={given}"]).unlearn.method):
        return name
    path, of_a_file, constant = chosen.rpartition(".py:")
    if of_a_file:
        chosen = Path(path).name + f"-{constant}" * (constant != "METHOD")
    return f"{name}-{chosen}"
