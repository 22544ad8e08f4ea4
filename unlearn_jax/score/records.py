"""Writes a work directory from a folder: results.csv, predictions, data.json, run.json."""

import dataclasses
import datetime
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from unlearn_jax import audits, results
from unlearn_jax.config import default_config
from unlearn_jax.config.label_units import in_label_units
from unlearn_jax.data.inject import InjectedGroup, Injection
from unlearn_jax.labels import find_class, find_range, histogram
from unlearn_jax.score.files import ScoreError
from unlearn_jax.score.folder import ModelId, ScoredSet
from unlearn_jax.stages.workdir import device, versions
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk
from unlearn_jax.system.cells import rows_text
from unlearn_jax.units import label_step

# The audits that a folder of files allows: the others need the list of changed samples.
AUDITS = ("mia", "lira", "challenge", "distances")
_COSTS = ("Predictions do not say what training cost: there are no times, images, FLOPs and steps, "
          "and no challenge score")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings for scoring predictions.

    Attributes:
      config: the whole config; only its sections `data` and `eval` are used.
      source: name of the data in the report.
      class_names: for classification, one for each logit; else ().
      data: data.json of the run that wrote the predictions; None: it is made from them.
    """

    config: ml_collections.ConfigDict
    source: str
    class_names: tuple[str, ...]
    data: dict[str, Any] | None = None


def make_config(sets: Sequence[ScoredSet], label_unit: str = "", **evaluation: Any,
                ) -> ml_collections.ConfigDict:
    """The default config with the range of these labels; α and tolerances follow from the range.

    Args:
      sets: as read.
      label_unit: for regression, such as 'years'.
      evaluation: values of the section `eval` that replace the defaults.

    Raises:
      ScoreError: an α, a tolerance or an audit cannot be used.
    """
    config = default_config()
    labels = [f.labels for s in sets for f in s.any_model.values()]
    classification = is_classification(sets)
    low, high = (float(edge(map(edge, labels))) for edge in (min, max))
    if not classification and not low < high:
        raise ScoreError(f"all labels are {low:g}\nallowed: at least two different labels")
    with config.unlocked():
        config.seeds = sets[0].seeds
        config.data.task = "classification" if classification else "regression"
        config.data.source, config.data.label_unit = "predictions", label_unit or "label"
        config.data.label_min, config.data.label_max = low, high
        config.eval.audits = AUDITS
    config = in_label_units(config, default_config())
    with config.unlocked():
        config.eval.update(evaluation)
    e = config.eval
    if e.alpha not in e.alphas and "alpha" not in evaluation:
        e.alpha = e.alphas[len(e.alphas) // 2]
    for key, values in (("--alphas", e.alphas), ("--alpha", (e.alpha,)), ("--within", e.within)):
        if not values or not all(0 < v < float("inf") for v in values):
            raise ScoreError(f"{key} is {', '.join(map(str, values))}\nallowed: numbers above 0")
    if e.alpha not in e.alphas:
        raise ScoreError(f"--alpha is {e.alpha:g}, and --alphas has {', '.join(map(str, e.alphas))}"
                         "\nallowed: one of these")
    for name in e.audits:
        if name not in AUDITS:
            raise ScoreError(f"--audits has {name!r}\nallowed: {', '.join(AUDITS)}")
    return config


def is_classification(sets: Sequence[ScoredSet]) -> bool:
    """Returns True if outputs are logits."""
    return sets[0].any_model["test"].outputs.ndim == 3


def write_scores(sets: Sequence[ScoredSet], settings: Settings, directory: Path, out: Path,
                 command: str) -> None:
    """Computes everything, then writes a work directory without its report.

    Args:
      sets: as read.
      settings: settings of the scoring.
      directory: folder that they were read from.
      out: the work directory; it is created.
      command: the command as typed, for the report.
    """
    began = time.monotonic()
    rows, notes = [], [] if settings.data else [_COSTS]
    for scored in sets:
        found, refused = _rows(scored, settings)
        rows += found
        notes += _notes(scored, settings) + audits.refusals_in_words(refused)
    data = settings.data or _data(sets, settings)
    run = {
        "config_name": f"scored {directory.name or directory.resolve().name}", "command": command,
        "config": _deciding(settings), "versions": versions(), "device": device(),
        "data_fingerprint": data["fingerprint"],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3), "finished": True, "stages": [],
        "scored": {"directory": str(directory),
                   "without": {s.name: [m for m in ("original", "retrain") if not s.of(m)]
                               for s in sets},
                   "training_known": bool(settings.data) or "retain" in sets[0].splits},
        "warnings": list(dict.fromkeys(notes))}
    with disk.temporary_directory(out.absolute()) as temp:  # half a directory looks complete
        (temp / "predictions").mkdir()
        for scored in sets:
            for (method, epochs), files in scored.models.items():
                for split, file in files.items():
                    arrays: dict[str, Any] = {
                        "outputs": file.outputs, "labels": file.labels, "ids": file.ids,
                        "seeds": np.array(file.seeds), **file.further}
                    disk.write_file(
                        temp / "predictions" / f"{method}.{scored.name}.{epochs}.{split}.npz",
                        functools.partial(np.savez, **arrays))
        disk.write_file(temp / "results.csv", rows_text(results.COLUMNS, rows))
        disk.write_file(temp / "data.json", json.dumps(data, indent=1) + "\n")
        disk.write_file(temp / "run.json", json.dumps(run, indent=1) + "\n")
        manifest.write(temp)
        disk.move_into_place(temp, out.absolute(), replace=out.exists())


def _deciding(settings: Settings) -> dict[str, Any]:
    """The config's keys that decide the scores, and those that decided the models, if known."""
    names = ("seeds", "eval") if settings.data is None else (
        "seeds", "data", "forget", "model", "train", "unlearn", "eval")
    config = settings.config.to_dict()
    return {name: config[name] for name in names}


