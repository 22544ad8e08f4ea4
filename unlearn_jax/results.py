"""From saved predictions to the rows of results.csv. No model, no training."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from unlearn_jax.metrics import catalogue
from unlearn_jax.metrics import errors as metrics
from unlearn_jax.system import disk

COLUMNS = ("method", "forget_set", "epochs", "seed", "metric", "value", "stage")
# The array `member` of a file of predictions: what the models have seen of a sample.
UNSEEN, TRAINED, VALIDATED = 0, 1, 2
SHORT = "retrain_short"  # in a comparison: M_R's training, for no longer than a method's budget
WITHOUT_FORGET = ("retrain", SHORT, "sisa")  # methods whose models never trained on D_f


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Predictions and costs of the members of one method, at one budget and on one forget set.

    Attributes:
      method, forget_set, epochs: which method, forget set and budget.
      stage: key of the stage that made the models.
      seeds: `[M]`.
      outputs: by split, `[M, N]` label units or logits `[M, N, C]`; NaN where a member failed.
      images: `[M]` samples trained on.
      seconds: `[M]` wall seconds, the member's share of its population, without compilation.
      epochs_trained: `[M]` epochs behind the kept variables.
      failed: `[M]` bool; such a member has no values, costs included.
      flops: `[M]` floating-point operations of preparation and steps.
      steps: `[M]` updates of the weights, those of models trained in preparation included.
      measures: further metrics `[M]` that the training yields, by name.
      from_seed: all members started from the M_O of this seed; -1: each from that of its own seed.
      costed: whether the costs are known; predictions alone say nothing of them, nor do models
        from a file, and then there are no rows of them.
    """

    method: str
    forget_set: str
    epochs: int
    stage: str
    seeds: tuple[int, ...]
    outputs: dict[str, np.ndarray]
    images: np.ndarray
    seconds: np.ndarray
    epochs_trained: np.ndarray
    failed: np.ndarray
    flops: np.ndarray
    steps: np.ndarray
    measures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    from_seed: int = -1
    costed: bool = True

    @property
    def started(self) -> np.ndarray:
        """`[M]` the position of the seed whose M_O each member started from."""
        return started(self.seeds, self.from_seed)


def started(seeds: tuple[int, ...], from_seed: int) -> np.ndarray:
    """`[M]` the position of the seed whose M_O each member started from; -1: its own."""
    if from_seed < 0:
        return np.arange(len(seeds))
    return np.full(len(seeds), seeds.index(from_seed))


def unusable(outputs: np.ndarray) -> np.ndarray:
    """`[M]`: the number of samples with an output that metrics cannot use.

    Such an output is not finite, or so large that the sum of the errors over all samples is not.

    Args:
      outputs: `[M, N]` label units, or logits `[M, N, C]`.
    """
    most = np.finfo(np.float32).max / outputs.shape[1]
    with np.errstate(invalid="ignore"):
        return (~(np.abs(outputs) < most)).reshape(*outputs.shape[:2], -1).any(2).sum(1)


@dataclasses.dataclass(frozen=True)
class Targets:
    """The samples of a forget set's splits.

    Attributes:
      labels: by split, `[N]` label units or classes.
      ids: by split, `[N]` strings.
      further: by split, further arrays of its files of predictions: `member` and what attacks
        take besides (docs/score.md).
    """

    labels: dict[str, np.ndarray]
    ids: dict[str, np.ndarray]
    further: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)


