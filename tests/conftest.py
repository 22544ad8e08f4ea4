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
    "methods": 160, "stages": 150, "launch_slurm_study": 122, "stages_compare": 108, "conv": 98,
    "stages_arms": 80, "explain_main": 74, "faults": 65, "stages_protocols": 59,
    "launch_distributed": 55, "report": 44, "main": 40, "benchmarks": 37, "processes": 34,
    "audits": 33, "score": 60, "score_runs": 45, "score_docs": 12, "export": 28, "export_torch": 30,
    "launch_estimate": 28, "manifest": 27, "launch_slurm": 26,
    "stages_variants": 26, "norms": 23, "methods_kgltop1": 22, "programs": 22, "engine": 20,
    "norm": 20, "metrics_challenge": 19, "report_study": 18, "configs": 17,
    "methods_blindspot": 17, "metrics_attacks": 17, "methods_neggrad_plus": 16,
    "methods_scrub": 16, "launch_gather": 15, "methods_bad_teacher": 15, "methods_rnd": 15,
    "stages_room": 15, "stages_sisa": 15, "methods_reset": 14, "report_leaderboard": 14,
    "stages_unretrained": 25, "report_board": 9, "report_study_corrected": 8,
    "stages_outside": 65, "stages_weights": 20, "stages_weights_torch": 8,
    "methods_importance": 13, "precision": 13, "groups": 12, "report_figures": 12,
    "report_merge": 12, "benchmarks_belonging": 12, "belonging": 11, "models": 11,
    "methods_fisher": 10, "pretrained": 10,
    "stages_relearn": 10, "linear_injection": 9, "methods_salun": 8, "checkpoints": 7,
    "methods_gaussian_amnesiac": 7, "methods_regression": 7, "methods_ssd": 7, "prepare": 7,
    "methods_channels": 6, "methods_gradmask": 6, "metrics_distributions": 6, "readme": 6,
    "report_page": 6, "report_folds": 9, "report_figures_room": 6,
    "report_study_figures": 6, "networks_own": 25, "docs_networks": 20,
    "networks_methods": 60, "networks_nnx": 15, "networks_published": 12, "depthwise": 5,
    "docs_deletion": 30, "api": 25, "quickstart": 20,
    "data_augment": 5, "explain_attribution": 5,
    "explain_population": 5, "flops": 5, "golden": 5, "launch_plan": 5,
    "methods_probabilities": 5, "metrics_errors": 5,
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
