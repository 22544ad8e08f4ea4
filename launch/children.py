"""Starts child processes that end with their parent and ignore some signals.

`setpriv --pdeathsig` and `env --ignore-signal` would do the same, but Linux distributions of 2018
(RHEL 8 and its relatives) have neither.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Turns into the command. Python changes SIGPIPE and SIGXFSZ; 1 is PR_SET_PDEATHSIG.
_BEGIN = """
import ctypes, os, signal, sys
death, ignored = int(sys.argv[1]), [int(n) for n in sys.argv[2].split(",") if n]
if ctypes.CDLL(None).prctl(1, ctypes.c_ulong(death)):
    sys.exit("prctl refuses PR_SET_PDEATHSIG")
for number in ignored:
    signal.signal(number, signal.SIG_IGN)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
os.execv(sys.argv[3], sys.argv[3:])
"""


def begin(command: Sequence[str], death: signal.Signals, ignored: Sequence[signal.Signals] = (),
          **settings: Any) -> subprocess.Popen:
    """Starts a command in a session of its own.

    Args:
      command: its first word is a path.
      death: the signal that it gets when this process dies.
      ignored: signals that do nothing, from the start on, until the command handles them.
      settings: keyword arguments of `subprocess.Popen`.
    """
    # Blocked signals wait until the child ignores them: it inherits the block from this thread.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ignored)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BEGIN, str(int(death)),
             ",".join(str(int(n)) for n in ignored), *command], start_new_session=True, **settings)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
