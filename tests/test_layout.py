import os

import jax
import numpy as np
import pytest
from toy import layout

from unlearn_jax import native
from unlearn_jax.config import default_config
from unlearn_jax.engine.layout import make_layout, members_of_a_call
from unlearn_jax.errors import InputError
from unlearn_jax.system.target import Target


def parallel(**changes):
    cfg = default_config().parallel
    with cfg.unlocked():
        cfg.update(changes)
    return cfg


@pytest.mark.parametrize("members, batch, expected", [
    (1, 1, (1, 1)), (4, 1, (4, 1)), (6, 1, (3, 1)), (7, 1, (4, 1)), (2, 2, (2, 2)), (3, 4, (1, 4)),
])
def test_as_many_devices_as_help(members, batch, expected):
    mesh = make_layout(parallel(batch=batch), members).mesh
    assert tuple(mesh.shape.values()) == expected


@pytest.mark.parametrize("changes, words", [
    (dict(members=5), "members is 5.*only 4 cpu devices"),
    (dict(batch=8), "batch is 8.*only 4 cpu devices"),
    (dict(members=3, batch=2), "times batch=2"),
    (dict(backend="gpu"), "'gpu' but jax finds no such device.*found: cpu"),
])
def test_missing_devices_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        make_layout(parallel(**changes), 3)


def test_several_steps_per_dispatch_where_a_loop_slows_nothing_down(monkeypatch, caplog):
    assert make_layout(parallel(steps_per_dispatch=7), 1).steps_per_dispatch == 7
    assert make_layout(parallel(convolution="direct"), 1).steps_per_dispatch == 1
    assert make_layout(parallel(batch=2), 1).steps_per_dispatch == 1
    monkeypatch.setattr(native, "unavailable", lambda: "")
    assert make_layout(parallel(), 1).steps_per_dispatch == 8
    monkeypatch.setattr(native, "unavailable", lambda: "no compiler in sight")
    for _ in range(2):
        assert make_layout(parallel(), 1).steps_per_dispatch == 1
    assert caplog.text.count("no compiler in sight") == 1


@pytest.mark.parametrize("changes, missing, words", [
    (dict(), "no compiler", "no compiler"), (dict(batch=2), "", "batch divides"),
])
def test_onednn_is_refused_where_it_cannot_compute(monkeypatch, changes, missing, words):
    monkeypatch.setattr(native, "unavailable", lambda: missing)
    with pytest.raises(InputError, match=f"convolution is 'onednn'.*{words}"):
        make_layout(parallel(convolution="onednn", **changes), 1)


@pytest.mark.parametrize("members, batch, threads", [(1, 1, 7), (2, 1, 3), (4, 1, 1), (2, 2, 0)])
def test_devices_share_the_cores(monkeypatch, members, batch, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    assert make_layout(parallel(batch=batch), members).target == Target("cpu", threads)


def test_groups_fill_every_call():
    where = layout(members=2, per_device=2)
    np.testing.assert_array_equal(where.groups(3), [[0, 1, 2, 2]])
    np.testing.assert_array_equal(where.groups(4), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(where.groups(6), [[0, 1, 2, 3], [4, 5, 5, 5]])


def test_one_member_per_call_on_cpu_unless_told():
    assert make_layout(parallel(members=1), 5).groups(5).shape == (5, 1)
    assert make_layout(parallel(members=2), 5).groups(5).shape == (3, 2)
    assert make_layout(parallel(members=2, members_per_device=3), 5).groups(5).shape == (1, 6)


@pytest.mark.parametrize("platform, members, expected", [
    ("cpu", 40, 1), ("gpu", 1, 1), ("gpu", 16, 16), ("gpu", 17, 9), ("gpu", 40, 14),
])
def test_a_gpu_takes_up_to_sixteen_members_a_call(platform, members, expected):
    assert members_of_a_call(platform, members) == expected


def test_cuda_graphs_are_asked_for_on_a_gpu_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    where = make_layout(parallel(), 1)
    assert "CONVOLUTION" in str(where._compiler_options("gpu"))
    assert "command_buffer" not in str(where._compiler_options("cpu"))
    assert make_layout(parallel(cuda_graphs=False), 1)._compiler_options("gpu") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer=FUSION")
    assert where._compiler_options("gpu") == {}
    assert where._compiler_options("cpu") == {"xla_backend_optimization_level": 1}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    assert where._compiler_options("cpu") == {}


def test_program_times_its_compilation_once():
    where = layout(members=3)
    program = where.vmap_jit(lambda x, y: x * y, (0, None))
    with pytest.raises(RuntimeError, match="first call"):
        _ = program.compiled
    x = where.shard_members(np.arange(3.0, dtype=np.float32))
    np.testing.assert_array_equal(program(x, np.float32(2)), [0, 2, 4])
    seconds = program.compile_seconds
    program(x, np.float32(3))
    assert program.compile_seconds == seconds > 0
    with pytest.raises(TypeError, match=r"'x' compiled with float32\[3\] and called with .*\[6\]"):
        program(where.shard_members(np.arange(6.0, dtype=np.float32)), np.float32(2))


def test_members_lie_on_their_own_devices():
    x = layout(members=4).shard_members(np.zeros((4, 2)))
    assert len({s.device for s in x.addressable_shards}) == 4
    assert jax.tree.leaves(x)[0].addressable_shards[0].data.shape == (1, 2)
