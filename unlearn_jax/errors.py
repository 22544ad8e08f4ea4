"""The errors that a user can fix; all others are bugs and keep their traceback."""


class InputError(ValueError):
    """A user's input cannot be used; the message says what to do, in a line or two."""


class ConfigError(InputError):
    """A config key has a value that cannot be used; the message says what is allowed."""


class ReportError(InputError):
    """A file of the work directory is missing or malformed; the message names file and field."""
