"""Predictions of every model on every split, from the store or computed, and the results."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from unlearn_jax import results
from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.predict import Predictor, make_predictor, predict
from unlearn_jax.models import Variables
from unlearn_jax.stages import workdir
from unlearn_jax.stages.graph import RunContext, Stage, forget_parts
from unlearn_jax.stages.membership import further_arrays, peer_samples, trained_samples
from unlearn_jax.stages.relearn import MEASURES, relearn_measures, relearn_stage
from unlearn_jax.stages.tracking import log_history
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.storage.store import stage_key
from unlearn_jax.system import interrupt, processes
from unlearn_jax.system.bars import tracked
from unlearn_jax.units import label_step


@dataclasses.dataclass(frozen=True)
class Models:
    """Models that are evaluated under one name: those of a stage, or ensembles of several stages.

    Attributes:
      stage: gives the name, the budget, and the key for results.csv.
      forget_set: name of the forget set whose splits they are evaluated on; `''`: all forget sets.
      variables: reads the variables `[K, ...]`.
      costs: costs by seed, `[M]` each: images, seconds, flops, step, epochs_trained, failed.
      combine: turns outputs `[K, N, ...]` into those of the M seeds; None: K is M.
      combined: the name of `combine` in the key of the predictions.
      measures: takes the outcomes of these models and of M_R; returns further metrics `[M]`.
    """

    stage: Stage
    forget_set: str
    variables: Callable[[], Variables]
    costs: Mapping[str, Any]
    combine: Callable[[np.ndarray], np.ndarray] | None = None
    combined: str = ""
    measures: Callable[[results.Outcome, results.Outcome], dict[str, np.ndarray]] | None = None


def stored(study: RunContext, stage: Stage) -> Models:
    """The models of one stage."""
    checkpoint = stage.directory(study.store) / "checkpoint"
    costs, _ = checkpoints.describe(checkpoint)
    return Models(stage, stage.forget_name, lambda: checkpoints.restore(checkpoint)[0], costs)


def write_results(study: RunContext, original: Stage, retrained: list[Stage],
                  unlearned: list[Stage], ensembles: Sequence[Models] = ()) -> None:
    """Predictions of every model on every split, and results.csv, history.csv, touched.csv."""
    rows, refused = [], []
    layout = make_layout(study.config.parallel, len(study.seeds))
    predictor = make_predictor(study.model, layout)
    study = dataclasses.replace(study, resident=Feed(layout, study.resident).data)
    classification = study.dataset.num_classes > 0
    train_labels = study.dataset.labels[study.splits.train]
    baseline = (int(np.bincount(train_labels).argmax()) if classification
                else float(np.median(train_labels)))
    for forget_set in study.splits.forget_sets:
        name = forget_set.name
        references = [s for s in retrained if s.forget_name == name]  # none without M_R
        rows_of = split_rows(study, forget_set)
        # A stamped image has the label and the id of its test image.
        sources = {**rows_of, **({"stamped": study.splits.test} if len(study.stamped) else {})}
        targets = results.Targets(
            {name: study.dataset.labels[r] for name, r in sources.items()},
            {name: study.dataset.ids[r] for name, r in sources.items()},
            further_arrays(study, forget_set, sources))
        models = [*(stored(study, s) for s in (original, *unlearned)), *ensembles,
                  *(stored(study, s) for s in references)]
        models = [m for m in models if m.forget_set in ("", name)]
        outcomes = [_outcome(study, predictor, m, forget_set, rows_of)
                    for m in tracked(study.bar, models, f"predictions, {name}", "models")]
        reference = outcomes[-1] if references else None
        outcomes = [dataclasses.replace(o, measures=m.measures(o, reference))
                    if m.measures and reference else o for m, o in zip(models, outcomes)]
        if study.config.eval.relearn_epochs:
            outcomes = _with_relearning(study, models, outcomes)
            reference = outcomes[-1] if references else None
        if not processes.is_first_process():
            continue  # the rest needs predictions alone; the first process does it
        for outcome in outcomes:
            results.save_predictions(study.run.directory / "predictions", outcome, targets)
        found = results.result_rows(outcomes[:-1] if reference else outcomes, reference, targets,
                                    baseline, study.config.eval, classification)
        rows += _by_relearning(study, models, found, forget_set)
        for outcome in tracked(study.bar, outcomes, f"audits, {name}", "models"):
            found, why = _audit(study, outcome, reference, targets, forget_set)
            rows += found
            refused += why
    if not processes.is_first_process():
        return
    _warn_of(study, refused)
    study.run.write_table("results.csv", rows, results.COLUMNS)
    if uncounted := results.uncounted(rows):
        study.run.warn(f"FLOPs of {', '.join(uncounted)} are unknown: jax had no CPU to count them "
                       "for (JAX_PLATFORMS), or a version that could not count on a GPU trained "
                       "them")
    # One curve for each method and forget set: the run of the longest budget.
    longest = {(s.name, s.forget_name): s for s in sorted(unlearned, key=lambda s: s.epochs)}
    stages = [original, *retrained, *longest.values()]
    history = [{**row, "stage": s.name} for s in stages
               for row in store.load_json(s.directory(study.store), "history.json")]
    study.run.write_table("history.csv", history, workdir.HISTORY_COLUMNS)
    touched = [row for s in unlearned for row in _touched_rows(study, s)]
    if touched:
        study.run.write_table("touched.csv", touched, workdir.TOUCHED_COLUMNS)
    log_history(study, history)


def _with_relearning(study: RunContext, models: Sequence[Models],
                     outcomes: Sequence[results.Outcome]) -> list[results.Outcome]:
    """The outcomes with relearn times; ensembles stay without."""
    single = [i for i, m in enumerate(models) if m.combine is None]
    measures = relearn_measures(study, [models[i].stage for i in single],
                                [outcomes[i] for i in single])
    found = list(outcomes)
    for i, own in zip(single, measures):
        found[i] = dataclasses.replace(found[i], measures={**found[i].measures, **own})
    return found


def _by_relearning(study: RunContext, models: Sequence[Models], rows: list[dict[str, Any]],
                   forget_set: ForgetSet) -> list[dict[str, Any]]:
    """The rows; relearn times get the key of the relearning instead of that of the models."""
    keys = {m.stage.key: relearn_stage(study, m.stage, forget_set).key for m in models}
    return [{**row, "stage": keys[row["stage"]]} if row["metric"] in MEASURES else row
            for row in rows]


def _touched_rows(study: RunContext, stage: Stage) -> list[dict[str, Any]]:
    """Rows of touched.csv; none for a stage that an earlier version stored without this file."""
    directory = stage.directory(study.store)
    if "touched.json" not in store.read_marker(directory)["files"]:
        return []
    return [{"method": stage.name, "forget_set": stage.forget_name, "epochs": stage.epochs,
             **row, "which": " ".join(map(str, row["which"]))}
            for row in store.load_json(directory, "touched.json")]


def _audit(study: RunContext, outcome: results.Outcome, reference: results.Outcome | None,
           targets: results.Targets, forget_set: ForgetSet) -> tuple[list[dict[str, Any]], list]:
    """Rows of results.csv, and the refused audits."""
    from unlearn_jax import audits  # scikit-learn takes a second to import

    members, others = (
        audits.AuditedSamples(split=split, places=places, labels=labels)
        for split, places, labels in (trained_samples(study, forget_set),
                                      peer_samples(study, forget_set)))
    classification = study.dataset.num_classes > 0
    audit = audits.Audit(
        outcome=outcome, reference=reference, targets=targets, members=members, others=others,
        classification=classification, config=study.config.eval,
        injection=study.splits.injection,
        step=1.0 if classification else label_step(study.config.data))
    return audits.audit_rows(audit, study.config.eval.audits)


def _warn_of(study: RunContext, refused: list) -> None:
    from unlearn_jax import audits

    for message in audits.refusals_in_words(refused):
        study.run.warn(message)


def _outcome(study: RunContext, predictor: Predictor, models: Models,
             forget_set: ForgetSet, rows_of: dict[str, np.ndarray]) -> results.Outcome:
    """The models' predictions, from the store or computed, and their costs."""
    stage = models.stage
    parts = _predictions_parts(study, stage, forget_set, models.combined)
    key = stage_key("predictions", parts)
    failed = np.array(models.costs["failed"])
    what = (f"{stage.name} {stage.forget_name} at {stage.epochs} "
            f"epoch{'s' * (stage.epochs != 1)}: the member of seed")
    for seed in np.array(study.seeds)[failed]:
        study.run.warn(f"{what} {seed} failed (a loss or parameter was not finite); its values "
                       "are nan and no mean includes them")
    status, began = "reused", time.monotonic()
    if not study.store.complete("predictions", key):
        interrupt.leave_if_requested()  # earlier predictions are stored
        status = "computed"
        variables = models.variables()
        count = len(jax.tree.leaves(variables)[0])
        with study.store.write("predictions", key, parts) as directory:
            for split, rows in rows_of.items():
                found = np.stack(predict(predictor, variables, study.resident,
                                         [rows] * count, study.config.eval.batch_size))
                if models.combine:
                    found = models.combine(found)
                found[failed] = np.nan
                np.save(directory / f"{split}.npy", found)
    directory = study.store.path("predictions", key)
    outputs = {split: store.load_array(directory, f"{split}.npy") for split in rows_of}
    unusable = {split: results.unusable(values) for split, values in outputs.items()}
    overflowed = ~failed & np.any(list(unusable.values()), axis=0)
    for m in np.flatnonzero(overflowed):
        where = ", ".join(f"{counts[m]} of {len(rows_of[split])} {split} samples"
                          for split, counts in unusable.items() if counts[m])
        study.run.warn(f"{what} {study.seeds[m]} has finite weights, but its outputs are not "
                       f"finite, or too large to be averaged, on {where}: the network overflows"
                       f"{_largest(models, int(m))}. Its values are nan and no mean includes them")
        for values in outputs.values():
            values[m] = np.nan
    study.run.record_stage("predictions", forget_set.name, key, status, time.monotonic() - began,
                           len(study.seeds) * sum(len(r) for r in rows_of.values()),
                           len(study.seeds), stage.epochs)
    costs = {name: np.array(models.costs[name])
             for name in ("images", "seconds", "epochs_trained", "flops", "step")}
    return results.Outcome(
        method=stage.name, forget_set=forget_set.name, epochs=stage.epochs, stage=stage.key,
        seeds=study.seeds, outputs=outputs, images=costs["images"], seconds=costs["seconds"],
        epochs_trained=costs["epochs_trained"], failed=failed | overflowed, flops=costs["flops"],
        steps=costs["step"], from_seed=stage.from_seed, costed=not stage.outside)