def _rows(scored: ScoredSet, settings: Settings) -> tuple[list[dict[str, Any]], list]:
    """Rows of results.csv for a forget set, and the audits that could not be computed."""
    config = settings.config
    classification = config.data.task == "classification"
    targets = results.Targets({s: f.labels for s, f in scored.any_model.items()},
                              {s: f.ids for s, f in scored.any_model.items()})
    outcomes = [_outcome(scored, model) for model in scored.models]
    reference = outcomes[-1] if scored.of("retrain") else None
    rows = results.result_rows(outcomes[:-1] if reference else outcomes, reference, targets,
                               _baseline(scored, classification), config.eval, classification)
    members, others = _members(scored), _others(scored)
    step = 1.0 if classification else label_step(config.data)
    refused = []
    for outcome in outcomes:
        audit = audits.Audit(
            outcome=outcome, reference=reference, targets=targets, members=members, others=others,
            classification=classification, config=config.eval, injection=_injection(settings),
            step=step)
        found, why = audits.audit_rows(audit, config.eval.audits)
        rows += found
        refused += why
    return rows, refused


def _injection(settings: Settings) -> Injection | None:
    """The groups of `data.inject`, for a run's own predictions, without the list of their samples.
    """
    kind, *parts = settings.config.data.inject.split(":")
    if not kind:
        return None
    groups = []
    for part in parts[:-1]:
        number = find_class(part, settings.class_names)
        bounds = (number, number) if number is not None else find_range(part)
        if bounds is None:
            raise ScoreError(f"config.data.inject={settings.config.data.inject!r} names the group "
                             f"{part!r}\nallowed: a class of the run, or a range of labels")
        groups.append(InjectedGroup(*bounds))
    nothing = np.zeros(0, np.int32)
    return Injection(kind, tuple(groups), nothing, nothing)


def _outcome(scored: ScoredSet, model: ModelId) -> results.Outcome:
    files = scored.models[model]
    failed = files["test"].failed
    unknown = np.full(len(scored.seeds), np.nan)
    (from_seed,) = files["test"].further.get("from_seed", [-1])
    return results.Outcome(
        method=model[0], forget_set=scored.name, epochs=model[1], stage="", seeds=scored.seeds,
        outputs={split: file.outputs for split, file in files.items()}, images=unknown,
        seconds=unknown, epochs_trained=unknown, failed=failed, flops=unknown, steps=unknown,
        from_seed=int(from_seed), costed=False)


def _baseline(scored: ScoredSet, classification: bool) -> float | int | None:
    """The training set's median label or most frequent class; None if it is not known."""
    if "retain" not in scored.splits:
        return None
    forget = scored.any_model["forget"].labels[scored.trained_places()]
    labels = np.concatenate([scored.any_model["retain"].labels, forget])
    return int(np.bincount(labels).argmax()) if classification else float(np.median(labels))


def _members(scored: ScoredSet) -> audits.AuditedSamples:
    places = scored.trained_places()
    labels = scored.any_model["forget"].labels
    if (file := scored.first_with("forget", "trained_labels")) is not None:
        labels = file.further["trained_labels"]
    return audits.AuditedSamples("forget", places, labels[places])


