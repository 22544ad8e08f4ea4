"""Relearn time: how fast models take the forget set up again.

A model that still holds the forgotten data relearns it faster than one that never saw it. Every
unlearned model and M_R trains on D_f alone, in the same way; `metrics/relearn.py` turns the
curves into the anamnesis index (Chundawat et al. 2023, "Zero-Shot Machine Unlearning").
"""

import json
from collections.abc import Sequence

import jax
import numpy as np

from unlearn_jax import checkpoints
from unlearn_jax.engine import train_population
from unlearn_jax.layout import make_layout
from unlearn_jax.metrics.relearn import ain
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.population import Member, Recipe
from unlearn_jax.results import Outcome
from unlearn_jax.splits import ForgetSet
from unlearn_jax.stages.graph import Stage, Study, forget_parts
from unlearn_jax.store import stage_key
from unlearn_jax.train import make_train_step

_WITHIN = 0.05  # of M_O's forget loss, as in the source


def relearn_losses(study: Study, stage: Stage, forget_set: ForgetSet) -> np.ndarray:
    """Mean loss `[M, K]` on D_f after 1 to K epochs of training on D_f alone.

    Args:
      study: what the run shares; `eval.relearn_epochs` is K, `eval.relearn_rate` the rate of the
        optimiser that M_O was trained with.
      stage: whose models relearn.
      forget_set: D_f. Training walks over its training samples and their copies; the loss is over
        its training and validation samples, as in the predictions of split `forget`.

    Returns:
      In the loss's unit, NaN from where a member failed.
    """
    cfg = study.config.eval
    parts = {"model": stage.key, "forget": forget_parts(study, forget_set),
             "epochs": cfg.relearn_epochs, "rate": cfg.relearn_rate,
             "optimizer": study.config.train.optimizer,
             "batch_size": study.config.train.batch_size}
    key = stage_key("relearn", parts)
    if not study.store.complete("relearn", key):
        losses = _train(study, stage, forget_set)
        with study.store.write("relearn", key, parts) as directory:
            (directory / "losses.json").write_text(json.dumps(losses.tolist()))
    return np.array(json.loads((study.store.path("relearn", key) / "losses.json").read_text()))


def relearn_measures(study: Study, stages: Sequence[Stage],
                     outcomes: Sequence[Outcome]) -> list[dict[str, np.ndarray]]:
    """Relearn time of every stage on one forget set.

    Args:
      study: what the run shares.
      stages: M_O first, M_R last, the unlearned models between.
      outcomes: of the same, on that forget set.

    Returns:
      For each stage metrics `[M]`: nothing for M_O, `relearn_epochs`, and `ain` but for M_R.
    """
    labels = study.dataset.labels[study.splits.forget(stages[-1].forget_set)]

    def forget_loss(outcome: Outcome) -> np.ndarray:
        outputs = outcome.outputs["forget"]
        return np.asarray(jax.vmap(study.loss.per_sample, (0, None))(outputs, labels).mean(1))

    def curve(stage: Stage, outcome: Outcome) -> np.ndarray:
        later = relearn_losses(study, stage, stages[-1].forget_set)
        return np.concatenate([forget_loss(outcome)[:, None], later], axis=1)

    original, reference = forget_loss(outcomes[0]), curve(stages[-1], outcomes[-1])
    found: list[dict[str, np.ndarray]] = [{}]
    for stage, outcome in zip(stages[1:], outcomes[1:]):
        mine = reference if stage is stages[-1] else curve(stage, outcome)
        index = ain(mine, reference, original, _WITHIN)
        found.append({"relearn_epochs": np.asarray(index.unlearned_steps)})
        if stage is not stages[-1]:
            found[-1]["ain"] = np.asarray(index.value)
    return found


def _train(study: Study, stage: Stage, forget_set: ForgetSet) -> np.ndarray:
    cfg, train = study.config.eval, study.config.train
    settings = OptimizerSettings(train.optimizer, cfg.relearn_rate, "constant", 0.25, 0.0,
                                 train.momentum)
    optimizer = make_optimizer(settings)
    recipe = Recipe("relearn", make_train_step(study.model, optimizer, study.loss), optimizer,
                    settings, study.loss, cfg.relearn_epochs, train.batch_size, cfg.batch_size,
                    keep="last")
    walked = study.index(study.splits.forget_rows(forget_set))
    members = [Member(seed, forget_set.name, walked, study.splits.forget(forget_set), walked)
               for seed in study.seeds]
    variables, _ = checkpoints.restore(stage.directory(study.store) / "checkpoint")
    variables = jax.tree.map(np.asarray, variables)
    trained = train_population(recipe, study.model, make_layout(study.config.parallel,
                                                                len(members)),
                               study.resident, members, variables)
    losses = np.full((len(members), cfg.relearn_epochs), np.nan)
    for row in trained.history:
        losses[study.seeds.index(row["seed"]), row["epoch"] - 1] = row["validation_loss"]
    return losses
