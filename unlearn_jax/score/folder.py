"""Groups the files of a folder: the models of each forget set, checked against each other."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from unlearn_jax.results import TRAINED, UNSEEN
from unlearn_jax.score.files import (
    PredictionFile,
    ScoreError,
    find_files,
    read_file,
    require_known_references,
)

REQUIRED = ("test", "forget")
ModelId = tuple[str, int]  # method and budget


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredSet:
    """The models of a forget set.

    Attributes:
      name: name of the forget set.
      seeds: `[M]` seeds of every model, in this order.
      models: files by model and split; every model has the same splits.
    """

    name: str
    seeds: tuple[int, ...]
    models: Mapping[ModelId, Mapping[str, PredictionFile]]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.any_model)

    @property
    def any_model(self) -> Mapping[str, PredictionFile]:
        """The files of M_O, or of the first model if M_O is missing."""
        return next((files for (method, _), files in self.models.items() if method == "original"),
                    next(iter(self.models.values())))

    def of(self, method: str) -> ModelId | None:
        """The model of a method; None if there is none."""
        return next((model for model in self.models if model[0] == method), None)

    def first_with(self, split: str, key: str) -> PredictionFile | None:
        """The file of a split that has an optional array; M_O's file comes before others.

        M_R's file is left out: it does not show which samples the others were trained on.
        """
        files = [self.any_model, *(f for (m, _), f in self.models.items() if m != "retrain")]
        return next((f[split] for f in files if split in f and key in f[split].further), None)

    def member(self, split: str) -> np.ndarray | None:
        """`[N]`: use of each sample in training, if it is the same for all seeds; else -1.

        None: no file has this array.
        """
        file = self.first_with(split, "member")
        if file is None:
            return None
        member = np.atleast_2d(file.further["member"])
        return np.where((member == member[0]).all(axis=0), member[0], -1)

    def trained_places(self) -> np.ndarray:
        """Places `[n]` in D_f of samples that all seeds trained on; all if no file has `member`."""
        member = self.member("forget")
        count = len(self.any_model["forget"].labels)
        return np.arange(count) if member is None else np.flatnonzero(member == TRAINED)


def read_folder(directory: Path, task: str = "") -> list[ScoredSet]:
    """Reads all files of predictions in a folder.

    Args:
      directory: folder with the files.
      task: 'regression' or 'classification'; '': taken from the shape of the first outputs.

    Raises:
      ScoreError: a file cannot be used, does not fit the others, or needs a file that is missing.
    """
    names = find_files(directory)
    require_known_references(names)
    files: list[PredictionFile] = []
    for path, name in names.items():
        files.append(read_file(path, name, task))
        task = task or ("classification" if files[0].outputs.ndim == 3 else "regression")
    _check_classes(files)
    sets: dict[str, list[PredictionFile]] = {}
    for file in files:
        sets.setdefault(file.name.forget_set, []).append(file)
    return [_scored_set(name, found) for name, found in sets.items()]


def _scored_set(name: str, files: list[PredictionFile]) -> ScoredSet:
    files = sorted(files, key=_rank)  # M_O's first: messages name a file that differs from them
    models: dict[ModelId, dict[str, PredictionFile]] = {}
    for file in files:
        models.setdefault((file.name.method, file.name.epochs), {})[file.name.split] = file
    _check_budgets(models)
    _check_splits(models)
    _check_samples(files)
    first = files[0]
    for file in files:
        if sorted(file.seeds) != sorted(first.seeds):
            raise ScoreError(f"{file.path} has the seeds {list(file.seeds)}, {first.path.name} "
                             f"{list(first.seeds)}\nallowed: the same seeds in all files of a "
                             "forget set")
    aligned = {model: {split: _aligned(found[split], first.seeds)
                       for split in _in_order(found)} for model, found in models.items()}
    _check_failures(aligned)
    _check_starts(files)
    scored = ScoredSet(name, first.seeds, aligned)
    if not len(scored.trained_places()):
        raise ScoreError(f"{_named(scored, 'forget')}: the array 'member' names no sample "
                         "of D_f that the models of all seeds were trained on\nat least one must "
                         f"be {TRAINED} in all seeds")
    member = scored.member("test")
    if member is not None and not np.any(member == UNSEEN):
        raise ScoreError(f"{_named(scored, 'test')}: the array 'member' names no test sample "
                         f"that no model has seen\nat least one must be {UNSEEN} in all seeds")
    return scored


def _named(scored: ScoredSet, split: str) -> Path:
    """The file that shows which of a split's samples were used in training."""
    file = scored.first_with(split, "member")
    return (file or scored.any_model[split]).path


