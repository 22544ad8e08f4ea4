"""Relearn time: how fast models learn the forget set again.

A model that still holds the forgotten data relearns it faster than one that never saw it. Every
unlearned model and M_R trains on D_f alone, in the same way; `metrics/relearn.py` turns the
curves into the anamnesis index (Chundawat et al. 2023, "Zero-Shot Machine Unlearning").
"""

import json
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.recipe import Recipe, Trained
from unlearn_jax.members import Member
from unlearn_jax.metrics.relearn import ain
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import Outcome
from unlearn_jax.stages.graph import RunContext, Stage, forget_parts
from unlearn_jax.stages.populations import Population, Started, train_and_store
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.train import make_train_step

_WITHIN = 0.05  # of M_O's forget loss, as in the source
# What `relearn_measures` gives: results that the relearning decides, and not the models alone.
MEASURES = ("relearn_epochs", "relearn_censored", "ain", "ain_low", "ain_high")


def relearn_losses(study: RunContext, stages: Sequence[Stage],
                   forget_set: ForgetSet) -> list[np.ndarray]:
    """Mean loss `[M, K]` of each stage on D_f after 1 to K epochs of training on D_f alone.

    Relearning that the store lacks is trained as one population.

    Args:
      study: what the run shares; `eval.relearn_epochs` is K, `eval.relearn_rate` the rate of the
        optimiser that M_O was trained with.
      stages: the stages of the models that relearn.
      forget_set: D_f. Training walks over its training samples and their copies. The loss is over
        the training samples alone, with the labels that models are trained with: M_O never trained
        on validation samples, so its outputs for them are no memory.

    Returns:
      In the loss's unit; NaN from the epoch in which a member failed.

    Raises:
      Interrupted: a signal asked for it.
    """
    models = {stage.key: stage for stage in stages}
    relearned = {key: relearn_stage(study, stage, forget_set) for key, stage in models.items()}
    train_and_store(study.store, list(relearned.values()),
                    lambda missing: _population(study, models, missing, forget_set),
                    lambda stage: _record(study, stage, "reused", 0.0))
    return [np.array(store.load_json(relearned[s.key].directory(study.store), "losses.json"))
            for s in stages]


def relearn_measures(study: RunContext, stages: Sequence[Stage],
                     outcomes: Sequence[Outcome]) -> list[dict[str, np.ndarray]]:
    """Relearn time of every stage on one forget set.

    Args:
      study: what the run shares.
      stages: M_O first, M_R last, the unlearned models between.
      outcomes: the predictions of the same stages for that forget set.

    Returns:
      For each stage metrics `[M]`; none for M_O. `relearn_epochs` is infinite if the loss did not
      come down in the epochs made; then `relearn_censored` is 1. Unlearned models have the bounds
      `ain_low` and `ain_high`, too, and `ain` if it is known for every member that has not failed:
      a mean over the known ones would describe the fast ones only.
    """
    forget_set = stages[-1].required_forget_set
    labels = jnp.asarray(study.trained_labels[forget_set.train])
    places = study.splits.trained_places(forget_set)

    def forget_loss(outcome: Outcome) -> np.ndarray:
        outputs = jnp.asarray(outcome.outputs["forget"][:, places])
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


def relearn_stage(study: RunContext, stage: Stage, forget_set: ForgetSet) -> Stage:
    """The relearning of a stage's models, as a stage of the store."""
    cfg, train = study.config.eval, study.config.train
    return Stage("relearn", forget_set, cfg.relearn_epochs, {
        "model": stage.key, "forget": forget_parts(study, forget_set),
        "epochs": cfg.relearn_epochs, "rate": cfg.relearn_rate, "optimizer": train.optimizer,
        "batch_size": train.batch_size, "loss_over": "training samples"})


def _record(study: RunContext, stage: Stage, status: str, seconds: float) -> None:
    walked = len(study.splits.forget_rows(stage.forget_set).source)
    study.run.record_stage(stage.method, stage.forget_name, stage.key, status, seconds,
                           len(study.seeds) * stage.epochs * walked, len(study.seeds), stage.epochs)


def _population(study: RunContext, models: Mapping[str, Stage], missing: Sequence[Stage],
                forget_set: ForgetSet) -> Population:
    """The relearning of some models, all missing.

    Args:
      study: what the run shares.
      models: by key, the stages of the models.
      missing: relearnings of some of them.
      forget_set: D_f.
    """
    cfg, train = study.config.eval, study.config.train
    settings = OptimizerSettings(train.optimizer, cfg.relearn_rate, "constant", 0.25, 0.0,
                                 train.momentum)
    optimizer = make_optimizer(settings)
    recipe = Recipe("relearn", make_train_step(study.model, optimizer, study.loss), optimizer,
                    settings, study.loss, cfg.relearn_epochs, train.batch_size, cfg.batch_size,
                    keep="last")
    keys = [stage.parts["model"] for stage in missing]
    walked = study.index(study.splits.forget_rows(forget_set))
    members = [Member(seed, forget_set.name, walked, forget_set.train, walked, key)
               for key in keys for seed in study.seeds]

    def store(trained: Trained, status: str, seconds: float) -> None:
        losses = {key: np.full((len(study.seeds), cfg.relearn_epochs), np.nan) for key in keys}
        for row in trained.history:
            losses[row["variant"]][study.seeds.index(row["seed"]), row["epoch"] - 1] = row[
                "validation_loss"]
        for key, stage in zip(keys, missing):
            with study.store.write(stage.method, stage.key, stage.parts) as directory:
                (directory / "losses.json").write_text(json.dumps(losses[key].tolist()))
            # All walk over equally many images, so they share the time equally.
            _record(study, stage, status, seconds / len(missing))

    def start(_: Layout) -> Started:
        starts = [checkpoints.restore(models[key].directory(study.store) / "checkpoint")[0]
                  for key in keys]
        return Started(jax.tree.map(lambda *x: np.concatenate([np.asarray(a) for a in x]),
                                    *starts), store)

    return Population(study, recipe, members,
                      f"{len(members)} members ({len(study.seeds)} seeds x {len(keys)} models), "
                      f"{cfg.relearn_epochs} epochs of {len(walked)} images", start)
