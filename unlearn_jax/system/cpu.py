"""What makes XLA's CPU backend faster, to be called before jax starts its threads."""

import ctypes
import os

import jax

# Of glibc's malloc.h, which never changes them.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc keep memory that is freed, for the next one who asks.

    XLA's CPU backend allocates a program's temporary memory anew at every call. Blocks of 32 MB
    and more glibc gets from the system each time, as it does for threads but the first, and the
    system fills every page with zeros when it is touched: for a ResNet18 of width 16 that is 32,000
    page faults a step, and a fifth of its CPU time.

    The process then holds on to as much memory as it ever used at once.

    Returns:
      Whether the C library took the settings; others than glibc have none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
                mallopt(_M_ARENA_MAX, 1)])


def divide_cores(devices: int = 0) -> None:
    """Makes several devices of a CPU, over which members are divided like over GPUs.

    A step of one member does not keep all cores busy all the time; members side by side do. On two
    cores eight ResNet18 of width 16 train 456 images/s rather than 367. Each device that is used
    holds its own copy of the images.

    Args:
      devices: how many; 0: one for each core that the process may use. XLA_FLAGS has precedence.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", devices or len(os.sched_getaffinity(0)))