def save_predictions(directory: Path, outcome: Outcome, targets: Targets) -> None:
    """Writes METHOD.FORGETSET.BUDGET.SPLIT.npz for each split."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, outputs in outcome.outputs.items():
        name = f"{outcome.method}.{outcome.forget_set}.{outcome.epochs}.{split}.npz"
        further: dict[str, Any] = dict(targets.further.get(split, {}))
        if outcome.from_seed >= 0:
            further["from_seed"] = np.array(outcome.from_seed)
        if split == "forget" and "member" in further and outcome.method in WITHOUT_FORGET:
            further["member"] = np.full_like(further["member"], UNSEEN)
        disk.write_file(directory / name, functools.partial(
            np.savez, outputs=outputs, labels=targets.labels[split], ids=targets.ids[split],
            seeds=np.array(outcome.seeds), **further))


def result_rows(outcomes: Iterable[Outcome], reference: Outcome | None, targets: Targets,
                baseline: float | int | None, cfg: ml_collections.ConfigDict,
                classification: bool) -> list[dict[str, Any]]:
    """The rows of one forget set.

    Args:
      outcomes: original and unlearned models, each with the seeds of the reference; at least one
        where there is no reference.
      reference: M_R; None: there is none, and no row of what compares with it. Then there are rows
        of what compares with M_O.
      targets: labels by split.
      baseline: the training set's median label, or most frequent class; None: it is not known.
      cfg: the section `eval` of the config.
      classification: whether outputs are logits.

    Returns:
      One dict per value, with the columns of results.csv.
    """
    rows, models = [], (*outcomes, *((reference,) if reference else ()))
    original = None if reference else next((o for o in models if o.method == "original"), None)
    mean_reference, mean_original = (_average(o, classification) if o else None
                                     for o in (reference, original))
    for outcome in models:
        rows += _rows(outcome, _values(outcome, reference, original, targets, cfg, classification))
        averaged = _average(outcome, classification)
        values = _values(averaged, mean_reference, mean_original, targets, cfg, classification)
        rows += _rows(averaged, ((catalogue.AVERAGED + name, value) for name, value in values
                                 if catalogue.is_averaged(name)))
    if baseline is not None:
        rows += _rows(dataclasses.replace(models[-1], method="median", epochs=0, stage=""),
                      _baseline_values(models[-1], targets, baseline, cfg, classification))
    return rows


def uncounted(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Methods with members whose FLOPs are NaN though they have not failed."""
    unknown, alive = {}, set()
    for r in rows:
        member = r["method"], r["forget_set"], r["epochs"], r["seed"]
        if r["metric"] == "flops" and math.isnan(r["value"]):
            unknown[member] = r["method"]
        elif r["metric"] == "images" and not math.isnan(r["value"]):
            alive.add(member)
    return list(dict.fromkeys(name for member, name in unknown.items() if member in alive))


def _rows(outcome: Outcome, values: Iterable[tuple[str, np.ndarray]]) -> list[dict[str, Any]]:
    return [{"method": outcome.method, "forget_set": outcome.forget_set,
             "epochs": outcome.epochs, "seed": seed, "metric": metric, "value": float(value),
             "stage": outcome.stage}
            for metric, value_M in values
            for seed, value in zip(outcome.seeds, np.asarray(value_M), strict=True)]


