"""Old names of modules."""

import importlib
import subprocess
import sys

import pytest

from unlearn_jax import engine, moved
from unlearn_jax.methods.method import Method

METHOD = """
from unlearn_jax.methods.method import Method, Prepared
from unlearn_jax.population import Pass, over_retain
from unlearn_jax.prepare import Preparation
from unlearn_jax.train import make_train_step
"""


@pytest.mark.parametrize("old, new", moved.MOVED.items())
def test_an_old_name_gives_the_module_of_today(old, new):
    modules = [importlib.import_module(f"unlearn_jax.{name}") for name in new.split()]
    sys.modules.pop(f"unlearn_jax.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"unlearn_jax.{new.split()[0]}"):
        there = importlib.import_module(f"unlearn_jax.{old}")
    for here in modules:
        own = [name for name, value in vars(here).items()
               if getattr(value, "__module__", "") == here.__name__]
        assert own and all(getattr(there, name) is getattr(here, name) for name in own)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = there.no_such_name


def test_names_of_the_engine():
    with pytest.warns(DeprecationWarning, match="engine.run.train_population"):
        found = engine.train_population
    assert found is importlib.import_module("unlearn_jax.engine.run").train_population
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = engine.no_such_name


def test_a_record_of_the_stages_has_a_new_name():
    graph = importlib.import_module("unlearn_jax.stages.graph")
    with pytest.warns(DeprecationWarning, match="graph.RunContext"):
        found = graph.Study
    assert found is graph.RunContext
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = graph.no_such_name


def test_a_method_may_name_its_arguments_as_in_the_release_before():
    factors = {"share": (0.1, 10.0)}
    with pytest.warns(DeprecationWarning) as seen:
        old = Method(reads=("spread",), own_runs=True, dials=lambda options: factors, numbers=2)
    assert sorted(str(w.message).split(";")[0] for w in seen) == [
        "Method(dials=) is now searched_options=", "Method(numbers=) is now version=",
        "Method(own_runs=) is now budgets_run_apart=", "Method(reads=) is now shared_keys="]
    assert (old.shared_keys, old.version, old.budgets_run_apart) == (("spread",), 2, True)
    assert old.searched({}) == factors
    with pytest.raises(TypeError, match="unknown"):
        Method(unknown=1)


def test_a_module_of_the_engine_is_imported_alone():
    code = ("import sys; from unlearn_jax.engine import flops; "
            "sys.exit('unlearn_jax.engine.run' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True,
                   cwd=str(moved.__file__).rpartition("/unlearn_jax/")[0])


def test_the_imports_of_a_method_file_of_the_release_before(tmp_path):
    (tmp_path / "method.py").write_text(METHOD)
    subprocess.run([sys.executable, tmp_path / "method.py"], check=True,
                   env={"PYTHONPATH": str(moved.__file__).rpartition("/unlearn_jax/")[0]})


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="unlearn_jax.nothing"):
        importlib.import_module("unlearn_jax.nothing")
