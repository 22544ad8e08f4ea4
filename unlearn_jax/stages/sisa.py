"""SISA as stages of the store: trains, keeps a checkpoint before each slice, deletes.

    sisa_original/KEY   the constituents of all seeds and shards after one slice
    sisa/KEY            those that a forget set touches, trained again, after one slice

Each slice is a stage. The next slice starts from the checkpoint of a finished slice; the first one
starts from the weights of the seed or of the pretrained file. So a killed run continues with its
slice, one training serves any number of deletions, and a deletion costs only what it trains again.
All constituents of a slice, of all seeds, shards and forget sets, are members of one population.

A slice is a training of its own with the settings of `config.train`. The optimiser starts anew and
the schedule runs once over the steps of the slice, because a checkpoint holds only weights and
batch statistics. So a checkpoint determines all later slices, and training again from it equals, to
the bit, training from scratch without the deleted samples. There is no validation: the last weights
of a constituent are kept.

A constituent is known by its position: the constituents of a seed are adjacent, in the order of
their shards. Each has its own random streams, also for its initial weights.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from unlearn_jax.data.splits import ForgetSet, Rows
from unlearn_jax.engine import recalibration
from unlearn_jax.engine.layout import Layout
from unlearn_jax.engine.recipe import Recipe, Snapshot, Trained
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member, Pass
from unlearn_jax.models import Variables
from unlearn_jax.optim import OptimizerSettings, make_optimizer
from unlearn_jax.results import Outcome
from unlearn_jax.stages import shards as plans
from unlearn_jax.stages.evaluate import Models
from unlearn_jax.stages.graph import RunContext, Stage, forget_parts
from unlearn_jax.stages.models import initial_variables
from unlearn_jax.stages.populations import (
    Population,
    Started,
    train_and_store,
)
from unlearn_jax.stages.stored import record_reused, settled, stage_metadata
from unlearn_jax.storage import checkpoints, store
from unlearn_jax.train import make_train_step

HISTORY_COLUMNS = ("stage", "forget_set", "seed", "shard", "slice", "epoch", "steps", "train_loss",
                   "learning_rate", "images")
# `config.train` without early stopping; `epochs` counts through `slice_epochs`.
_NOT_READ = ("epochs", "patience", "keep")


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some constituents after one slice.

    Attributes:
      stage: its place in the store.
      number: the slice's number, from zero.
      positions: `[K]`, the constituents.
      before: the slices whose states this one starts from; a later slice has precedence.
    """

    stage: Stage
    number: int
    positions: np.ndarray
    before: tuple["Slice", ...]


