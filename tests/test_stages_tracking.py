"""Training curves for trackers, with modules that stand in for W&B and MLflow."""

import contextlib
import importlib.machinery
import sys
import types
from pathlib import Path

import pytest

from unlearn_jax.config import check_config, default_config
from unlearn_jax.errors import ConfigError
from unlearn_jax.stages.tracking import log_history

ROW = {"stage": "ft", "forget_set": "20-28", "seed": 0, "epoch": 1, "train_loss": 1.0,
       "validation_loss": 2.0, "learning_rate": 0.1, "best": True}
HISTORY = [{**ROW, "stage": "original", "forget_set": ""}, ROW, {**ROW, "epoch": 2}]
VALUES = {"train_loss": 1.0, "validation_loss": 2.0, "learning_rate": 0.1}


class Record:
    """The part of a run's record that a tracker uses."""

    def __init__(self, directory):
        self.directory, self.warnings, self.written = directory, [], []

    def warn(self, message):
        self.warnings.append(message)

    def write_tensorboard(self, rows):
        self.written += rows


def study(**changes):
    c = default_config()
    with c.unlocked():
        c.train.update(changes)
    return types.SimpleNamespace(config=c, run=Record(Path("runs/ft")))


def install(monkeypatch, name, **functions):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("changes, rows", [
    ({}, []), ({"tensorboard": True}, HISTORY), ({"log": "tensorboard"}, HISTORY),
    ({"log": "tensorboard", "tensorboard": True}, HISTORY)])
def test_tensorboard_gets_the_history_once_where_it_is_asked_for(changes, rows):
    of = study(**changes)
    log_history(of, HISTORY)
    assert of.run.written == rows


def test_wandb_gets_a_run_for_each_member(monkeypatch):
    started, logged = [], []

    def init(**options):
        started.append(options)
        return types.SimpleNamespace(log=lambda values, step: logged.append((values, step)),
                                     finish=lambda: logged.append("finish"))

    install(monkeypatch, "wandb", init=init)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    of = study(log="wandb")
    log_history(of, HISTORY)
    assert [s["name"] for s in started] == ["original-seed0", "ft-20-28-seed0"]
    assert {s["project"] for s in started} == {"unlearn_jax"}
    assert {s["group"] for s in started} == {"ft"}
    assert started[0]["config"]["train"]["log"] == "wandb"
    assert logged == [(VALUES, 1), "finish", (VALUES, 1), (VALUES, 2), "finish"]
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log_history(of, HISTORY)
    assert "project" not in started[2]
    # A repeated run continues its runs there; another curve is another run.
    assert [s["id"] for s in started[2:]] == [s["id"] for s in started[:2]]
    log_history(of, [{**ROW, "train_loss": 3.0}])
    assert started[4]["id"] not in {s["id"] for s in started[:4]}


def test_mlflow_gets_a_run_for_each_member_once(monkeypatch):
    experiments, runs, logged = [], {}, []

    @contextlib.contextmanager
    def start_run(run_name, tags):
        runs[f"tags.unlearn_jax_id = '{tags['unlearn_jax_id']}'"] = run_name
        yield

    install(monkeypatch, "mlflow", set_experiment=experiments.append, start_run=start_run,
            search_runs=lambda filter_string, output_format: [r for r in [runs.get(filter_string)]
                                                              if r],
            log_metrics=lambda values, step: logged.append((values, step)))
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    of = study(log="mlflow")
    for _ in range(2):
        log_history(of, HISTORY)
    assert list(runs.values()) == ["original-seed0", "ft-20-28-seed0"]
    assert logged == [(VALUES, 1), (VALUES, 1), (VALUES, 2)]
    assert set(experiments) == {"unlearn_jax"} and not of.run.warnings


def test_a_tracker_that_fails_costs_its_curves_alone(monkeypatch):
    def init(**options):
        raise RuntimeError("no key")

    install(monkeypatch, "wandb", init=init)
    of = study(log="wandb")
    log_history(of, HISTORY)
    (warning,) = of.run.warnings
    assert "(RuntimeError: no key); history.csv has them" in warning


def test_a_missing_package_is_an_error_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="'mlflow', which needs the package mlflow; install it"):
        check_config(study(log="mlflow").config)
    with pytest.raises(ConfigError, match="one of '', 'tensorboard', 'wandb', 'mlflow'"):
        check_config(study(log="neptune").config)
    check_config(study(log="tensorboard").config)
    install(monkeypatch, "wandb")
    check_config(study(log="wandb").config)
