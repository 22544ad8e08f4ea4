"""Leaving in good order: a signal asks for a checkpoint, and the exit code says so.

SIGUSR1 and SIGUSR2 (a scheduler's warnings), SIGTERM (preemption) and SIGINT (Ctrl-C) ask. The
engine answers at the end of the epoch under way: it saves, and leaves with `EXIT_CODE`, or as after
a Ctrl-C; the same command then goes on from there. A second SIGTERM or SIGINT does what it does by
default, which is to end the process; the first may come after any of the others. Where no epochs
are walked over, what takes long asks before it begins (`leave_if_requested`).
"""

import os
import signal
from types import FrameType
from typing import NoReturn

from absl import logging

from unlearn_jax.system import processes

# EX_TEMPFAIL of sysexits.h: not finished, worth trying again. No error of ours has this code.
EXIT_CODE = 75
CTRL_C = 130  # as a shell says it
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

_received: list[int] = []


class Interrupted(SystemExit):
    """The run leaves, as it was asked to; what it has is saved."""


def listen() -> None:
    """From now on, the signals ask instead of ending the process. For the main thread."""
    for number in SIGNALS:
        signal.signal(number, _note)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, _note)


def requested() -> bool:
    """Whether somebody has asked this process, or another one of its program."""
    return processes.lowest("a signal", -len(_received)) < 0


def leave_if_requested() -> None:
    """To be called where nothing would be lost.

    Raises:
      Interrupted: somebody has asked.
    """
    if requested():
        leave()


def leave() -> NoReturn:
    """For who has saved what would be lost.

    Raises:
      Interrupted: always.
    """
    logging.info("leaving, as asked; what is finished or saved stays, and the same command goes on")
    raise Interrupted(CTRL_C if signal.SIGINT in _received else EXIT_CODE)


def _note(number: int, frame: FrameType | None) -> None:
    del frame
    _received.append(number)
    if number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not by print, which may be at work just now.
        os.write(2, b"\nstopping where nothing is lost, in training at the end of the epoch under "
                    b"way; Ctrl-C again to end at once\n")