@dataclasses.dataclass(frozen=True)
class Sisa:
    """SISA for a study.

    Attributes:
      study: what the run shares, its seeds and forget sets among it.
      aggregate: `mean` or `vote`.
      slice_epochs: epochs of every slice.
      plans: one for each seed.
      training: the R slices of training.
      deletions: by forget set, the slices that are trained again, up to the last.
    """

    study: RunContext
    aggregate: str
    slice_epochs: float
    plans: tuple[plans.ShardPlan, ...]
    training: tuple[Slice, ...]
    deletions: dict[str, tuple[Slice, ...]]

    @property
    def shards(self) -> int:
        """S."""
        return self.plans[0].shards

    @property
    def slices(self) -> int:
        """R."""
        return self.plans[0].slices

    @property
    def models(self) -> int:
        """The number of constituents' checkpoints that the store lacks."""
        made = [*self.training, *(m for deletion in self.deletions.values() for m in deletion)]
        return sum(len(m.positions) for m in made
                   if not self.study.store.complete(m.stage.method, m.stage.key))

    def run(self) -> list[Models]:
        """Trains and deletes what the store lacks.

        Returns:
          The ensembles before any deletion, then those after the deletion of each forget set.
        """
        for made in self.training:
            self._train_missing([made])
        for number in range(self.slices):
            self._train_missing([made for deletion in self.deletions.values()
                                 for made in deletion if made.number == number])
        self._write_history()
        return [self._ensembles("", self.training, self.training[-1:]),
                *(self._ensembles(name, made, (self.training[-1], made[-1]))
                  for name, made in self.deletions.items())]

    def _train_missing(self, made: list[Slice]) -> None:
        by_key = {m.stage.key: m for m in made}
        train_and_store(self.study.store, [m.stage for m in made],
                        lambda missing: self._population([by_key[s.key] for s in missing]),
                        functools.partial(record_reused, self.study), all_at_once=True)

    def _population(self, made: list[Slice]) -> Population:
        """The constituents of one slice of the given stages, all missing."""
        study, recipe = self.study, self._recipe(made[0].number)
        members = [self._member(m, p) for m in made for p in m.positions]
        images = [len(m.retain) for m in members]
        # A deletion may take all samples of the first slices; then nothing is trained there.
        busy = np.array(images) > 0
        text = (f"{len(members)} constituents ({len(study.seeds)} seeds x {self.shards} shards), "
                f"{self.slice_epochs:.3g} epochs of {min(images)} to {max(images)} images")

        def start(layout: Layout) -> Started:
            if made[0].before:
                states = [restore(study, m.before, m.positions) for m in made]
                variables = jax.tree.map(lambda *x: np.concatenate(x), *(v for v, _ in states))
                failed = np.concatenate([f for _, f in states])
            else:
                variables = initial_variables(study, layout, [m.seed for m in members])
                failed = np.zeros(len(members), bool)

            def store(trained: Trained, status: str, _: float) -> None:
                snapshot = _among(trained.snapshots.get(recipe.epochs), variables, busy, failed)
                first = 0
                for m in made:
                    mine = list(range(first, first + len(m.positions)))
                    first += len(mine)
                    metadata = self._store(m, snapshot, mine, [members[i] for i in mine], layout,
                                           trained.history)
                    study.run.record_stage(
                        m.stage.method, m.stage.forget_name, m.stage.key, status,
                        float(np.sum(metadata["seconds"])), int(np.sum(metadata["images"])),
                        len(mine), m.stage.epochs)

            return Started(jax.tree.map(lambda x: np.asarray(x)[busy], variables), store)

        return Population(study, recipe, [m for m, b in zip(members, busy) if b], text, start)

    def _recipe(self, number: int) -> Recipe:
        """The settings of `config.train` for one slice.

        Training and deletion have the same name, which decides the random streams.
        """
        config = self.study.config
        settings = OptimizerSettings.from_config(config.train)
        optimizer = make_optimizer(settings)
        shares = plans.epoch_shares(self.slice_epochs)

        def passes(epoch: int) -> tuple[Pass, ...]:
            return (Pass("retain", share=shares[epoch]),)

        # The engine ends each epoch with a validation. Without samples it costs one sample.
        return Recipe(f"sisa/slice-{number + 1}",
                      make_train_step(self.study.model, optimizer, self.study.loss), optimizer,
                      settings, self.study.loss, len(shares), config.train.batch_size,
                      eval_batch_size=config.parallel.batch, keep="last",
                      snapshots=(len(shares),), passes=passes)

    def _member(self, made: Slice, position: int) -> Member:
        m, shard = divmod(int(position), self.shards)
        rows = self.study.splits.rows
        seen = np.isin(rows.source, self.plans[m].seen(shard, made.number,
                                                       _forgotten(made.stage.forget_set)))
        nobody = np.zeros(0, np.int32)
        return Member(_constituent_seed(self.study.seeds[m], shard), made.stage.forget_name,
                      self.study.index(Rows(rows.source[seen], rows.copy[seen])), nobody, nobody)

    def _store(self, made: Slice, snapshot: Snapshot, mine: list[int], members: list[Member],
               layout: Layout, history: list[dict[str, Any]]) -> dict[str, Any]:
        study, stage = self.study, made.stage
        seeds, shards = (x.tolist() for x in np.divmod(made.positions, self.shards))
        seeds = [study.seeds[m] for m in seeds]
        who = {_constituent_seed(seed, shard): (seed, shard) for seed, shard in zip(seeds, shards)}
        rows = [{**row, "stage": stage.method, "slice": made.number + 1,
                 **dict(zip(("seed", "shard"), who[row["seed"]]))}
                for row in history if row["forget_set"] == stage.forget_name]
        metadata = {**stage_metadata(study, stage, snapshot, mine), "seeds": seeds,
                    "shards": shards, "slice": made.number + 1, "metric": {}}
        variables = jax.tree.map(lambda x: np.asarray(x)[np.array(mine)], snapshot.variables)
        variables = settled(study, stage, members, layout, variables, metadata)
        with study.store.write(stage.method, stage.key, stage.parts) as directory:
            checkpoints.save(directory / "checkpoint", variables, metadata)
            (directory / "history.json").write_text(json.dumps(
                [{k: row[k] for k in HISTORY_COLUMNS} for row in rows]))
        return metadata

    def _write_history(self) -> None:
        """sisa_history.csv: the constituents' training curves."""
        every = [*self.training, *(m for made in self.deletions.values() for m in made)]
        rows = [row for m in every for row in store.load_json(
            m.stage.directory(self.study.store), "history.json")]
        self.study.run.write_table("sisa_history.csv", rows, HISTORY_COLUMNS)

    def _ensembles(self, forget_set: str, made: Sequence[Slice],
                   last: tuple[Slice, ...]) -> Models:
        """The ensembles of all seeds, with the cost of slices `made` and the states of `last`."""
        study, every = self.study, np.arange(len(self.study.seeds) * self.shards)
        costs: dict[str, Any] = {
            k: np.zeros(len(study.seeds)) for k in ("images", "seconds", "flops", "step")}
        steps = np.zeros(len(every), int)
        for m in made:
            metadata, _ = checkpoints.describe(m.stage.directory(study.store) / "checkpoint")
            steps[m.positions] += np.asarray(metadata["step"])
            for k, sums in costs.items():
                np.add.at(sums, m.positions // self.shards, metadata[k])
        rows = len(study.splits.rows.source)
        if forget_set:
            rows = len(study.splits.retain_rows(made[-1].stage.forget_set).source)
        failed = np.zeros(len(every), bool)
        for m in last:
            metadata, _ = checkpoints.describe(m.stage.directory(study.store) / "checkpoint")
            failed[m.positions] = metadata["failed"]
        if not forget_set:
            self._warn_of_norms(steps[~failed])
        # In passes over the data, because constituents have no common epochs.
        costs |= {"images": costs["images"].astype(int), "step": costs["step"].astype(int),
                  "epochs_trained": costs["images"] / rows,
                  "failed": failed.reshape(-1, self.shards).any(1)}
        measures = functools.partial(
            self.speedups, made[-1].stage.required_forget_set) if forget_set else None
        return Models(made[-1].stage, forget_set, lambda: restore(study, last, every)[0], costs,
                      self.combine, self.aggregate, measures)

    def _warn_of_norms(self, steps: np.ndarray) -> None:
        """Warns if the constituents take far fewer steps `[K]` than are planned for M_O."""
        config, rows = self.study.config, len(self.study.splits.rows.source)
        # An M_O of few steps is recalibrated; with 'off', a warning was given before training.
        text = recalibration.kept_in_words(config, steps)
        if text and not recalibration.recalibrates(config, rows) \
                and recalibration.share_left(config, rows) <= recalibration.LITTLE:
            self.study.run.warn(f"sisa_original: {text}")

    def combine(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of the constituents `[M S, N, ...]` as those of the ensembles `[M, N, ...]`."""
        outputs = outputs.reshape(-1, self.shards, *outputs.shape[1:])
        if self.aggregate == "vote":
            return plans.vote(outputs)
        return plans.mean_output(outputs, self.study.dataset.num_classes > 0)

    def speedups(self, forget_set: ForgetSet, own: Outcome,
                 retrained: Outcome) -> dict[str, np.ndarray]:
        """Cost of M_R divided by the cost of a deletion, `[M]`: measured, nominal and expected."""
        config, rows = self.study.config, self.study.splits.rows
        expected = []
        for plan in self.plans:
            weights = np.bincount(np.searchsorted(plan.samples, rows.source),
                                  minlength=len(plan.samples))
            expected.append(plans.expected_speedup(plan, weights, len(forget_set.train),
                                                   self.slice_epochs, config.train.epochs))
        nominal = plans.nominal_speedup(self.shards, self.slices)
        seconds, images = (np.where(own.failed | retrained.failed, np.nan, cost)
                           for cost in (own.seconds, own.images))
        return {"sisa_speedup_measured_wall": retrained.seconds / seconds,
                "sisa_speedup_measured_images": retrained.images / images,
                "sisa_speedup_expected": np.array(expected),
                "sisa_speedup_nominal": np.full(len(expected), nominal)}


def make_scheme(study: RunContext, original: Stage, options: ml_collections.ConfigDict) -> Sisa:
    """Plans SISA; trains nothing.

    Args:
      study: loaded and split.
      original: the stage of M_O; its key holds the data, the model and the settings.
      options: `config.unlearn.sisa`.

    Raises:
      InputError: more slices than samples, or a forget set that leaves a shard empty.
    """
    shards, slices = options.shards, options.slices
    epochs = options.slice_epochs or plans.epochs_per_slice(study.config.train.epochs, slices)
    made = tuple(plans.make_plan(study.splits.train, shards, slices, s) for s in study.seeds)
    parts = {**original.parts,
             "train": {k: v for k, v in original.parts["train"].items() if k not in _NOT_READ},
             "sisa": {"shards": shards, "slices": slices, "slice_epochs": float(epochs)}}
    budget = round(plans.passes_over_all(epochs, slices))
    every = np.arange(len(made) * shards)
    training: list[Slice] = []
    for r in range(slices):
        stage = Stage("sisa_original", None, budget, {**parts, "slice": r + 1})
        training.append(Slice(stage, r, every, tuple(training[-1:])))
    deletions = {}
    for f in study.splits.forget_sets:
        for seed, plan in zip(study.seeds, made):
            if len(emptied := plan.emptied(f.train)):
                raise InputError(
                    f"forget set {f.name} takes every sample of {len(emptied)} of the {shards} "
                    f"shards of seed {seed}; config.unlearn.sisa.shards must be smaller")
        first = np.concatenate([plan.first_touched(f.train) for plan in made])
        deletion: list[Slice] = []
        for r in range(first.min(), slices):
            stage = Stage("sisa", f, budget, {"training": training[r].stage.key,
                                              "forget": forget_parts(study, f), "slice": r + 1})
            before = (*training[r - 1:r], *deletion[-1:])
            deletion.append(Slice(stage, r, np.flatnonzero(first <= r), before))
        deletions[f.name] = tuple(deletion)
    return Sisa(study, options.aggregate, epochs, made, tuple(training), deletions)


def restore(study: RunContext, made: Sequence[Slice],
            positions: np.ndarray) -> tuple[Variables, np.ndarray]:
    """The states of some constituents, each from the last of the slices that trained it.

    Returns:
      Variables `[K, ...]` and whether each constituent had failed, `[K]` bool.
    """
    source = {p: (i, k) for i, m in enumerate(made) for k, p in enumerate(m.positions)}
    wanted = [source[p] for p in positions]
    found = {i: checkpoints.restore(made[i].stage.directory(study.store) / "checkpoint")
             for i in {i for i, _ in wanted}}
    used = sorted(found)
    variables = jax.tree.map(
        lambda *leaves: np.stack([leaves[used.index(i)][k] for i, k in wanted]),
        *(found[i][0] for i in used))
    return variables, np.array([found[i][1]["failed"][k] for i, k in wanted])


def _among(trained: Snapshot | None, start: Variables, busy: np.ndarray,
           failed: np.ndarray) -> Snapshot:
    """A snapshot of all constituents. Those without samples to train on are unchanged."""
    count = len(busy)
    if trained is None:
        nothing = np.zeros(count, int)
        return Snapshot(start, nothing, nothing, nothing, np.zeros(count), failed,
                        np.full(count, np.nan), 0.0)

    def spread(values: np.ndarray, fill: float = 0) -> np.ndarray:
        whole = np.full(count, fill, values.dtype)
        whole[busy] = values
        return whole

    def overlay(own: np.ndarray, before: Any) -> np.ndarray:
        whole = np.array(before)
        whole[busy] = own
        return whole

    return Snapshot(jax.tree.map(overlay, trained.variables, start), spread(trained.epochs),
                    spread(trained.steps), spread(trained.images), spread(trained.flops),
                    spread(trained.failed) | failed, spread(trained.validation_loss, np.nan),
                    trained.seconds)


def _forgotten(forget_set: ForgetSet | None) -> np.ndarray:
    return np.zeros(0, np.int32) if forget_set is None else forget_set.train


def _constituent_seed(seed: int, shard: int) -> int:
    """The seed of a constituent: 31 bits, from the seed and the shard."""
    return int(np.random.SeedSequence([seed, shard]).generate_state(1)[0] >> 1)
