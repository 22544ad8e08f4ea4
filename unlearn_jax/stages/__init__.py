"""The stage graph: data, original, retrained, unlearned, predictions, results, report.

Each model stage lives in the store under a key that hashes exactly what determines it, so it
is computed once and shared by every run that needs it.

    loading.py      the data of a study
    graph.py        what a stage is and its key; the records of a run and of a variant
    models.py       what models start from, and their recipes
    populations.py  the one loop: trains and stores the missing stages
    stored.py       trained models as the store keeps them
    progress.py     half-finished populations
    variants.py     several configs on the same M_O, and the arms of a study
    sisa.py         the one training scheme with stages of its own; shards.py: which sample is where
    evaluate.py     predictions and results
    relearn.py      how fast D_f is learned again
    outside.py      M_O and M_R from files; weights.py: reads one file
    layers.py       distances of weights
    explain.py      explanations
    compare.py      many methods at one budget, each searched alike
    tracking.py     training curves for TensorBoard, W&B, MLflow
    rehearsal.py    a method from outside, tried before any training
    belonging.py    whether published weights and network belong together
    plan.py         what a run will train and cost
    workdir.py      the files of a work directory
    room.py         whether the disk has room for what a run will write
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import ml_collections

from unlearn_jax import native
from unlearn_jax.config.variants import arm_config
from unlearn_jax.engine.layout import make_layout
from unlearn_jax.methods import find_method
from unlearn_jax.models import network_parts
from unlearn_jax.report import write_report
from unlearn_jax.stages import outside, sisa, workdir
from unlearn_jax.stages.compare import make_contenders, run_comparison
from unlearn_jax.stages.evaluate import Models, write_results
from unlearn_jax.stages.explain import explain_stages
from unlearn_jax.stages.graph import (
    RunContext,
    Stage,
    Variant,
    original_stage,
    retrain_stages,
    unlearn_stages,
)
from unlearn_jax.stages.layers import write_layers
from unlearn_jax.stages.loading import load, prepare, record_data
from unlearn_jax.stages.models import make_unlearning, train_missing, unlearn_missing
from unlearn_jax.stages.progress import clean
from unlearn_jax.stages.room import require_room
from unlearn_jax.stages.stored import record_reused, record_traces
from unlearn_jax.stages.variants import make_arms, plan_variants, run_arms, unlearn_variants
from unlearn_jax.storage.store import Store
from unlearn_jax.system import made_once, processes

if TYPE_CHECKING:
    from unlearn_jax.report.tables.inputs import Run

# By `Method.scheme`: functions of a study, the stage of M_O and the method's options. Each returns
# an object whose `run()` trains what the store lacks and returns the models to be evaluated.
SCHEMES = {"sisa": sisa.make_scheme}


def run_study(config: ml_collections.ConfigDict, config_name: str, directory: Path, store: Store,
              command: str, bar: Callable[..., Any] | None = None,
              config_file: str = "") -> Run | None:
    """Everything, from data to report.

    Args:
      config: checked and locked.
      config_name: `ft`, or `ft:utkface` with an argument.
      directory: the work directory.
      store: where the stages are kept.
      command: as typed, for the report.
      bar: makes progress bars.
      config_file: FILE:SCALE as given; a comparison finds the methods' configs beside it.

    Returns:
      The run as the report has read it; None in processes that do not write the report.

    Raises:
      InputError: something handed in cannot be used.
    """
    make_layout(config.parallel, len(config.seeds))  # a missing device fails before any work
    with workdir.claim(directory, config, config_name, command) as run, store.in_use(), \
            _own_traces(config):
        run.record_store(store.root)
        processes.on_first_process("what killed processes left", lambda: clean(store))
        study = prepare(config, config_name, store, run, bar)
        original = original_stage(study)
        retrained = retrain_stages(study, original)
        _require_same_work(config, original, retrained)
        # A method refuses a setting here, before any training.
        if config.compare.methods:
            unlearn = _comparison(study, original, retrained, config_file)
        elif config.thesis.arms:
            unlearn = _arms(study, original, retrained)
        else:
            unlearn = _one_method(study, original)
        require_room([(study, unlearn.stages, unlearn.models)], original, retrained)
        outside.read_in(study, original, retrained)
        record_traces(study, original)
        train_missing(study, outside.to_be_trained([original, *retrained]))
        unlearned, ensembles = unlearn.run()
        _evaluate(study, original, retrained, unlearned, ensembles)
        run.finish()  # the report reads run.json with its final timings

        reported: list[Run] = []

        def report() -> None:
            reported.append(write_report(directory, bar))  # not sent to the other processes

        processes.on_first_process("the report", report)
    return reported[0] if reported else None


@contextlib.contextmanager
def _own_traces(config: ml_collections.ConfigDict) -> Iterator[None]:
    """Forgets what was traced inside if code from outside took part.

    Such code may hold large arrays, or depend on what has changed until the next study.
    """
    yield
    if network_parts(config.model.name) or any(find_method(m).code for m in _methods(config)):
        made_once.clear()


def _methods(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The methods of a study."""
    return tuple(config.compare.methods) or (
        *(arm_config(config, arm).unlearn.method for arm in config.thesis.arms),
        config.unlearn.method)


