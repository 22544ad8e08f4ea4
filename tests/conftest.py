"""Four fake devices, strict broadcasting and one cache of compiled programs, before jax starts.

The slowest files run first, so that no process still runs one of them at the end.
"""

import atexit
import gc
import os
import shutil
import sys
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
    "networks_methods": 136, "methods": 90, "stages": 87, "docs_outside": 83,
    "launch_slurm_study": 76, "stages_compare": 71, "faults": 61, "launch_distributed": 53,
    "report": 51, "explain_main": 50, "stages_protocols": 44, "benchmarks": 44, "launch_slurm": 37,
    "stages_arms": 36, "report_judgement": 34, "engine": 32, "stages_variants": 32, "processes": 30,
    "score": 29, "launch_gather": 25, "docs_networks": 24, "norms": 22, "report_folds": 22,
    "configs": 21, "quickstart": 21, "launch_estimate": 20, "report_leaderboard": 20,
    "score_runs": 19, "docs_deletion": 19, "api": 17, "report_figures": 17, "programs": 16,
    "methods_kgltop1": 16, "main": 16, "report_page": 15, "audits": 14, "networks_own": 14,
    "methods_bad_teacher": 14, "report_merge": 13, "methods_blindspot": 13, "manifest": 13,
    "report_receipt": 13, "methods_reset": 13, "methods_scrub": 13, "conv": 12,
    "methods_neggrad_plus": 12, "pretrained": 12, "stages_sisa": 11, "report_study_figures": 11,
    "stages_rehearsal": 11, "report_latex": 10, "stages_trials": 10, "report_study": 10,
    "stages_weights": 10, "belonging": 10, "methods_importance": 10, "linear_injection": 10,
    "metrics_catalogue": 9, "stages_relearn": 9, "models": 9, "norm": 9, "metrics_challenge": 9,
    "methods_fisher": 9, "groups": 9, "precision": 8, "stages_unretrained": 8, "methods_salun": 8,
    "stages_outside": 8, "benchmarks_own_network": 8, "methods_ssd": 7, "commands": 7,
    "launch_plan": 7, "methods_gradmask": 7, "checkpoints": 7, "networks_published": 7,
    "metrics_attacks": 7, "benchmarks_belonging": 7, "report_stats": 6, "belonging_kinds": 6,
    "methods_channels": 6, "report_board": 5, "explain_population": 5, "verify": 5,
    "methods_rnd": 5,
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
