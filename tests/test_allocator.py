import subprocess
import sys

import pytest

# Page faults of the tenth time that a thread takes, fills and frees 40 MB.
PROGRAM = """
import resource, sys, threading
import numpy as np
from unlearn_jax.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def work():
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(5_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("how, fewest, most", [("keep", 0, 100), ("plain", 10, 10**6)])
def test_memory_that_was_freed_costs_no_page_faults(how, fewest, most):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True,
                          check=True)
    assert fewest <= int(done.stdout) <= most
