import types

import jax
import numpy as np
import pytest

from unlearn_jax import memory
from unlearn_jax.config import default_config


def device(**stats):
    """A device that reports these numbers, as a GPU does."""
    return types.SimpleNamespace(memory_stats=lambda: stats)


def parallel(resident):
    cfg = default_config().parallel
    with cfg.unlocked():
        cfg.resident = resident
    return cfg


def test_images_are_streamed_from_half_of_a_devices_memory_on():
    assert memory.image_bytes(parallel("auto"), device(bytes_limit=80, bytes_in_use=70)) == 40
    assert memory.image_bytes(parallel("device"), device(bytes_limit=80)) == np.inf
    assert memory.image_bytes(parallel("stream"), device(bytes_limit=80)) < 0


@pytest.mark.parametrize("silent", [types.SimpleNamespace(memory_stats=lambda: None),
                                    jax.devices("cpu")[0]])
def test_a_cpu_never_streams_unless_told(silent):
    assert memory.total_bytes(silent) == np.inf
    assert memory.image_bytes(parallel("auto"), silent) == np.inf
