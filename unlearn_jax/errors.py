"""The errors that a user can mend; everything else is a bug and keeps its traceback."""


class InputError(ValueError):
    """Something a user handed in cannot be used; the message says what to do, in a line or two."""


class ConfigError(InputError):
    """A config key has a value that cannot be used; the message says what is allowed."""
