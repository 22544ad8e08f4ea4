import concurrent.futures
import ctypes
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from warm import ROOT

from unlearn_jax import native
from unlearn_jax.networks.conv import DIMENSION_NUMBERS

needs_native = pytest.mark.skipif(bool(native.unavailable()), reason=native.unavailable())


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 7, 8), (64, 9, 9, 17)])
def test_sums_are_those_of_numpy_in_float64(shape, threads):
    a, b, shift = normal(*shape), 100 + normal(*shape, seed=1), 100 + normal(shape[-1], seed=2)
    found = jax.jit(lambda *x: native.sums(*x, threads))(a, b, shift)
    wide = a.astype(np.float64), b.astype(np.float64) - shift
    expected = [x.sum((0, 1, 2)) for x in (wide[0], wide[0] * wide[1])]
    scale = np.sqrt(a[..., 0].size)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@needs_native
def test_sums_of_members_side_by_side():
    a, b, shift = normal(3, 2, 5, 4), normal(3, 2, 5, 4, seed=1), normal(3, 4, seed=2)
    found = jax.vmap(lambda *x: native.sums(*x, threads=2))(a, b, shift)
    one = jax.vmap(lambda a: native.sums(a, b[0], shift[0], threads=2))(a)
    for m in range(3):
        expected = [a[m].sum((0, 1)), (a[m] * (b[m] - shift[m])).sum((0, 1))]
        np.testing.assert_allclose(found[m], expected, atol=1e-5)
        np.testing.assert_allclose(one[m][1], (a[m] * (b[0] - shift[0])).sum((0, 1)), atol=1e-5)


@needs_native
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
def test_any_number_of_threads_divides_the_batch(threads):
    x, w = normal(6, 5, 5, 3), normal(3, 3, 3, 4, seed=1)
    padding = ((1, 1), (1, 1))
    y = lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=DIMENSION_NUMBERS)
    weight_grad = jax.linear_transpose(
        lambda w: lax.conv_general_dilated(x, w, (1, 1), padding,
                                           dimension_numbers=DIMENSION_NUMBERS), w)(y)[0]
    call = lambda phase, *args: native.convolve(phase, (1, 1), padding, threads, *args)
    np.testing.assert_allclose(call("forward", x, w, y.shape), y, atol=1e-5)
    np.testing.assert_allclose(call("weight_grad", x, y, w.shape), weight_grad, rtol=1e-4,
                               atol=1e-3)


@pytest.mark.parametrize("batch, threads, parts", [
    (64, 1, 1), (64, 2, 2), (64, 3, 8), (64, 7, 16), (250, 16, 25), (61, 60, 61), (3, 8, 3)])
def test_equal_parts_keep_the_threads_busy(batch, threads, parts):
    assert native._parts(batch, threads, most=4 * threads) == parts


@needs_native
def test_arrays_of_another_type_are_refused():
    x, w = normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    for a, b in ((x, w.astype("bfloat16")), (x.astype("float16"), w.astype("float16"))):
        with pytest.raises(jax.errors.JaxRuntimeError, match="float32 or of bfloat16"):
            native.convolve("forward", (1, 1), ((1, 1), (1, 1)), 1, jnp.asarray(a), jnp.asarray(b),
                            (2, 5, 5, 4)).block_until_ready()


@needs_native
def test_an_error_of_onednn_is_one_of_xla_with_its_words():
    x, w = normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    words = "oneDNN: .*images 2x5x5x3, kernel 3x3x3x4"
    with pytest.raises(jax.errors.JaxRuntimeError, match=words):
        native.convolve("forward", (1, 1), ((0, 0), (0, 0)), 1, x, w, (2, 9, 9, 4)) \
            .block_until_ready()


@needs_native
@pytest.mark.slow
def test_calls_from_many_devices_at_once_do_not_mix():
    """Four devices and four host threads call with shapes of their own, each many times."""
    shapes = [(n, size, size, channels) for n in (2, 8) for size in (5, 16) for channels in (3, 16)]

    def program(shape, phase_threads):
        w = normal(3, 3, shape[-1], 8)

        def fun(x):
            def step(total, _):
                y = native.convolve("forward", (1, 1), ((1, 1), (1, 1)), phase_threads, x + total,
                                    w, (*shape[:3], 8))
                g = native.convolve("weight_grad", (1, 1), ((1, 1), (1, 1)), phase_threads, x, y,
                                    w.shape)
                s = native.sums(y, y, jnp.zeros(8), phase_threads)
                return jnp.cos(g.mean() + s.mean()), None

            return lax.scan(step, jnp.zeros(()), None, length=10)[0]

        return jax.jit(fun)

    programs = [(program(shape, 1 + i % 3), normal(*shape, seed=i))
                for i, shape in enumerate(shapes)]
    expected = [float(run(x)) for run, x in programs]
    devices = jax.devices("cpu")

    def often(i):
        run, x = programs[i % len(programs)]
        there = jax.device_put(x, devices[i % len(devices)])
        return [float(run(there)) for _ in range(5)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(expected)) == len(expected) and np.isfinite(expected).all()
        for i, found in enumerate(pool.map(often, range(32))):
            assert found == [expected[i % len(expected)]] * 5


@pytest.mark.parametrize("breaks, words", [
    (lambda patch: patch.setattr(sys, "platform", "darwin"), "take Linux on x86-64, not darwin"),
    (lambda patch: patch.setattr(importlib.util, "find_spec", lambda name: None),
     "not compiled; `make setup`"),
    (lambda patch: patch.setattr(importlib.util, "find_spec",
                                 lambda name: types.SimpleNamespace(origin="/missing.so")),
     "cannot be loaded|missing.so"),
    (lambda patch: patch.setattr(importlib.metadata, "files", lambda name: ()),
     "no libdnnl.so.3|not compiled"),
])
def test_what_is_missing_is_said(monkeypatch, breaks, words):
    native._onednn.cache_clear()
    breaks(monkeypatch)
    assert re.search(words, native.unavailable.__wrapped__())
    monkeypatch.undo()
    native._onednn.cache_clear()


def test_a_machine_without_a_compiler_sets_up_all_the_same(tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path),
               "--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(command, env={"PATH": "", "CC": "missing", "CXX": "missing"},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))


# Fewer channels than a vector has: what is written behind a buffer would stop this process.
_STRIDED = """
import jax
import jax.numpy as jnp

from unlearn_jax.networks.conv import convolutions, member_conv
from unlearn_jax.system.target import tracing_for

for pixels in (8, 16, 32):
    for channels in (1, 3, 4, 7, 12):
        x, w = jnp.ones((2, pixels, pixels, channels)), jnp.ones((1, 1, channels, 4))
        with convolutions("onednn"), tracing_for("cpu", threads=1):
            y, pull = jax.vjp(lambda x, w: member_conv(x, w, (2, 2), ((0, 0), (0, 0))), x, w)
            of_x, of_w = pull(y)
        assert (of_w == 2 * (pixels // 2) ** 2 * channels).all()
"""


@needs_native
def test_no_call_writes_behind_its_memory():
    checked = "libc_malloc_debug.so.0"  # glibc's, which looks behind each buffer when it is freed
    try:
        ctypes.CDLL(checked)
    except OSError as e:
        pytest.skip(f"{e}")
    done = subprocess.run([sys.executable, "-c", _STRIDED], cwd=ROOT, text=True,
                          capture_output=True,
                          env={**os.environ, "LD_PRELOAD": checked, "MALLOC_CHECK_": "3"})
    assert done.returncode == 0, done.stderr
