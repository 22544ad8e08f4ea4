"""Relearn time: how fast models take the forget set up again.

A model that still holds the forgotten data relearns it faster than one that never saw it. Every
unlearned model and M_R trains on D_f alone, in the same way; `metrics/relearn.py` turns the
curves into the anamnesis index (Chundawat et al. 2023, "Zero-Shot Machine Unlearning").
"""

import json
import time
from collections.abc import Sequence

import jax
import numpy as np

from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.engine.recipe import Recipe
from unlearn_jax.engine.run import train_population
from unlearn_jax.members import Member
from unlearn_jax.metrics.relearn import ain
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import Outcome
from unlearn_jax.stages.graph import Stage, Study, forget_parts
from unlearn_jax.stages.populations import missing_of
from unlearn_jax.stages.progress import CheckpointSaver
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.system import interrupt
from unlearn_jax.train import make_train_step

_WITHIN = 0.05  # of M_O's forget loss, as in the source
# What `relearn_measures` gives: results that the relearning decides, and not the models alone.
MEASURES = ("relearn_epochs", "relearn_censored", "ain", "ain_low", "ain_high")


def relearn_losses(study: Study, stages: Sequence[Stage],
                   forget_set: ForgetSet) -> list[np.ndarray]:
    """Mean loss `[M, K]` of each stage on D_f after 1 to K epochs of training on D_f alone.

    What the store lacks is trained as one population.

    Args:
      study: what the run shares; `eval.relearn_epochs` is K, `eval.relearn_rate` the rate of the
        optimiser that M_O was trained with.
      stages: whose models relearn.
      forget_set: D_f. Training walks over its training samples and their copies; the loss is over
        the training samples alone, with the labels that models are trained on, as what M_O made of
        validation samples is no memory.

    Returns:
      In the loss's unit, NaN from where a member failed.

    Raises:
      Interrupted: a signal asked for it.
    """
    relearned = {stage.key: relearn_stage(study, stage, forget_set) for stage in stages}
    rest = list(relearned.values())
    while rest:
        with missing_of(study.store, rest) as (missing, busy):
            for stage in rest:
                if stage not in missing and stage not in busy:
                    _record(study, stage, "reused", 0.0)
            rest = busy
            if missing:
                interrupt.leave_if_requested()
                starts = {s.parts["model"]: s for s in missing}
                status, seconds = _train(study, {s.key: s for s in stages if s.key in starts},
                                         starts, forget_set)
                for stage in missing:  # all walk over as many images
                    _record(study, stage, status, seconds / len(missing))
    return [np.array(store.load_json(relearned[s.key].directory(study.store), "losses.json"))
            for s in stages]


def relearn_measures(study: Study, stages: Sequence[Stage],
                     outcomes: Sequence[Outcome]) -> list[dict[str, np.ndarray]]:
    """Relearn time of every stage on one forget set.

    Args:
      study: what the run shares.
      stages: M_O first, M_R last, the unlearned models between.
      outcomes: of the same, on that forget set.

    Returns:
      For each stage metrics `[M]`: nothing for M_O; `relearn_epochs`, infinite where the loss did
      not come down in the epochs made, and `relearn_censored`, 1 there; but for M_R the bounds
      `ain_low` and `ain_high`, and `ain` where it is known for every member that has not failed:
      the mean of those that are known would be of the fast ones only.
    """
    forget_set = stages[-1].forget_set
    labels = study.trained_labels[forget_set.train]
    places = study.splits.trained_places(forget_set)

    def forget_loss(outcome: Outcome) -> np.ndarray:
        outputs = outcome.outputs["forget"][:, places]
        return np.asarray(jax.vmap(study.loss.per_sample, (0, None))(outputs, labels).mean(1))

    original = forget_loss(outcomes[0])
    curves = [np.concatenate([forget_loss(outcome)[:, None], later], axis=1) for outcome, later in
              zip(outcomes[1:], relearn_losses(study, stages[1:], forget_set))]
    return [{}, *(_measures(curve, curves[-1], original[outcome.started])
                  for curve, outcome in zip(curves[:-1], outcomes[1:])),
            {k: v for k, v in _measures(curves[-1], curves[-1], original).items()
             if k.startswith("relearn")}]


