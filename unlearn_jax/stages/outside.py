"""M_O and M_R from outside (`original.path`, `retrain.path`): read, checked, stored as stages.

Their key holds the digests of the files, so that the store never mixes two models. All later
stages, predictions and audits take them as they take models that were trained here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.predict import make_predictor, predict
from unlearn_jax.errors import InputError
from unlearn_jax.labels import some_classes
from unlearn_jax.methods import find_method
from unlearn_jax.metrics import errors
from unlearn_jax.models import Variables
from unlearn_jax.stages import workdir
from unlearn_jax.stages.graph import RunContext, Stage, outside_files
from unlearn_jax.stages.populations import missing_of
from unlearn_jax.stages.weights import read_weights
from unlearn_jax.storage import checkpoints
from unlearn_jax.system.nested import flat
from unlearn_jax.system.processes import is_first_process

PATHS = {"original": "original.path", "retrain": "retrain.path"}  # keys of the config, by stage


def read_in(study: RunContext, original: Stage, retrained: Sequence[Stage]) -> None:
    """Puts the models from outside into the store, and shows how good M_O is on the test set.

    Args:
      study: of the run.
      original, retrained: of the run; those that are trained here are left alone.

    Raises:
      InputError: a file cannot be used, or M_O's test metric is not the expected one.
    """
    for stage in (original, *retrained):
        if not stage.outside:
            continue
        with missing_of(study.store, [stage], all_at_once=True) as (missing, _):
            if missing:
                _store(study, stage)
        metadata, _ = checkpoints.describe(stage.directory(study.store) / "checkpoint")
        _show_test(study, stage, np.array(metadata["test"]))
        study.run.record_stage(stage.name, stage.forget_name, stage.key,
                               "read" if missing else "reused", 0.0, 0, len(study.seeds),
                               stage.epochs)
        _warn_of_one(study, stage)
    if original.outside and (retrained or _starts_fresh(study)):
        what = "M_R" if retrained and not retrained[0].outside else ""
        what = " and ".join(filter(None, (what, _starts_fresh(study))))
        if what:
            study.run.warn(f"M_O was read from a file, which does not hold the weights that its "
                           f"training began with: {what} began with initial weights of the seeds "
                           "of this run")


def _starts_fresh(study: RunContext) -> str:
    """The config's method, if it does not begin with M_O's weights."""
    found = find_method(study.config.unlearn.method)
    return found.name if found.method.start == "initial" else ""


def _store(study: RunContext, stage: Stage) -> None:
    """Reads the models of a stage, measures them on the test set, and stores them."""
    config, key = study.config, PATHS[stage.method]
    paths = outside_files(config, stage.method, stage.forget_name)
    logging.info("%s %s: read from %s", stage.name, stage.forget_name,
                 ", ".join(dict.fromkeys(map(str, paths))))
    read: dict[Path, Variables] = {}
    for path in paths:
        if path not in read:
            check_record(path, key, config, study.dataset.class_names)
            read[path] = read_weights(path, key, study.model, config.model)
    members = [read[path] for path in paths]
    variables = jax.tree.map(lambda *x: np.stack(x), *members)
    zeros, count = np.zeros(len(paths)), len(paths)
    metadata = {
        "stage": stage.method, "forget_set": stage.forget_name, "epochs": stage.epochs,
        "seeds": study.seeds, "config_name": study.config_name, "config": config.to_dict(),
        "data_fingerprint": study.dataset.fingerprint, "device": workdir.device(),
        "class_names": study.dataset.class_names, "label_unit": study.dataset.label_unit,
        "outside": [str(path) for path in paths], "test": _test_metric(study, variables),
        "step": zeros.astype(int), "epochs_trained": zeros.astype(int),
        "metric": {"validation_loss": np.full(count, np.nan)}, "failed": np.zeros(count, bool),
        "images": zeros.astype(int), "seconds": zeros, "flops": zeros}
    with study.store.write(stage.method, stage.key, stage.parts) as directory:
        checkpoints.save(directory / "checkpoint", variables, metadata)
        (directory / "history.json").write_text("[]")
        (directory / "touched.json").write_text("[]")


def check_record(path: Path, key: str, config: ml_collections.ConfigDict,
                 class_names: Sequence[str]) -> None:
    """Compares the run with the JSON that an export wrote beside the file, where there is one.

    Args:
      path: the file or folder of the model.
      key: the key of the config that names it, for messages.
      config: the whole config.
      class_names: of the data, in the order of the logits; () for a regression.

    Raises:
      InputError: the model was trained with other inputs, outputs or classes than the run gives it.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        theirs = record["made_by"]["config"]
        classes = record["output"].get("class_names") or ()
    except (OSError, ValueError, KeyError, TypeError):
        return  # there is no such file, or another program wrote it
    if tuple(classes) and tuple(classes) != tuple(class_names):
        raise InputError(f"config.{key}: {path} was trained on the classes "
                         f"{some_classes(tuple(classes))}, and the data have "
                         f"{some_classes(tuple(class_names)) or 'none'}\nallowed: data with the "
                         f"same classes in the same order ({path.with_suffix('.json').name} has "
                         "them)")
    keys = ["data.image_size", "data.task", "model.preprocess"]
    if config.data.task == "regression":
        keys += ["model.output", "model.output_scale", "model.output_offset"]
    was, now = (flat(c) for c in (theirs, config.to_dict()))
    other = [k for k in keys if k in was and was[k] != now[k]]
    if other:
        raise InputError(f"config.{key}: {path} was made with "
                         + ", ".join(f"{k}={was[k]!r}" for k in other) + "; here it is "
                         + ", ".join(repr(now[k]) for k in other)
                         + "\nset config." + ", config.".join(
                             f"{k}={was[k]!r}" for k in other) + " as well")


