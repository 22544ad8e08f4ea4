"""Flags read so that a user's mistake becomes a message of a line or two."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from unlearn_jax.errors import InputError


def parse(argv: list[str]) -> list[str]:
    """Parses all flags, `--config` among them.

    Raises:
      InputError: a flag, a config key or its value is wrong, or the config file is missing.
    """
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, InputError) as e:
        # What a config file raises comes back as text with its traceback; here is the original.
        origin = e
        while isinstance(origin.__context__, InputError):
            origin = origin.__context__
        if isinstance(origin, InputError):
            raise origin from None
        given = " ".join(a for a in argv[1:] if a.startswith("--config")) or "the flags"
        message = " ".join(str(e).replace("\\n", " ").split())
        raise InputError(f"{message}\n(in {given})") from e
    if len(rest) > 1:
        raise InputError(f"arguments not understood: {' '.join(rest[1:])}; flags look like "
                         "--config.train.epochs=3")
    if not flags.FLAGS["config"].present:
        raise InputError("--config is missing; give a file of configs/, as --config=configs/ft.py")
    file, _ = config_name()
    if not Path(file).is_file():
        raise InputError(f"--config={file} is no file; give one of configs/, as "
                         "--config=configs/ft.py")
    return rest


def config_name() -> tuple[str, str]:
    """(file, scale) of `--config=FILE:SCALE`; the scale may be empty."""
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, scale = given.partition(":")
    return file, scale
