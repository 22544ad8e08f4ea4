import os
import subprocess
import sys

import pytest

# Page faults of the tenth time that a thread takes, fills and frees 40 MB.
PROGRAM = """
import resource, sys, threading
import numpy as np
from unlearn_jax.system.cpu import keep_freed_memory

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


@pytest.mark.parametrize("asked, flags, found", [
    ("3", "", "3"), ("0", "", str(len(os.sched_getaffinity(0)))),
    ("3", "--xla_force_host_platform_device_count=2", "2")])
def test_a_cpu_counts_as_several_devices(asked, flags, found):
    program = (f"import jax; from unlearn_jax.system.cpu import divide_cores; "
               f"divide_cores({asked}); print(len(jax.devices('cpu')))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, env={**os.environ, "XLA_FLAGS": flags})
    assert done.stdout.strip() == found