def _test_metric(study: RunContext, variables: Variables) -> np.ndarray:
    """`[M]`: accuracy, or MAE in label units, on the test set."""
    layout = make_layout(study.config.parallel, len(study.seeds))
    resident = Feed(layout, study.resident).data
    test = study.splits.test
    outputs = np.stack(predict(make_predictor(study.model, layout), variables, resident,
                               [test] * len(study.seeds), study.config.eval.batch_size))
    labels: Any = study.dataset.labels[test]
    if study.dataset.num_classes:
        return np.asarray(errors.accuracy(outputs, labels))
    return np.asarray(errors.mean_error(errors.absolute_errors(outputs, labels)))


def _show_test(study: RunContext, stage: Stage, found: np.ndarray) -> None:
    """Logs the metric, and compares M_O's with `original.expected_test`.

    Raises:
      InputError: it differs by more than `original.tolerance` of it.
    """
    section, mean = study.config.original, float(found.mean())
    kind = "accuracy" if study.dataset.num_classes else f"MAE ({study.dataset.label_unit})"
    each = ", ".join(f"{value:.4g}" for value in found)
    name = f"{stage.name} {stage.forget_name}".strip()
    if is_first_process():
        logging.info("%s from outside: %s on the %d test samples %.4g (by seed: %s)", name, kind,
                     len(study.splits.test), mean, each)
    if stage.method != "original":
        return
    if section.expected_test < 0:
        logging.warning("config.original.expected_test is not given: whether %s=%.4g is what M_O "
                        "should have is not checked", kind, mean)
        return
    if not abs(mean - section.expected_test) <= section.tolerance * section.expected_test:
        raise InputError(
            f"M_O of config.original.path has {kind} {mean:.4g} on the {len(study.splits.test)} "
            f"test samples; config.original.expected_test is {section.expected_test:g}, and "
            f"config.original.tolerance allows {section.tolerance:g} of it\nusual causes: "
            "config.model.preprocess, data.image_size, the order of the classes, or another test "
            "set than the one that the expected value was measured on")


def _warn_of_one(study: RunContext, stage: Stage) -> None:
    if len(study.seeds) == 1 or len(stage.parts["outside"]) > 1:
        return
    if stage.method == "original":
        study.run.warn("M_O of all seeds is one model, read from one file: seeds differ in what is "
                       "trained here alone, and intervals are conditional on that M_O")
    else:
        study.run.warn(f"M_R of all seeds is one model on {stage.forget_name}, read from one file: "
                       "intervals are conditional on it, and there is neither a ceiling nor a "
                       "comparison across seeds")


def to_be_trained(stages: Sequence[Stage]) -> list[Stage]:
    """The stages without those from outside."""
    return [stage for stage in stages if not stage.outside]
