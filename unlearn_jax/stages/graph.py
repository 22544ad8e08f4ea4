"""Stages and their keys in the store, and the records that the stages of a run share."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from unlearn_jax import moved
from unlearn_jax.data import given
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.resident import Resident, RowIndex, Streamed
from unlearn_jax.data.splits import ForgetSet, Splits
from unlearn_jax.engine.recalibration import recalibrates
from unlearn_jax.errors import InputError
from unlearn_jax.members import Member
from unlearn_jax.methods import find_method
from unlearn_jax.methods.method import Setting
from unlearn_jax.methods.outside import Found
from unlearn_jax.models import Model, network_parts
from unlearn_jax.results import started
from unlearn_jax.stages import workdir
from unlearn_jax.stages.weights import digest
from unlearn_jax.storage.store import Store, stage_key
from unlearn_jax.train import Loss, Step
from unlearn_jax.units import label_step

# Part of every model's key. Raise it when the same config gives other models than before (then the
# golden test fails); otherwise a store would mix models of two versions. If only one method
# changes, raise its `Method.version` instead.
_NUMBERS = 2
# Version of the names in `Pass.over`, part of the keys of outside methods, which may use all names.
# Raise it when a name means other samples than before (2: half of the validation samples).
_WALKS = 2

__getattr__ = moved.renamed(__name__, {"Study": "RunContext"})

# `Setting.config.learning_rate` among `Variant.traced_options`; no name of an option has a dot.
PEAK_RATE = "config.learning_rate"

# Keys of `data` that a trained model depends on beyond the fingerprint of what was loaded.
_DATA_KEYS = ("task", "split", "seed", "balance")
_MODEL_EXCEPT = ("own_preprocess",)  # allows what another key says
_MODEL_LATER = {"resize_positions": False}  # keys added later, not part of keys at this value
_COPY_KEYS = ("rotation", "shift", "zoom", "flip")  # of augmented copies, where there are any
_TRAIN_KEYS = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "warmup",
               "weight_decay", "momentum", "loss", "class_weights", "patience", "keep")
_UNLEARN_KEYS = ("from_seed", "batch_size", "optimizer", "learning_rate", "schedule", "warmup",
                 "weight_decay", "momentum")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Models of all seeds, made together: one checkpoint in the store.

    Attributes:
      method: `original`, `retrain`, a method's name, or what a scheme trains (`sisa_original`).
      forget_set: None for the original.
      epochs: budget: 0 for the original, `train.epochs` for retraining.
      parts: everything that determines the models.
      arm: its name in results if a run has one method several times; '': the name is `method`.
    """

    method: str
    forget_set: ForgetSet | None
    epochs: int
    parts: dict[str, Any]
    arm: str = ""

    @property
    def name(self) -> str:
        """Its name in results. In the store its name is `method`, whatever its arm."""
        return self.arm or self.method

    @property
    def from_seed(self) -> int:
        """The seed of the M_O that all members started from; -1: each from the M_O of its own."""
        return self.parts.get("unlearn", {}).get("from_seed", -1)

    def started(self, seeds: tuple[int, ...]) -> np.ndarray:
        """`[M]`: the position of the seed of the M_O that each member started from."""
        return started(seeds, self.from_seed)

    @property
    def key(self) -> str:
        """Its place in the store."""
        return stage_key(self.method, self.parts)

    @property
    def outside(self) -> bool:
        """Whether its models were read from files (outside.py)."""
        return "outside" in self.parts

    @property
    def forget_name(self) -> str:
        """The forget set's name, `''` for the original."""
        return self.forget_set.name if self.forget_set else ""

    @property
    def required_forget_set(self) -> ForgetSet:
        """The forget set of a stage that is known to have one: an M_R or unlearned models."""
        assert self.forget_set is not None, f"stage {self.name!r} has no forget set"
        return self.forget_set

    def directory(self, store: Store) -> Path:
        """Its directory in the store, with `checkpoint/` and history.json."""
        return store.path(self.method, self.key)