def _measures(mine: np.ndarray, reference: np.ndarray,
              original: np.ndarray) -> dict[str, np.ndarray]:
    index = ain(mine, reference, original, _WITHIN)
    epochs, low, high = (np.asarray(x) for x in (index.unlearned_steps, index.low, index.high))
    censored = np.where(np.isnan(epochs), np.nan, np.isinf(epochs))
    found = {"relearn_epochs": epochs, "relearn_censored": censored, "ain_low": low,
             "ain_high": high}
    known = np.isnan(low) | (low == high)
    return {**found, "ain": np.asarray(index.value)} if known.all() else found


def relearn_stage(study: Study, stage: Stage, forget_set: ForgetSet) -> Stage:
    """The relearning of a stage's models, as the store knows it."""
    cfg, train = study.config.eval, study.config.train
    return Stage("relearn", forget_set, cfg.relearn_epochs, {
        "model": stage.key, "forget": forget_parts(study, forget_set),
        "epochs": cfg.relearn_epochs, "rate": cfg.relearn_rate, "optimizer": train.optimizer,
        "batch_size": train.batch_size, "loss_over": "training samples"})


def _record(study: Study, stage: Stage, status: str, seconds: float) -> None:
    walked = len(study.splits.forget_rows(stage.forget_set).source)
    study.run.record_stage(stage.method, stage.forget_name, stage.key, status, seconds,
                           len(study.seeds) * stage.epochs * walked, len(study.seeds), stage.epochs)


def _train(study: Study, stages: dict[str, Stage], missing: dict[str, Stage],
           forget_set: ForgetSet) -> tuple[str, float]:
    """Trains the models of some stages and stores their losses; both by the key of the models.

    Returns:
      `computed` or `resumed`, and wall seconds of all together in this process, without
      compilation.
    """
    cfg, train = study.config.eval, study.config.train
    settings = OptimizerSettings(train.optimizer, cfg.relearn_rate, "constant", 0.25, 0.0,
                                 train.momentum)
    optimizer = make_optimizer(settings)
    recipe = Recipe("relearn", make_train_step(study.model, optimizer, study.loss), optimizer,
                    settings, study.loss, cfg.relearn_epochs, train.batch_size, cfg.batch_size,
                    keep="last")
    walked = study.index(study.splits.forget_rows(forget_set))
    members = [Member(seed, forget_set.name, walked, forget_set.train, walked, key)
               for key in missing for seed in study.seeds]
    starts = [checkpoints.restore(stages[key].directory(study.store) / "checkpoint")[0]
              for key in missing]
    variables = jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x]), *starts)
    saver = CheckpointSaver(study.store, recipe, list(missing.values()),
                            train.checkpoint_seconds)
    began = time.monotonic()
    trained = train_population(recipe, study.model,
                               make_layout(study.config.parallel, len(members)), study.resident,
                               members, variables, saver, study.bar)
    seconds = time.monotonic() - began - trained.compile_seconds
    losses = {key: np.full((len(study.seeds), cfg.relearn_epochs), np.nan) for key in missing}
    for row in trained.history:
        losses[row["variant"]][study.seeds.index(row["seed"]), row["epoch"] - 1] = row[
            "validation_loss"]
    for key, stage in missing.items():
        with study.store.write(stage.method, stage.key, stage.parts) as directory:
            (directory / "losses.json").write_text(json.dumps(losses[key].tolist()))
    saver.finish()
    study.run.record_start(recipe.name, trained.compile_seconds, trained.first_step_seconds)
    return "resumed" if saver.resumed else "computed", seconds
