"""The first line of a program, before the imports that take seconds. It imports nothing slow."""

import sys
import time


def announce(program: str) -> None:
    """Says on stderr that a program starts: its imports print nothing for seconds."""
    print(time.strftime("%H:%M:%S"), f"{program} starts; loading it takes some seconds",
          file=sys.stderr, flush=True)
