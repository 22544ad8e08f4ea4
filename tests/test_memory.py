import dataclasses
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import layout

from unlearn_jax.config import default_config
from unlearn_jax.engine import memory


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


def test_bytes_are_those_of_arrays_and_of_their_shapes():
    tree = (np.zeros((3, 2), np.float32), jax.ShapeDtypeStruct((5,), np.uint8), None)
    assert memory.tree_bytes(tree) == 24 + 5
    assert memory.tree_bytes(jax.random.split(jax.random.key(0), 4)) == 4 * 8


def test_what_a_call_takes_is_what_the_compiler_says():
    program = layout().vmap_jit(lambda x, y: (x + y, jnp.sort(x @ y[:, None])), (0, 0), (0,))
    x = layout().shard_members(np.ones((3, 1000), np.float32))
    program.compile(x, x.copy())
    # two arguments, one of them donated to a result, and another result
    assert 24000 + 12 <= memory.call_bytes(program) < 24000 + 20000


def fit(monkeypatch, free, need, held=0, count=6, adapts=True, members=1):
    """How many members a call has that grows by `need` bytes with each, and what was tried."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    where = layout(members=members, count=count, per_device=-(-count // members))
    tried = []

    def needs(layout):
        tried.append(layout.members_per_device)
        return need * layout.members_per_device

    found = memory.fit_members_per_call(
        dataclasses.replace(where, adapts=adapts), count, "toy", needs, held)
    assert found.mesh == where.mesh and found.members_per_device == tried[-1]
    return tried


@pytest.mark.parametrize("changes, tried", [
    # of 100 bytes 90 are used; the six members hold 5 each, so that 60 are left for calls
    (dict(need=10, held=5), [6]),
    (dict(need=12, held=5), [6, 3]),  # five would fit, and cost as many calls as three
    (dict(need=25, held=5), [6, 2]),
    (dict(need=80, held=5), [6, 1]),  # not even one fits: let it be tried
    (dict(need=10, held=90), [6, 1]),
    (dict(need=12, held=5, adapts=False), [6]),
    (dict(need=12, held=5, members=2), [3]),  # three members on each of two devices
    (dict(need=30, held=5, members=2), [3, 2]),
    (dict(need=12, count=1), [1]),
])
def test_as_many_members_as_fit(monkeypatch, changes, tried):
    assert fit(monkeypatch, 100, **changes) == tried


def test_a_call_that_grows_faster_than_its_members_is_compiled_again(monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1e9)
    needs = {6: 3e9, 2: 0.95e9, 1: 0.5e9}
    with caplog.at_level(logging.INFO):
        found = memory.fit_members_per_call(
            dataclasses.replace(layout(count=6, per_device=6), adapts=True), 6, "toy",
            lambda layout: needs[layout.members_per_device])
    assert found.members_per_device == 1
    assert "toy: 6 members at once would take 3.00 GB of the 1.00 GB that are free" in caplog.text


def test_the_fullest_device_decides(monkeypatch):
    full = iter([100.0, 30.0, 100.0])
    monkeypatch.setattr(memory, "free_bytes", lambda device: next(full))
    where = dataclasses.replace(layout(members=3, count=6, per_device=2), adapts=True)
    found = memory.fit_members_per_call(
        where, 6, "toy", lambda layout: 20 * layout.members_per_device)
    assert found.members_per_device == 1


def test_free_is_what_is_not_in_use():
    assert memory.free_bytes(device(bytes_limit=80, bytes_in_use=30)) == 50
    assert memory.free_bytes(types.SimpleNamespace(memory_stats=lambda: None)) == np.inf


def test_other_errors_than_of_memory_are_passed_on():
    def work(layout):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        memory.halve_on_oom(work, layout(), "toy", 8)
