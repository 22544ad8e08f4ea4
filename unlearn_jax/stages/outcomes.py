"""Predictions of every model on every split, from the store or computed, and the results."""

import dataclasses
import json
import time

import numpy as np

from unlearn_jax import checkpoints, results, workdir
from unlearn_jax.feed import Feed
from unlearn_jax.layout import Layout, Program, make_layout
from unlearn_jax.predict import make_predictor, predict
from unlearn_jax.splits import ForgetSet, Splits
from unlearn_jax.stages.graph import Stage, Study, forget_parts
from unlearn_jax.store import stage_key


def write_results(study: Study, original: Stage, retrained: list[Stage],
                  unlearned: list[Stage]) -> None:
    """Predictions of every model on every split, and results.csv and history.csv from them."""
    rows = []
    layout = make_layout(study.config.parallel, len(study.seeds))
    predictor = make_predictor(study.model, layout)
    study = dataclasses.replace(study, resident=Feed(layout, study.resident).data)
    classification = study.dataset.num_classes > 0
    train_labels = study.dataset.labels[study.splits.train]
    baseline = (int(np.bincount(train_labels).argmax()) if classification
                else float(np.median(train_labels)))
    for retrain in retrained:
        split_rows = _split_rows(study.splits, retrain.forget_set)
        targets = results.Targets(
            {name: study.dataset.labels[r] for name, r in split_rows.items()},
            {name: study.dataset.ids[r] for name, r in split_rows.items()})
        name = retrain.forget_name
        stages = [original, *(u for u in unlearned if u.forget_name == name), retrain]
        outcomes = [_outcome(study, layout, predictor, s, retrain.forget_set, split_rows)
                    for s in stages]
        for outcome in outcomes:
            results.save_predictions(study.run.directory / "predictions", outcome, targets)
        rows += results.result_rows(outcomes[:-1], outcomes[-1], targets, baseline,
                                    study.config.eval, classification)
    study.run.write_table("results.csv", rows, results.COLUMNS)
    # One curve for each method and forget set: that of the longest budget.
    longest = {(s.method, s.forget_name): s for s in sorted(unlearned, key=lambda s: s.epochs)}
    stages = [original, *retrained, *longest.values()]
    history = [row for s in stages
               for row in json.loads((s.directory(study.store) / "history.json").read_text())]
    study.run.write_table("history.csv", history, workdir.HISTORY_COLUMNS)
    if study.config.train.tensorboard:
        study.run.write_tensorboard(history)


def _outcome(study: Study, layout: Layout, predictor: Program, stage: Stage, forget_set: ForgetSet,
             split_rows: dict[str, np.ndarray]) -> results.Outcome:
    """The stage's predictions, from the store or computed, and its costs."""
    parts = {"model": stage.key, "forget": forget_parts(study, forget_set)}
    key = stage_key("predictions", parts)
    checkpoint = stage.directory(study.store) / "checkpoint"
    metadata, _ = checkpoints.describe(checkpoint)
    for seed in np.array(metadata["seeds"])[np.array(metadata["failed"])]:
        study.run.warn(f"{stage.method} {stage.forget_name} at {stage.epochs} epochs: the member "
                       f"of seed {seed} failed (a loss or parameter was not finite); its values "
                       "are nan and no mean includes them")
    status, began = "reused", time.monotonic()
    if not study.store.complete("predictions", key):
        status = "computed"
        variables, _ = checkpoints.restore(checkpoint)
        failed = np.array(metadata["failed"])
        with study.store.write("predictions", key, parts) as directory:
            for split, rows in split_rows.items():
                outputs = np.stack(predict(predictor, layout, variables, study.resident,
                                           [rows] * len(study.seeds),
                                           study.config.eval.batch_size))
                outputs[failed] = np.nan
                np.save(directory / f"{split}.npy", outputs)
    directory = study.store.path("predictions", key)
    outputs = {split: np.load(directory / f"{split}.npy") for split in split_rows}
    study.run.record_stage("predictions", forget_set.name, key, status, time.monotonic() - began,
                           len(study.seeds) * sum(len(r) for r in split_rows.values()),
                           len(study.seeds), stage.epochs)
    return results.Outcome(stage.method, forget_set.name, stage.epochs, stage.key, study.seeds,
                           outputs, *(np.array(metadata[k])
                                      for k in ("images", "seconds", "epochs_trained", "failed",
                                                "flops")))


def _split_rows(splits: Splits, forget_set: ForgetSet) -> dict[str, np.ndarray]:
    """Data set rows of each split; one without samples is left out."""
    rows = {"test": splits.test, "forget": splits.forget(forget_set),
            "retain": splits.retain_train(forget_set),
            "validation": splits.retain_validation(forget_set)}
    return {name: r for name, r in rows.items() if len(r)}