@dataclasses.dataclass
class RunContext:
    """Everything that the stages of one run share.

    Attributes:
      dataset: as loaded; the resident images and labels may hold an injection (data/inject.py).
      stamped: `[t]` resident rows of the test images with the injected patch; none without one.
      load_seconds: time to load the data.
      notes: warnings about the pretrained weights.
    """

    config: ml_collections.ConfigDict
    config_name: str
    store: Store
    run: workdir.RunRecord
    dataset: Dataset
    splits: Splits
    resident: Resident | Streamed
    index: RowIndex
    model: Model
    loss: Loss
    bar: Callable[..., Any] | None
    stamped: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    load_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the members of every stage, in this order."""
        return self.config.seeds

    @property
    def trained_labels(self) -> np.ndarray:
        """`[N]`: the labels that models are trained with, exchanged labels included."""
        injection = self.splits.injection
        return injection.trained_labels(self.dataset.labels) if injection else self.dataset.labels


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """The method of a config, made ready.

    Attributes:
      found: the method and its name.
      setting: what the method is given.
      step: its step for one member; None where the method trains nothing.
    """

    found: Found
    setting: Setting
    step: Step | None


@dataclasses.dataclass(frozen=True)
class Variant:
    """Models that one config wants. One population trains those of one or several variants.

    Attributes:
      study: what the run that wants them shares; its config decides.
      stages: the stages of these models, each once.
      unlearning: the config's method, made ready; None for M_O and the M_Rs, which are trained.
      arm: what the plan and the log call it; `''` where the run has one method once.
      name: tells its members from those of other variants in the population; `''` for the only
        variant.
      traced_options: options that the compiled step reads from the member, because their values
        differ between the variants of the population, and `PEAK_RATE` for an outside method, whose
        step may read the rate of the config. All other options are part of the program.
    """

    study: RunContext
    stages: Sequence[Stage]
    unlearning: Unlearning | None = None
    arm: str = ""
    name: str = ""
    traced_options: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def required_unlearning(self) -> Unlearning:
        """The method of a variant that is known to unlearn."""
        assert self.unlearning is not None, "a variant of M_O or of M_Rs has no method"
        return self.unlearning


def original_stage(study: RunContext) -> Stage:
    """M_O of all seeds.

    Raises:
      InputError: a file of `original.path` cannot be read.
    """
    return Stage("original", None, 0, _trained_parts(study) | _outside_parts(study, "original", ""))


def _trained_parts(study: RunContext) -> dict[str, Any]:
    """All that determines models that are trained as the config's section `train` says."""
    config = study.config
    data_keys = (*_DATA_KEYS, *(_COPY_KEYS if config.data.balance else ()),
                 *(("inject",) if config.data.inject else ()))
    return {
        "numbers": _NUMBERS, "data": study.dataset.fingerprint,
        "num_classes": study.dataset.num_classes, "seeds": config.seeds,
        "split": {**{k: config.data[k] for k in data_keys},
                  **({"trained_on": _ids_digest(study.dataset.ids[study.splits.train])}
                     if config.original.trained_on else {})},
        # The fingerprint does not show which split a .csv file gives an image.
        **({"given": given.digest(study.dataset.ids, study.splits.parts)}
           if given.is_given(config.data) else {}),
        "model": {**{k: v for k, v in config.model.to_dict().items()
                     if k not in _MODEL_EXCEPT and (k not in _MODEL_LATER or v != _MODEL_LATER[k])},
                  "pretrained": _file_digest(config.model.pretrained),
                  **network_parts(config.model.name)},
        "train": {k: config.train[k] for k in _TRAIN_KEYS}, **_decay(config.train),
        **(_label_step(study) if config.data.balance else {}),
        **({"norms": "recalibrated"} if recalibrates(config, len(study.splits.rows.source))
           else {}),
    }


def _outside_parts(study: RunContext, method: str, forget_set: str) -> dict[str, Any]:
    """The digests of the files from which M_O or M_R is read: of one for all seeds, or of each."""
    files = outside_files(study.config, method, forget_set)
    return {"outside": tuple(digest(path, f"{method}.path") for path in dict.fromkeys(files))
            } if files else {}


def outside_files(config: ml_collections.ConfigDict, method: str, forget_set: str) -> list[Path]:
    """The file of each seed from which models are read; () if they are trained.

    Args:
      config: the whole config.
      method: 'original' or 'retrain'.
      forget_set: name of the forget set of M_R.
    """
    path = config[method].path
    return [Path(path.replace("{seed}", str(seed)).replace("{forget_set}", forget_set)).expanduser()
            for seed in config.seeds] if path else []


