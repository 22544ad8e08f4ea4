"""Ends a run cleanly: a signal requests a checkpoint, and the exit code shows it.

The signals are SIGUSR1 and SIGUSR2 (a scheduler's warnings), SIGTERM (preemption) and SIGINT
(Ctrl-C). At the end of the current epoch the engine saves and exits with `EXIT_CODE`, or as after a
Ctrl-C. The same command then continues from there. A second SIGTERM or SIGINT has its default
effect, which ends the process; the first may come after any of the others. Long work without
epochs checks for a request before it begins (`leave_if_requested`).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from absl import logging

from unlearn_jax.system import processes

# EX_TEMPFAIL of sysexits.h: not finished, worth trying again. No error of ours has this code.
EXIT_CODE = 75
CTRL_C = 130  # as a shell reports it
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

_received: list[int] = []


class Interrupted(SystemExit):
    """The run ends on request; its results so far are saved."""


def listen() -> None:
    """Makes the signals request a checkpoint instead of ending the process; main thread only."""
    for number in SIGNALS:
        signal.signal(number, _note)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell ignores it for background jobs
        signal.signal(signal.SIGINT, _note)


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Listens within a block; then the earlier handlers are back, and requests are forgotten.

    Does nothing outside of the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGINT)}
    listen()
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        _received.clear()


def requested() -> bool:
    """Whether a signal has reached this process, or another one of its program."""
    return processes.lowest("a signal", -len(_received)) < 0


def leave_if_requested() -> None:
    """Ends the run if that is requested; to be called where nothing would be lost.

    Raises:
      Interrupted: a signal has requested it.
    """
    if requested():
        leave()


def leave() -> NoReturn:
    """Ends the run; to be called after all that would be lost is saved.

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
        # Not by print, which the signal may have interrupted.
        os.write(2, b"\nstopping where nothing is lost, in training at the end of the epoch under "
                    b"way; Ctrl-C again to end at once\n")