def _require_same_work(config: ml_collections.ConfigDict, original: Stage,
                       retrained: list[Stage]) -> None:
    """Refuses processes that read other files or run other code than the first process."""
    methods = _methods(config)
    processes.require_same("what they are to compute", {
        "versions": workdir.versions(),
        "device": jax.local_devices()[0].device_kind,
        "native calls": native.unavailable() or "there",  # they decide on the steps of a dispatch
        "methods": {m: find_method(m).code for m in methods},
        **{f"{s.method} {s.forget_name}".strip(): s.parts for s in (original, *retrained)}})


def run_studies(runs: Sequence[Request], store: Store,
                bar: Callable[..., Any] | None = None) -> None:
    """Several studies on the same M_O and M_R, in one process and in as few programs as it takes.

    Each gets the work directory that `run_study` would have given it.

    Args:
      runs: at least one. Their configs differ only in `unlearn` and `eval`, and each has one
        method that unlearns M_O.
      store: where the stages are kept.
      bar: makes progress bars.

    Raises:
      InputError: something handed in cannot be used.
    """
    first = runs[0]
    make_layout(first.config.parallel, len(first.config.seeds))
    with contextlib.ExitStack() as claims:
        claimed = [claims.enter_context(workdir.claim(r.directory, r.config, r.config_name,
                                                    r.command)) for r in runs]
        claims.enter_context(store.in_use())
        for run in claimed:
            run.record_store(store.root)
        clean(store)
        shared = load(first.config, first.config_name, store, claimed[0], bar)
        studies = [dataclasses.replace(shared, config=r.config, config_name=r.config_name, run=b)
                   for r, b in zip(runs, claimed)]
        for study in studies:
            record_data(study)
        original = original_stage(shared)
        retrained = retrain_stages(shared, original)
        variants = [Variant(study, [stage for f in study.splits.forget_sets
                                    for stage in unlearn_stages(study, original, f)],
                            make_unlearning(study)) for study in studies]
        require_room([(v.study, v.stages, 0) for v in variants], original, retrained)
        outside.read_in(shared, original, retrained)
        record_traces(shared, original)
        train_missing(shared, outside.to_be_trained([original, *retrained]))
        for study in studies[1:]:
            for stage in (original, *retrained):
                record_reused(study, stage)
        unlearn_variants(variants, original)
        for variant in variants:
            _evaluate(variant.study, original, retrained, list(variant.stages))
        for run in claimed:
            run.finish()
        for run in claimed:
            write_report(run.directory, bar)


@dataclasses.dataclass(frozen=True)
class Request:
    """One of several studies; see `run_study`."""

    config: ml_collections.ConfigDict
    config_name: str
    directory: Path
    command: str


def _evaluate(study: RunContext, original: Stage, retrained: list[Stage], unlearned: list[Stage],
              ensembles: Sequence[Models] = ()) -> None:
    """Everything that a work directory holds of finished models, except the report."""
    write_results(study, original, retrained, unlearned, ensembles)
    if study.config.eval.layers and processes.is_first_process():
        write_layers(study, original, retrained, unlearned)
    if study.config.eval.explain_samples:
        explain_stages(study, [original, *retrained, *unlearned])


@dataclasses.dataclass(frozen=True)
class _Unlearn:
    """The unlearning of a run, checked. It starts when M_O and the M_Rs are trained.

    Attributes:
      run: trains what the store lacks and returns the stages and ensembles to be evaluated.
      stages: the stages that are known before any training.
      models: the most models that may be trained beyond these stages.
    """

    run: Callable[[], tuple[list[Stage], Sequence[Models]]]
    stages: list[Stage]
    models: int = 0


def _one_method(study: RunContext, original: Stage) -> _Unlearn:
    """The config's method."""
    unlearning = make_unlearning(study)
    make = SCHEMES.get(unlearning.found.method.scheme)
    scheme = make(study, original, unlearning.setting.options) if make else None
    stages = [stage for f in study.splits.forget_sets
              for stage in unlearn_stages(study, original, f)]

    def unlearn() -> tuple[list[Stage], Sequence[Models]]:
        unlearn_missing([Variant(study, stages, unlearning)], original)
        return stages, scheme.run() if scheme else ()

    return _Unlearn(unlearn, stages, scheme.models if scheme else 0)


def _comparison(study: RunContext, original: Stage, retrained: list[Stage],
                config_file: str) -> _Unlearn:
    """The methods of a comparison; running it returns the chosen stages."""
    contenders = make_contenders(study, config_file)
    # The budget of a trial, and so its stage, is known once the M_Rs are trained.
    known = all(study.store.complete(s.method, s.key) for s in (original, *retrained))
    trials = 0 if known else 1 + sum(len(c.trials) for c in contenders)  # 1: short retraining
    return _Unlearn(lambda: (run_comparison(study, original, retrained, contenders), ()), [],
                    trials * len(retrained) * len(study.seeds))


def _arms(study: RunContext, original: Stage, retrained: list[Stage]) -> _Unlearn:
    """The arms of a study; their plan is printed where progress is shown."""
    arms = make_arms(study, original)
    plan = plan_variants(study, original, retrained, arms)
    study.run.record_plan(plan.record())
    if study.bar is not None and processes.is_first_process():
        print(plan.text(), flush=True)
    return _Unlearn(lambda: (run_arms(original, arms), ()),
                    [stage for variant in arms for stage in variant.stages])