def _values(outcome: Outcome, reference: Outcome | None, original: Outcome | None,
            targets: Targets, cfg: ml_collections.ConfigDict, classification: bool,
            ) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of a metric and its values `[M]`, for one outcome.

    `original` is M_O, for what compares with it; None: nothing does.
    """
    for split, outputs in outcome.outputs.items():
        yield from _split_values(split, outputs, targets.labels[split], cfg, classification)
    if reference is not None:
        yield from _against(outcome, reference, targets, cfg, classification)
    if original is not None and outcome.method != "original":
        yield from _against_original(outcome, original, targets, classification)
    if outcome.costed:
        yield from _costs(outcome, reference)
    for name, measure in outcome.measures.items():
        yield name, np.where(outcome.failed, np.nan, measure)


def _against(outcome: Outcome, reference: Outcome, targets: Targets,
             cfg: ml_collections.ConfigDict, classification: bool,
             ) -> Iterator[tuple[str, np.ndarray]]:
    """(metric, `[M]`) of what compares predictions with those of M_R."""
    is_reference = outcome.method == reference.method
    utility = _utility(outcome, reference, np.arange(len(reference.seeds)), targets, classification)
    yield "utility", utility
    alphas = jnp.array(cfg.alphas, jnp.float32)
    value: Any  # JAX's `[M]`, which `_rows` makes NumPy's
    mine, theirs = (_errors(o.outputs["forget"], targets.labels["forget"], classification)
                    for o in (outcome, reference))
    apart = len(theirs) > 1 and not _is_one_model(reference)
    if not is_reference:
        for alpha, value in zip(cfg.alphas, metrics.forgetting(theirs, mine, alphas)):
            yield f"forgetting@{alpha:g}", value
            yield f"F@{alpha:g}", value * utility
        if apart:
            across = metrics.forgetting_across(theirs, mine, alphas, outcome.started)
            for alpha, value in zip(cfg.alphas, across):
                yield f"forgetting_across@{alpha:g}", value
    elif apart:
        for alpha, value in zip(cfg.alphas, metrics.retrain_ceiling(theirs, alphas)):
            yield f"ceiling@{alpha:g}", value


def _is_one_model(outcome: Outcome) -> bool:
    """Whether all seeds have the same outputs: then they are one model, read from one file."""
    return all((outputs == outputs[:1]).all() for outputs in outcome.outputs.values())


def _utility(outcome: Outcome, ideal: Outcome, which: np.ndarray, targets: Targets,
             classification: bool) -> Any:
    """`[M]` on the test set: above 1 is better than the members `which` `[M]` of the other models.
    """
    mine, theirs = (_utility_base(o, targets, classification) for o in (outcome, ideal))
    # Accuracy is better when higher, MAE when lower.
    return metrics.utility(mine, theirs[which]) if classification else metrics.utility(
        theirs[which], mine)


def _against_original(outcome: Outcome, original: Outcome, targets: Targets,
                      classification: bool) -> Iterator[tuple[str, np.ndarray]]:
    """(metric, `[M]`) of what compares predictions with those of the M_O that they started from."""
    started = outcome.started
    yield "utility_vs_original", _utility(outcome, original, started, targets, classification)
    for split, outputs in outcome.outputs.items():
        if split == "stamped":
            continue
        change = metrics.output_distance(outputs, original.outputs[split][started])
        yield f"change_{split}", np.asarray(change)


def _costs(outcome: Outcome, reference: Outcome | None) -> Iterator[tuple[str, np.ndarray]]:
    costs = _costs_by_name(outcome)
    yield from costs.items()
    yield "epochs_trained", np.where(outcome.failed, np.nan, outcome.epochs_trained)
    if outcome.method != "original" and reference is not None and reference.costed:
        ideal_costs = _costs_by_name(reference)
        for name, cost in costs.items():
            yield f"{name.removesuffix('_seconds')}_vs_retrain", cost / ideal_costs[name]


def _costs_by_name(o: Outcome) -> dict[str, np.ndarray]:
    return {name: np.where(o.failed, np.nan, cost) for name, cost in (
        ("images", o.images), ("wall_seconds", o.seconds), ("flops", _counted(o)),
        ("steps", o.steps))}


def _counted(outcome: Outcome) -> np.ndarray:
    """FLOPs `[M]`; NaN where none were counted: earlier versions wrote 0 for them on a GPU."""
    return np.where((outcome.flops == 0) & (outcome.images > 0), np.nan, outcome.flops)


def _split_values(split: str, outputs, labels, cfg, classification):
    yield from metrics.split_values(split, outputs, labels,
                                    "classification" if classification else "regression")
    if not classification:
        error = metrics.absolute_errors(outputs, labels)
        for within in cfg.within:
            yield f"accuracy_{split}@{within:g}", metrics.accuracy_within(error, within)


def _errors(outputs, labels, classification: bool):
    return (metrics.class_errors if classification else metrics.absolute_errors)(outputs, labels)


def _utility_base(outcome: Outcome, targets: Targets, classification: bool):
    outputs, labels = outcome.outputs["test"], targets.labels["test"]
    return (metrics.accuracy if classification else metrics.mae)(outputs, labels)


def _average(outcome: Outcome, classification: bool) -> Outcome:
    """One member whose prediction is the mean over the seeds, failed seeds left out."""
    averaged = {}
    for split, outputs in outcome.outputs.items():
        good = np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
        if not good.any():
            averaged[split] = outputs[:1]
        elif classification:
            shifted = outputs[good] - outputs[good].max(-1, keepdims=True)
            p = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
            averaged[split] = np.log(np.maximum(p.mean(0, keepdims=True), 1e-30))
        else:
            averaged[split] = outputs[good].mean(0, keepdims=True)
    return dataclasses.replace(outcome, seeds=(catalogue.NO_SEED,), outputs=averaged,
                               images=outcome.images[:1], seconds=outcome.seconds[:1],
                               epochs_trained=outcome.epochs_trained[:1],
                               failed=outcome.failed[:1], flops=outcome.flops[:1],
                               steps=outcome.steps[:1], measures={}, from_seed=-1)


def _baseline_values(reference: Outcome, targets: Targets, baseline, cfg, classification):
    """The values of a model that always predicts the median, or the most frequent class."""
    members = len(reference.seeds)
    for split, outputs in reference.outputs.items():
        constant = np.zeros((members, *outputs.shape[1:]), np.float32)
        if classification:
            constant[..., int(baseline)] = 1.0
        else:
            constant[...] = baseline
        for name, value in _split_values(split, constant, targets.labels[split], cfg,
                                         classification):
            if not name.startswith("error"):
                yield name, value