def _largest(models: Models, m: int) -> str:
    """In words: the largest number in a model; '' for an ensemble, which has many models."""
    if models.combine:
        return ""
    leaves = jax.tree_util.tree_leaves_with_path(models.variables())
    size, path = max((float(np.abs(np.asarray(x[m])).max()),
                      jax.tree_util.keystr(path, simple=True, separator="/"))
                     for path, x in leaves)
    return f"; the largest number in the model is {size:.2g}, in {path}"


def predictions_key(study: RunContext, stage: Stage, forget_set: ForgetSet) -> str:
    """The store's key of the predictions of a stage's models on a forget set's splits."""
    return stage_key("predictions", _predictions_parts(study, stage, forget_set))


def _predictions_parts(study: RunContext, stage: Stage, forget_set: ForgetSet,
                       combined: str = "") -> dict[str, Any]:
    parts = {"model": stage.key, "forget": forget_parts(study, forget_set)}
    return {**parts, "combined": combined} if combined else parts


def split_rows(study: RunContext, forget_set: ForgetSet) -> dict[str, np.ndarray]:
    """Resident rows of each split that has samples."""
    splits = study.splits
    rows = {"test": splits.test, "forget": splits.forget(forget_set),
            "retain": splits.retain_train(forget_set),
            "validation": splits.retain_validation(forget_set), "stamped": study.stamped}
    return {name: r for name, r in rows.items() if len(r)}
