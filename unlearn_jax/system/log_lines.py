"""The form of log lines: the time, a letter for warnings and errors, the text."""

import logging

from absl import logging as absl_logging


class _Plain(logging.Formatter):
    """`13:05:59 text`; `13:05:59 W text` for a warning, E for an error, F for a fatal one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(mark)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelno
        letter = ("F" if level >= logging.CRITICAL else "E" if level >= logging.ERROR else
                  "W" if level >= logging.WARNING else "")
        record.mark = letter and f"{letter} "
        return super().format(record)


def install() -> None:
    """Gives the lines of absl's log, which all programs here write to, this form."""
    absl_logging.get_absl_handler().setFormatter(_Plain())
