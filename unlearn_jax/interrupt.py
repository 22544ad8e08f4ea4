"""Leaving in good order: a signal asks for a checkpoint, and the exit code says so.

SIGUSR1 and SIGUSR2 (a scheduler's warnings) and SIGTERM (preemption) ask. The engine answers at
the end of the epoch under way: it saves, and leaves with `EXIT_CODE`; the same command then goes on
from there. A second SIGTERM does what it does by default, which is to end the process; the first
may come after any of the others. Where no epochs are walked over, what takes long asks before it
begins (`leave_if_requested`).
"""

import signal
from types import FrameType

from unlearn_jax import processes

# EX_TEMPFAIL of sysexits.h: not finished, worth trying again. No error of ours has this code.
EXIT_CODE = 75
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

_received: list[int] = []


class Interrupted(SystemExit):
    """The run leaves, as it was asked to; what it has is saved."""

    def __init__(self):
        super().__init__(EXIT_CODE)


def listen() -> None:
    """From now on, the signals ask instead of ending the process. For the main thread."""
    for number in SIGNALS:
        signal.signal(number, _note)


def requested() -> bool:
    """Whether somebody has asked this process, or another one of its program."""
    return processes.lowest("a signal", -len(_received)) < 0


def leave_if_requested() -> None:
    """To be called where nothing would be lost.

    Raises:
      Interrupted: somebody has asked.
    """
    if requested():
        raise Interrupted()


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    _received.append(number)
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
