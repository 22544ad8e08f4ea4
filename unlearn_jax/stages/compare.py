"""A comparison: many methods at one budget, with equal searches; it measures the best trials.

Every trial is an ordinary stage of all seeds, with the key that a run of its method alone would
give it. So the store shares trials between runs, and one command repeats each result.

Trials of a method that differ in traced values (the learning rate, fractional options) are members
of one population, trained by one compiled program.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from unlearn_jax.config import variants
from unlearn_jax.data.splits import ForgetSet, judging_half
from unlearn_jax.engine import flops
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.predict import make_predictor, predict
from unlearn_jax.engine.recipe import epoch_batches
from unlearn_jax.errors import InputError
from unlearn_jax.methods import find_method
from unlearn_jax.methods.outside import Found
from unlearn_jax.results import SHORT
from unlearn_jax.stages.graph import (
    RunContext,
    Stage,
    Variant,
    forget_parts,
    make_member,
    unlearn_stages,
    with_epochs,
)
from unlearn_jax.stages.models import make_unlearning, train_missing, unlearn_missing
from unlearn_jax.stages.variants import unlearn_variants
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.storage.store import stage_key

TRIALS = "trials.csv"
TRIAL_COLUMNS = ("method", "forget_set", "trial", "learning_rate", "option", "strength", "epochs",
                 "validation_error", "limit", "within", "chosen", "images", "seconds", "flops",
                 "note", "stage", "command")
_COSTS = {"images": "images", "wall": "seconds", "flops": "flops"}


@dataclasses.dataclass(frozen=True)
class Contender:
    """A method of a comparison.

    Attributes:
      request: the method as the config names it.
      found: the method and its name.
      trials: from weak to strong.
      file: FILE:SCALE of the method's own config, for the commands.
    """

    request: str
    found: Found
    trials: tuple[variants.Trial, ...]
    file: str


def make_contenders(study: RunContext, config_file: str) -> list[Contender]:
    """The methods of `compare.methods` with their trials, each checked before any training.

    Args:
      study: of the comparison.
      config_file: FILE:SCALE of its config. The configs of the methods are in the same folder.

    Raises:
      InputError: a method refuses one of its trials, a config is missing, a forget set leaves
        too few validation samples to choose by, or the budget is FLOPs and they cannot be counted.
    """
    if study.config.compare.budget == "flops" and not flops.countable():
        raise InputError("config.compare.budget is 'flops', which jax counts on a CPU, and "
                         "JAX_PLATFORMS leaves that out: add ',cpu' to it, or take 'images' or "
                         "'wall'")
    for forget_set in study.splits.forget_sets:
        validation = study.splits.retain_validation(forget_set)
        if not len(judging_half(validation)):
            raise InputError(f"forget set {forget_set.name} leaves {len(validation)} validation "
                             "samples; a comparison needs two: one half for methods that train on "
                             "them, and one to choose by")
    contenders = []
    for request in study.config.compare.methods:
        found = find_method(request)
        file = variants.method_file(config_file, found)
        variants.load_config(file)
        trials = variants.make_trials(study.config, request)
        for trial in trials:
            make_unlearning(dataclasses.replace(study, config=trial.config))
        contenders.append(Contender(request, found, trials, file))
    return contenders


def run_comparison(study: RunContext, original: Stage, retrained: list[Stage],
                   contenders: list[Contender]) -> list[Stage]:
    """Runs every trial of every method and chooses; writes trials.csv.

    Args:
      study: of the comparison.
      original, retrained: finished.
      contenders: from `make_contenders`.

    Returns:
      The chosen stages, one per method and forget set; then short retraining, to which the report
      holds each method.
    """
    judge = _Judge(study)
    limits = {r.forget_name: judge.errors(original, r.required_forget_set) for r in retrained}
    chosen, rows = [], []
    at_the_end: dict[str, list[str]] = {}
    for number, contender in enumerate(contenders, 1):
        logging.info("comparison: %s, method %d of %d, %d trials", contender.found.name, number,
                     len(contenders), len(contender.trials))
        budgets = {r.forget_name: _budget(study, original, r, contender) for r in retrained}
        stages = _run_trials(study, original, contender, budgets)
        for retrain in retrained:
            name = retrain.forget_name
            mine = [by_set[name] for by_set in stages]
            selection = variants.select(
                np.stack([judge.errors(stage, retrain.required_forget_set)
                          for stage in mine]),
                # the error is limited by that of the M_O that the trial started from
                limits[name][mine[0].started(study.seeds)],
                study.config.compare.tolerance, study.dataset.num_classes > 0)
            chosen.append(mine[selection.chosen])
            rows += _rows(contender, budgets[name], mine, selection, study)
            _warn(study, contender, name, budgets[name], selection)
            if selection.at_the_end:
                at_the_end.setdefault(name, []).append(contender.found.name)
    for name, methods in at_the_end.items():
        study.run.warn(f"comparison: of {', '.join(methods)} on {name} the strongest trial kept "
                       "within the limit: stronger ones (compare.rates) might forget more")
    study.run.write_table(TRIALS, rows, TRIAL_COLUMNS)
    return [*chosen, *_retrain_short(study, retrained)]


def _retrain_short(study: RunContext, retrained: list[Stage]) -> list[Stage]:
    """Trains M_R's training cut to the budget, one stage per forget set.

    It starts where M_R and M_O started, with `train` as configured but for the number of epochs,
    over which the schedule of the learning rate runs.
    """
    stages = []
    for retrain in retrained:
        epochs = _short_epochs(study, retrain)
        config = study.config.copy_and_resolve_references()
        with config.unlocked():
            config.train.epochs = epochs
        own = dataclasses.replace(study, config=config)
        stages.append((own, Stage(SHORT, retrain.forget_set, epochs, {
            **retrain.parts, "train": {**retrain.parts["train"], "epochs": epochs}})))
    for epochs in sorted({stage.epochs for _, stage in stages}):
        group = [(own, stage) for own, stage in stages if stage.epochs == epochs]
        train_missing(group[0][0], [stage for _, stage in group])
    return [stage for _, stage in stages]


def _run_trials(study: RunContext, original: Stage, contender: Contender,
                budgets: dict[str, variants.Budget]) -> list[dict[str, Stage]]:
    """The finished stages of each trial, by forget set.

    The budget is part of the program, so the forget sets of each budget are trained apart.
    """
    stages: list[dict[str, Stage]] = [{} for _ in contender.trials]
    for epochs in sorted({b.epochs for b in budgets.values()}):
        forget_sets = [f for f in study.splits.forget_sets if budgets[f.name].epochs == epochs]
        wanted = []
        for by_set, trial in zip(stages, contender.trials):
            own = with_epochs(study, trial.config, (epochs,))
            group = [unlearn_stages(own, original, f)[0] for f in forget_sets]
            wanted.append(Variant(own, group, make_unlearning(own)))
            by_set |= {s.forget_name: s for s in group}
        unlearn_variants(wanted, original)
    return stages


def _short_epochs(study: RunContext, retrain: Stage) -> int:
    """The epochs of short retraining. A pass over D_r costs as much as one of M_R, in any unit."""
    whole = _cost(study, retrain, "images")
    if not whole > 0:
        return 1
    share = len(make_member(study, study.seeds[0], retrain.forget_set).retain) / whole
    return variants.fit_epochs(study.config.compare.fraction, 0.0, lambda epoch: share).epochs


def _budget(study: RunContext, original: Stage, retrain: Stage,
            contender: Contender) -> variants.Budget:
    """How many epochs a method gets on a forget set."""
    method, unit = contender.found.method, study.config.compare.budget
    least = 0 if method.make_step is None else 1
    whole = _cost(study, retrain, unit)
    if not whole > 0:
        return variants.Budget(least, f"retraining has no finite cost in {unit}, so that there is "
                                      "no budget" + "; one epoch" * least, True)
    if not least:
        # All trials prepare alike. The weakest one, which is run in any case, is measured.
        own = with_epochs(study, contender.trials[0].config, (0,))
        (probe,) = unlearn_stages(own, original, retrain.required_forget_set)
        unlearn_missing([Variant(own, [probe], make_unlearning(own))], original)
        return variants.no_epochs(study.config.compare.fraction, _cost(study, probe, unit) / whole)
    # The cost of the first epoch is measured on the method as configured. Its images are known.
    measured = (0, 1) if unit != "images" else (0,) if method.prepare else ()
    own = with_epochs(study, variants.method_config(study.config, contender.request),
                       measured or (1,))
    unlearning = make_unlearning(own)
    spent = [0.0]
    if measured:
        probes = unlearn_stages(own, original, retrain.required_forget_set)
        unlearn_missing([Variant(own, probes, unlearning)], original)
        spent = [_cost(study, probe, unit) for probe in probes]
    member = make_member(study, study.seeds[0], retrain.forget_set)

    def images(epoch: int) -> int:
        rows, _ = epoch_batches(member, contender.found.name, epoch, own.config.unlearn.batch_size,
                                lambda e: method.passes(unlearning.setting, e))
        return int((rows >= 0).sum())

    per_image = 1.0
    if unit != "images":
        # A coarse clock may measure no time. Then an image costs as much as an image of M_R.
        per_image = (spent[1] - spent[0]) / max(images(0), 1)
        if not per_image > 0:
            per_image = whole / _cost(study, retrain, "images")
    return variants.fit_epochs(study.config.compare.fraction, max(spent[0], 0) / whole,
                             lambda epoch: images(epoch) * per_image / whole)


def _cost(study: RunContext, stage: Stage, unit: str) -> float:
    """Cost of a model of a stage: mean over the seeds that did not fail; NaN if all failed."""
    metadata, _ = checkpoints.describe(stage.directory(study.store) / "checkpoint")
    good = ~np.array(metadata["failed"])
    return float(np.mean(np.array(metadata[_COSTS[unit]])[good])) if good.any() else np.nan


class _Judge:
    """Errors of stored stages on the half of D_r's validation samples that no method trains on.

    Each is computed once and kept in the store.
    """

    def __init__(self, study: RunContext) -> None:
        layout = make_layout(study.config.parallel, len(study.seeds))
        self._predictor = make_predictor(study.model, layout)
        self._study = dataclasses.replace(study, resident=Feed(layout, study.resident).data)

    def errors(self, stage: Stage, forget_set: ForgetSet) -> np.ndarray:
        """`[M]` mean losses, or 1 − accuracy; NaN for a member that failed."""
        study = self._study
        parts = {"model": stage.key, "forget": forget_parts(study, forget_set), "half": True}
        key = stage_key("validation", parts)
        rows = judging_half(study.splits.retain_validation(forget_set))
        if not study.store.complete("validation", key):
            with study.store.write("validation", key, parts) as directory:
                np.save(directory / "outputs.npy", self._outputs(stage, rows))
        outputs = store.load_array(study.store.path("validation", key), "outputs.npy")
        return validation_errors(study, outputs, study.dataset.labels[rows])

    def _outputs(self, stage: Stage, rows: np.ndarray) -> np.ndarray:
        began = time.monotonic()
        variables, metadata = checkpoints.restore(
            stage.directory(self._study.store) / "checkpoint")
        outputs = np.stack(predict(self._predictor, variables, self._study.resident,
                                   [rows] * len(self._study.seeds),
                                   self._study.config.eval.batch_size))
        outputs[np.array(metadata["failed"])] = np.nan
        logging.info("%s %s: validated in %.1f s", stage.method, stage.forget_name,
                     time.monotonic() - began)
        return outputs


def validation_errors(study: RunContext, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The errors `[M]` that choose between trials: mean loss in its unit, or 1 − accuracy.

    Args:
      study: for its loss and task.
      outputs: `[M, N]` label units, or logits `[M, N, C]`; NaN for a member that failed.
      labels: `[N]`.
    """
    if study.dataset.num_classes:
        wrong = (outputs.argmax(-1) != labels[None]).mean(1)
        return np.where(np.isfinite(outputs).all((1, 2)), wrong, np.nan)
    losses = jax.vmap(study.loss.per_sample, in_axes=(0, None))(
        jnp.asarray(outputs), jnp.asarray(labels))
    return np.asarray(losses, np.float64).mean(1)


