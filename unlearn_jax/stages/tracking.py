"""Training curves for the trackers of `train.log`: TensorBoard, W&B, MLflow.

Each member becomes a run of the tracker, with its losses and its learning rate at each epoch. The
curves are written after training, so that models from the store have theirs, too. A tracker that
fails costs its curves and nothing else: a warning in the report says so. history.csv has the same
numbers in any case.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from absl import logging

from unlearn_jax.stages.graph import RunContext
from unlearn_jax.stages.workdir import CURVES, history_by_member

_PROJECT = "unlearn_jax"  # of W&B and of MLflow, unless their own variables name another
_ID = "unlearn_jax_id"  # tag of a run of MLflow


def log_history(study: RunContext, history: Iterable[dict[str, Any]]) -> None:
    """Hands the curves to the tracker of the config, if there is one; first process only.

    Args:
      study: `train.log` and `train.tensorboard` decide.
      history: rows of history.csv.
    """
    settings, rows = study.config.train, list(history)
    if settings.tensorboard or settings.log == "tensorboard":
        study.run.write_tensorboard(rows)
    if settings.log not in _WRITERS:
        return
    try:
        for name, own in history_by_member(rows).items():
            _WRITERS[settings.log](study, name, own)
    except Exception as e:  # a tracker may raise anything; the results are finished
        message = (f"train.log={settings.log!r}: the curves could not be written "
                   f"({type(e).__name__}: {' '.join(str(e).split())}); history.csv has them")
        logging.warning(message)
        study.run.warn(message)


def _wandb(study: RunContext, name: str, rows: list[dict[str, Any]]) -> None:
    import wandb

    # Equal curves have one id, so that a repeated run does not show them twice.
    project = {} if os.environ.get("WANDB_PROJECT") else {"project": _PROJECT}
    run = wandb.init(**project, name=name, group=study.run.directory.absolute().name,
                     id=_identity(study, name, rows), resume="allow", reinit=True,
                     config=study.config.to_dict())
    for row in rows:
        run.log(_values(row), step=row["epoch"])
    run.finish()


def _mlflow(study: RunContext, name: str, rows: list[dict[str, Any]]) -> None:
    import mlflow

    if not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(_PROJECT)
    identity = _identity(study, name, rows)
    if mlflow.search_runs(filter_string=f"tags.{_ID} = '{identity}'", output_format="list"):
        return  # a run that is repeated
    group = study.run.directory.absolute().name
    with mlflow.start_run(run_name=name, tags={_ID: identity, "workdir": group}):
        for row in rows:
            mlflow.log_metrics(_values(row), step=row["epoch"])


_WRITERS: dict[str, Callable[[RunContext, str, list[dict[str, Any]]], None]] = {
    "wandb": _wandb, "mlflow": _mlflow}


def _values(row: dict[str, Any]) -> dict[str, float]:
    return {column: float(row[column]) for column in CURVES}


def _identity(study: RunContext, name: str, rows: list[dict[str, Any]]) -> str:
    """16 hexadecimal digits of the work directory, the member and its curve."""
    content = json.dumps([str(study.run.directory.absolute()), name, rows], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