def _rank(file: PredictionFile) -> tuple[int, str, int]:
    """M_O first and M_R last, as in results.csv."""
    name = file.name
    return {"original": 0, "retrain": 2}.get(name.method, 1), name.method, name.epochs


def _in_order(found: Iterable[str]) -> list[str]:
    order = ("test", "forget", "retain", "validation", "stamped")
    return sorted(found, key=order.index)


def _check_classes(files: list[PredictionFile]) -> None:
    first = files[0]
    for file in files:
        if file.outputs.shape[2:] != first.outputs.shape[2:]:
            raise ScoreError(f"{file.path} has {file.outputs.shape[2]} logits for each sample, "
                             f"{first.path.name} {first.outputs.shape[2]}\nallowed: the same "
                             "classes in all files")


def _check_budgets(models: Mapping[ModelId, Mapping[str, PredictionFile]]) -> None:
    for method in ("original", "retrain"):
        budgets = [epochs for name, epochs in models if name == method]
        if len(budgets) > 1:
            file = next(iter(models[method, budgets[1]].values()))
            raise ScoreError(f"{file.path} is a second {method!r}, beside that of budget "
                             f"{budgets[0]}\nallowed: one for each forget set")


def _check_splits(models: Mapping[ModelId, Mapping[str, PredictionFile]]) -> None:
    every = dict.fromkeys((*REQUIRED, *(s for found in models.values() for s in found)))
    for (method, epochs), found in models.items():
        for split in every:
            if split not in found:
                file = next(iter(found.values()))
                raise ScoreError(
                    f"{file.path} is there, and no file of the same model on the split {split!r}\n"
                    f"every model of a forget set needs the same splits, {' and '.join(REQUIRED)} "
                    f"at least: add {method}.{file.name.forget_set}.{epochs}.{split}"
                    f"{file.path.suffix}")


def _check_samples(files: list[PredictionFile]) -> None:
    first: dict[str, PredictionFile] = {}
    for file in files:
        other = first.setdefault(file.name.split, file)
        if len(file.ids) != len(other.ids):
            raise ScoreError(f"{file.path} has {len(file.ids)} samples, {other.path.name} "
                             f"{len(other.ids)}\nallowed: the same samples in all files of a "
                             "forget set and split")
        for what, mine, theirs in (("ids", file.ids, other.ids),
                                   ("labels", file.labels, other.labels)):
            differ = np.flatnonzero(mine != theirs)
            if len(differ):
                n = differ[0]
                raise ScoreError(f"{file.path} and {other.path.name} have other {what}: sample {n} "
                                 f"has {mine[n]!s} and {theirs[n]!s}\nallowed: the same samples in "
                                 "the same order, with the same labels")


def _aligned(file: PredictionFile, seeds: tuple[int, ...]) -> PredictionFile:
    """The file with its members in the order of these seeds."""
    order = [file.seeds.index(seed) for seed in seeds]
    further = dict(file.further)
    if "member" in further and further["member"].ndim == 2:
        further["member"] = further["member"][order]
    return dataclasses.replace(file, outputs=file.outputs[order], seeds=seeds, further=further)


def _check_failures(models: Mapping[ModelId, Mapping[str, PredictionFile]]) -> None:
    for found in models.values():
        first, *others = found.values()
        for file in others:
            apart = np.flatnonzero(file.failed != first.failed)
            if len(apart):
                bad, good = (file, first) if file.failed[apart[0]] else (first, file)
                raise ScoreError(f"{bad.path}: all outputs of seed {file.seeds[apart[0]]} are nan, "
                                 f"and in {good.path.name} they are not\nallowed: nan in all files "
                                 "of a member that failed in training, or in none")


def _check_starts(files: list[PredictionFile]) -> None:
    for file in files:
        start = file.further.get("from_seed")
        if start is not None and (start.shape != (1,) or start[0] not in file.seeds):
            raise ScoreError(f"{file.path}: the array 'from_seed' holds {start.tolist()}\nallowed: "
                             f"one of the seeds {list(file.seeds)}")