def _rows(contender: Contender, budget: variants.Budget, stages: list[Stage],
          selection: variants.Selection, study: RunContext) -> list[dict]:
    """The rows of trials.csv of one method and forget set."""
    base, rows = variants.load_config(contender.file), []
    for i, (trial, stage) in enumerate(zip(contender.trials, stages)):
        config = with_epochs(study, trial.config, (stage.epochs,)).config
        with config.unlocked():
            config.forget.sets = (stage.required_forget_set.request,)
        workdir = f"runs/{stage.method}.{stage.forget_name}.{stage.key}"
        rows.append({
            "method": stage.method, "forget_set": stage.forget_name, "trial": i + 1,
            "learning_rate": trial.learning_rate,
            "option": trial.option, "strength": trial.strength, "epochs": stage.epochs,
            "validation_error": selection.errors[i], "limit": selection.limit,
            "within": bool(selection.within[i]), "chosen": i == selection.chosen,
            **{name: _cost(study, stage, unit) for unit, name in _COSTS.items()},
            "note": budget.note, "stage": stage.key,
            "command": variants.command(contender.file, base, config, workdir)})
    return rows


def _warn(study: RunContext, contender: Contender, forget_name: str, budget: variants.Budget,
          selection: variants.Selection) -> None:
    who = f"comparison: {contender.found.name} on {forget_name}"
    if budget.exceeded:
        study.run.warn(f"{who} {budget.note}")
    if not selection.within.any():
        study.run.warn(f"{who}: no trial keeps the validation error on D_r within "
                       f"{100 * study.config.compare.tolerance:g} % of M_O's; the one of lowest "
                       "error is taken")
