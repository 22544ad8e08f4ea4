"""Four fake devices, strict broadcasting and one cache of compiled programs, before jax starts.

The slowest files run first, so that no process still runs one of them at the end.
"""

import atexit
import gc
import os
import shutil
import tempfile

import quick_compiler  # it imports no JAX

os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} {quick_compiler.FLAGS} "
                           "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The cache of this run only; its workers and the processes that tests start inherit it.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="unlearn_jax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import pytest  # noqa: E402
import real_slurm  # noqa: E402

# Files of 5 s or more, without test_ and .py, with their approximate seconds on one core.
SLOW = {
    "call": 1630, "setup": 339,
}

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def own_traces(request):
    """What a test traces while something is patched is used by this test alone."""
    from unlearn_jax.system import made_once  # not needed by files without JAX

    if "monkeypatch" not in request.fixturenames:
        yield
        return
    made_once.clear()
    yield
    made_once.clear()


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    """SLURM's commands reach a cluster of two nodes on this machine, until the module's end."""
    with real_slurm.running(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture
def undrawn_figures():
    """Makes reports create their figures without drawing them."""
    import undrawn

    with undrawn.figures():
        yield


@pytest.hookimpl(tryfirst=True)  # before `-m` reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if _seconds(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_seconds, reverse=True)  # stable: tests of a file keep their order


def pytest_collection_finish():
    """Makes garbage collections rarer, without imported objects: tracing makes much garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _seconds(item):
    return SLOW.get(item.path.stem.removeprefix("test_"), 0)


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr == "not slow":
        terminalreporter.write_line(
            f"left out: {len(SLOW)} files of 5 s or more and tests marked slow in others "
            f"(`make test` runs them): {', '.join(sorted(SLOW))}")
