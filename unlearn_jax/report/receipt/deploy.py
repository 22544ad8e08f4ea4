"""Which model of a run to use after a deletion, and the command that takes it out of the store."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.judgement import FORGOTTEN, Judgement
from unlearn_jax.report.tables.names import ENSEMBLES, model_symbol


@dataclasses.dataclass(frozen=True)
class Deployable:
    """A model.

    Attributes:
      name: as in the report.
      why: in words.
      seed: the seed with the least validation error.
      path: of its stage in the store; None: the store no longer has it.
      command: exports it; '' without a path.
    """

    name: str
    why: str
    seed: int
    path: Path | None
    command: str


def choose(run: Run, forget_set: str, judgements: Sequence[Judgement]) -> list[Deployable]:
    """The models to use, the first one recommended; [] if the run has none that may be used.

    Of unlearned models those with the verdict 'forgotten' may be used, by their validation error.
    M_R always may: it was trained without the data.
    """
    good = [j.model for j in judgements if j.forget_set == forget_set and j.word == FORGOTTEN
            and j.model.method not in ENSEMBLES]
    good.sort(key=lambda model: _validation(run, forget_set, model).mean())
    found = [_choice(run, forget_set, model, "its verdict is 'forgotten'") for model in good[:1]]
    if retrained := run.only(forget_set, "retrain"):
        why = "it was trained without the images" + (
            "" if good else "; no unlearned model of this run has the verdict 'forgotten'")
        found.append(_choice(run, forget_set, retrained, why))
    return found


def stage_path(run: Run, forget_set: str, model: ModelKey) -> Path | None:
    """The directory of a model's stage in the store of the run; None: it is not there."""
    key = run.origin(model, forget_set, _error(run, "test"))
    store = run.run.get("store", "")
    if not key or not store:
        return None
    return next((p.parent for p in sorted(Path(store).glob(f"*/{key}/checkpoint"))), None)


def _choice(run: Run, forget_set: str, model: ModelKey, why: str) -> Deployable:
    errors = _validation(run, forget_set, model)
    seed = int(errors.idxmin()) if errors.notna().any() else run.seeds[0]
    path = stage_path(run, forget_set, model)
    command = "" if path is None else (f"unlearn-jax export {shlex.quote(str(path))} --seed={seed} "
                                       "--to=model.safetensors")
    return Deployable(model_symbol(model), why, seed, path, command)


def _validation(run: Run, forget_set: str, model: ModelKey):
    """Errors by seed on the validation set, on which no test of the verdict is made."""
    values = run.values(model, forget_set, _error(run, "validation"))
    values = values if len(values) else run.values(model, forget_set, _error(run, "retain"))
    values = values.where(np.isfinite(values))
    return -values if run.classification else values


def _error(run: Run, split: str) -> str:
    return f"{'accuracy' if run.classification else 'mae'}_{split}"
