"""Four fake devices, strict broadcasting and one cache of compiled programs, before jax starts.

The slowest files run first, so that no process still runs one of them at the end.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile

import quick_compiler  # it imports no JAX by itself

os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} {quick_compiler.FLAGS} "
                           "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The cache of this run only; its workers and the processes that tests start inherit it.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="unlearn_jax-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

gc.disable()  # until all tests are imported
import jax  # noqa: E402
import pytest  # noqa: E402
import real_slurm  # noqa: E402

# Files of 3 s or more, without test_ and .py, with their approximate seconds on one core.
SLOW = {
    "networks_methods": 72, "stages": 52, "methods": 48, "faults": 36, "launch_slurm_study": 35,
    "benchmarks": 33, "docs_outside": 33, "explain_main": 27, "launch_distributed": 30,
    "stages_compare": 29, "processes": 26, "stages_protocols": 25, "engine": 22, "stages_arms": 21,
    "launch_slurm": 20, "stages_variants": 18, "norms": 17, "report_folds": 15, "report": 15,
    "api": 15, "networks_own": 14, "report_figures": 13, "configs": 13, "quickstart": 12,
    "conv": 12, "report_page": 12, "methods_blindspot": 11, "programs": 10, "pretrained": 10,
    "score_runs": 10, "score": 10, "main": 10, "methods_kgltop1": 9, "manifest": 9,
    "docs_deletion": 9, "belonging": 9, "docs_networks": 9, "norm": 9, "audits": 9, "models": 9,
    "metrics_challenge": 9, "report_study_figures": 8, "report_judgement": 8, "stages_trials": 7,
    "methods_scrub": 7, "checkpoints": 7, "belonging_kinds": 7, "methods_fisher": 7,
    "methods_gradmask": 7, "report_study": 7, "report_leaderboard": 6, "methods_importance": 6,
    "precision": 6, "methods_reset": 6, "stages_weights": 6, "benchmarks_own_network": 6,
    "methods_bad_teacher": 6, "stages_sisa": 6, "methods_neggrad_plus": 6, "networks_published": 6,
    "methods_ssd": 5, "groups": 5, "methods_salun": 5, "stages_unretrained": 5,
    "benchmarks_belonging": 5, "stages_relearn": 5, "stages_rehearsal": 5, "methods_channels": 5,
    "cpu": 4, "stages_outside": 4, "rooms": 4, "report_stats": 4, "explain_population": 4,
    "launch_estimate": 4, "launch_local": 4, "methods_rnd": 4, "data_cache": 4, "compiled": 4,
    "native": 4, "train": 3, "prepare": 3, "data_tfds": 3, "export": 3, "undrawn": 3,
    "networks_nnx": 3, "linear_injection": 3, "metrics_attacks": 3, "methods_regression": 3,
    "report_board": 3, "methods_probabilities": 3, "report_figures_room": 3, "launch_plan": 3,
    "gpu_session": 3, "inspect": 3, "moved": 3, "methods_activation": 3,
}

jax.config.update("jax_numpy_rank_promotion", "raise")
quick_compiler.share_context()


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


@pytest.fixture(scope="session", autouse=True)
def undrawn_figures():
    """Reports make their figures and do not draw them, wherever a test has imported the report."""
    if "unlearn_jax.report" not in sys.modules:
        yield
        return
    import undrawn

    with undrawn.figures():
        yield


@pytest.fixture(scope="module")
def no_figures():
    """Reports have no figures: for tests of what else they write."""
    import undrawn

    with undrawn.none():
        yield


@pytest.fixture(scope="module")
def drawn_figures():
    """Reports draw their figures."""
    import undrawn

    with undrawn.drawn_again():
        yield


@pytest.hookimpl(tryfirst=True)  # before `-m` reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if _seconds(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_seconds, reverse=True)  # stable: tests of a file keep their order


def pytest_collection_finish():
    """Makes garbage collections rarer, without imported objects: tracing makes much garbage."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    gc.enable()


def pytest_sessionfinish():
    """Pytest collects garbage at the end: not in what the process frees anyway."""
    gc.freeze()


def _seconds(item):
    return SLOW.get(item.path.stem.removeprefix("test_"), 0)


def pytest_terminal_summary(terminalreporter, config):
    if config.option.markexpr == "not slow":
        terminalreporter.write_line(
            f"left out: {len(SLOW)} files of 3 s or more and tests marked slow in others "
            f"(`make test` runs them): {', '.join(sorted(SLOW))}")