def retrain_stage(study: RunContext, original: Stage, forget_set: ForgetSet) -> Stage:
    """M_R of all seeds for one forget set.

    Raises:
      InputError: a file of `retrain.path` cannot be read.
    """
    parts = _trained_parts(study) if original.outside else original.parts
    parts = {**parts, "forget": forget_parts(study, forget_set)}
    if outside := _outside_parts(study, "retrain", forget_set.name):
        return Stage("retrain", forget_set, 0, parts | outside)
    return Stage("retrain", forget_set, study.config.train.epochs, parts)


def retrain_stages(study: RunContext, original: Stage) -> list[Stage]:
    """M_R for each forget set; none in a run without M_R."""
    if study.config.retrain.mode == "off":
        return []
    return [retrain_stage(study, original, f) for f in study.splits.forget_sets]


def unlearn_stages(study: RunContext, original: Stage, forget_set: ForgetSet) -> list[Stage]:
    """The unlearned models of all seeds for one forget set, one stage per budget."""
    section = study.config.unlearn
    found = find_method(section.method)
    if found.name == "retrain" or found.method.scheme:
        return []
    keys = (*_UNLEARN_KEYS, *found.method.shared_keys)
    parts = {"original": original.key, "forget": forget_parts(study, forget_set),
             "unlearn": {k: section[k] for k in keys},
             "label_range": tuple(int(v) if v == int(v) else v for v in (
                 study.config.data.label_min, study.config.data.label_max)),
             **_label_step(study)}
    parts |= _decay(section)
    if found.method.options:
        parts["options"] = {
            key: value for key, value in method_options(section, found).to_dict().items()
            if key not in found.method.later or value != found.method.options[key]}
    if found.code:
        parts |= {"code": found.code, "walks": _WALKS}
    if found.method.version > 1:
        parts["numbers"] = found.method.version
    return [Stage(found.name, forget_set, epochs, {**parts, "epochs": epochs})
            for epochs in sorted(section.epochs)]


def _label_step(study: RunContext) -> dict[str, float]:
    """The step between labels, if it is not 1. It sets strata, bins and random labels."""
    step = 1.0 if study.dataset.num_classes else label_step(study.config.data)
    return {} if step == 1 else {"label_step": step}


def _decay(section: ml_collections.ConfigDict) -> dict[str, str]:
    """Part of the key: `sgd` with decay and momentum was computed otherwise in earlier versions."""
    if section.optimizer == "sgd" and section.weight_decay and section.momentum:
        return {"decay": "through momentum"}
    return {}


def with_epochs(study: RunContext, config: ml_collections.ConfigDict,
                epochs: tuple[int, ...]) -> RunContext:
    """The study with another config, which gets these budgets."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.unlearn.epochs = epochs
    return dataclasses.replace(study, config=config)


def method_options(section: ml_collections.ConfigDict, found: Found) -> ml_collections.ConfigDict:
    """The options of a method: `config.unlearn.METHOD`, or those of an outside method's file."""
    if found.name in section:
        return section[found.name]
    return ml_collections.ConfigDict(dict(found.method.options))


def forget_parts(study: RunContext, forget_set: ForgetSet) -> dict[str, str]:
    """The identity of a forget set: its name and a digest of its sample ids."""
    rows = np.concatenate([forget_set.train, forget_set.validation]).astype(np.int64)
    return {"name": forget_set.name, "ids": _ids_digest(study.dataset.ids[rows])}


def _ids_digest(ids: np.ndarray) -> str:
    return hashlib.blake2b("\n".join(ids.tolist()).encode()).hexdigest()[:16]


def make_member(study: RunContext, seed: int, forget_set: ForgetSet | None) -> Member:
    """The member of a seed and a forget set; None: of the original."""
    splits, index = study.splits, study.index
    if forget_set is None:
        return Member(seed, "", index(splits.rows), splits.validation, np.zeros(0, np.int32))
    return Member(seed, forget_set.name, index(splits.retain_rows(forget_set)),
                  splits.retain_validation(forget_set), index(splits.forget_rows(forget_set)))


def _file_digest(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "blake2b").hexdigest()[:16]
    except OSError as e:
        raise InputError(f"config.model.pretrained is {path!r}: {e.strerror}") from e