def _others(scored: ScoredSet) -> audits.AuditedSamples:
    """The samples that no model has seen; attacks compare D_f with them."""
    for split in ("stamped", "test"):
        if (file := scored.first_with(split, "peers")) is not None:
            peers = file.further["peers"]
            return audits.AuditedSamples(split, peers, file.further.get("peer_labels",
                                                                        file.labels[peers]))
    labels, unseen = scored.any_model["test"].labels, _unseen(scored)
    own = _members(scored).labels
    if labels.dtype.kind == "i":
        alike = np.isin(labels, own)
    else:
        alike = (labels >= own.min()) & (labels <= own.max())
    places = np.flatnonzero(unseen & alike) if (unseen & alike).any() else np.flatnonzero(unseen)
    return audits.AuditedSamples("test", places, labels[places])


def _unseen(scored: ScoredSet) -> np.ndarray:
    member = scored.member("test")
    if member is None:
        return np.ones(len(scored.any_model["test"].labels), bool)
    return member == results.UNSEEN


def _notes(scored: ScoredSet, settings: Settings) -> list[str]:
    """Warnings for the reader, and statements that the files do not allow."""
    lead, notes = f"forget set {scored.name}: ", []
    if not scored.of("original"):
        notes.append("there is no M_O (method 'original'), so it is not said how far a method "
                     "moved, nor whether there was anything to forget")
    if not scored.of("retrain"):
        notes.append("there is no M_R (method 'retrain'), so there are no Forgetting, ceiling, "
                     "utility, share of the gap, likelihood-ratio attack, challenge quality and "
                     "distances; MIA values have no reference")
    if "retain" not in scored.splits:
        notes.append("there are no predictions on 'retain', so the training set is not known: no "
                     "error on D_r, no baseline, no challenge score")
    if len(scored.seeds) == 1:
        notes.append("there is one seed, so there are no intervals, no ceiling, no Forgetting "
                     "across seeds, and nothing is established")
    member = scored.member("forget")
    if member is None:
        notes.append("no file has the array 'member', so attacks take all samples of D_f for "
                     "samples that were trained on")
    elif differs := int(np.sum(member == -1)):
        notes.append(f"{differs} samples of D_f were trained on in some seeds alone; attacks leave "
                     "them out")
    if not any(scored.first_with(s, "peers") for s in ("test", "stamped")):
        what = ("the classes of D_f" if settings.config.data.task == "classification"
                else "labels within D_f's range")
        count = len(_others(scored).places)
        notes.append(f"no file has the array 'peers', so attacks compare D_f with the {count} test "
                     f"samples that have {what}, or with all where there are none")
    for (method, epochs), files in scored.models.items():
        for seed in np.array(scored.seeds)[files["test"].failed]:
            notes.append(f"{method} at {epochs} epochs: all outputs of seed {seed} are nan; no "
                         "mean includes them")
    return [lead + note for note in notes]


def _data(sets: Sequence[ScoredSet], settings: Settings) -> dict[str, Any]:
    """data.json, as far as it follows from predictions."""
    first = sets[0].any_model
    places = sets[0].trained_places()
    parts = {"train": [first["forget"].labels[places], *(first[s].labels for s in ("retain",)
                                                         if s in first)],
             "validation": [np.delete(first["forget"].labels, places),
                            *(first[s].labels for s in ("validation",) if s in first)],
             "test": [first["test"].labels]}
    labels = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    known = [name for name in labels if len(labels[name])
             and (name != "train" or "retain" in first)]
    entries = {s.name: {"request": _request(s, settings), "train": len(s.trained_places()),
                        "validation": len(s.any_model["forget"].labels) - len(s.trained_places()),
                        "peers": len(_others(s).places)}
               for s in sets}
    return {
        "source": settings.source, "fingerprint": _fingerprint(sets),
        "task": settings.config.data.task,
        "label_unit": ("class" if settings.class_names else settings.config.data.label_unit),
        "num_classes": len(settings.class_names), "class_names": list(settings.class_names),
        "counts": {name: len(values) for name, values in labels.items()},
        "histograms": {name: histogram(labels[name]) for name in known},
        "forget_sets": entries, "dropped_reasons": {}}


def _request(scored: ScoredSet, settings: Settings) -> str:
    """The request for D_f, if it follows from the labels or the name of D_f; else its name."""
    labels = np.unique(scored.any_model["forget"].labels)
    if settings.class_names and len(labels) == 1:
        return f"class:{settings.class_names[int(labels[0])]}"
    bounds = find_range(scored.name)
    fits = bounds and bounds[0] <= labels.min() and labels.max() <= bounds[1]
    return scored.name if fits or not bounds else f"name:{scored.name}"


def _fingerprint(sets: Sequence[ScoredSet]) -> str:
    """Hash of ids and labels."""
    digest = hashlib.blake2b(digest_size=8)
    for scored in sets:
        for split, file in scored.any_model.items():
            digest.update(f"{scored.name}/{split}\n".encode())
            digest.update("\n".join(file.ids.tolist()).encode())
            digest.update(np.asarray(file.labels, np.float32).tobytes())
    return digest.hexdigest()
