"""How a child process begins: whose death it does not outlive, and which signals it ignores.

`setpriv --pdeathsig` and `env --ignore-signal` would say the same, but Linux distributions of 2018
(RHEL 8 and its kin) have neither.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Becomes the command. Python has changed what SIGPIPE and SIGXFSZ do; 1 is PR_SET_PDEATHSIG.
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
      death: the signal that it gets when we die.
      ignored: signals that do nothing, from the first moment on, until it asks for them.
      settings: of `subprocess.Popen`.
    """
    # Blocked, they wait until the child ignores them: it inherits that from this thread.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ignored)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BEGIN, str(int(death)),
             ",".join(str(int(n)) for n in ignored), *command], start_new_session=True, **settings)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
