"""Files of predictions: METHOD.FORGETSET.BUDGET.SPLIT with .npz, .npy or .csv. Never unpickles."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from unlearn_jax.errors import InputError
from unlearn_jax.labels import find_integer
from unlearn_jax.report.tables.predictions import SPLITS
from unlearn_jax.results import TRAINED, UNSEEN, VALIDATED

ENDINGS = (".npz", ".npy", ".csv")
SAMPLES = "samples"  # begins the name of the CSV that holds labels and ids of .npy files
_NAMED = re.compile(r"([^.]+)\.(.+)\.(\d+)\.([^.]+)")
_METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
_FORGET_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_ARRAYS = ("outputs", "labels", "ids", "seeds")
T = TypeVar("T")
_MEMBER = {TRAINED: "trained on", VALIDATED: "validation", UNSEEN: "unseen"}


class ScoreError(InputError):
    """A file of predictions cannot be scored; the message names the file."""


@dataclasses.dataclass(frozen=True)
class Name:
    """The parts of the name of a file of predictions."""

    method: str
    forget_set: str
    epochs: int
    split: str


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionFile:
    """A file of predictions, checked by itself.

    Attributes:
      path: path of the file.
      name: the parts of its name.
      outputs: `[M, N]` label units or logits `[M, N, C]`, float32; all NaN for a failed member.
      labels: `[N]` float32 label units, or int32 classes.
      ids: `[N]` str, all different.
      seeds: `[M]`, all different.
      further: optional arrays: `member` `[N]` or `[M, N]`, `peers`, ...
    """

    path: Path
    name: Name
    outputs: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    seeds: tuple[int, ...]
    further: Mapping[str, np.ndarray]

    @property
    def failed(self) -> np.ndarray:
        """`[M]` bool: True for members with only NaN outputs."""
        return np.isnan(self.outputs).all(axis=tuple(range(1, self.outputs.ndim)))


def find_files(directory: Path) -> dict[Path, Name]:
    """The files of predictions in a folder, sorted by name.

    Raises:
      ScoreError: the folder is missing or has no such files, or a name has another form.
    """
    if not directory.is_dir():
        raise ScoreError(f"{directory} is no folder of predictions\nallowed: a folder with files "
                         "named METHOD.FORGETSET.BUDGET.SPLIT.npz")
    paths = [p for p in sorted(directory.iterdir()) if p.suffix in ENDINGS and p.is_file()
             and not p.name.startswith((f"{SAMPLES}.", "."))]
    found = {path: _parse(path) for path in paths}
    if not found:
        raise ScoreError(f"{directory} has no file of predictions\nallowed: files named "
                         f"METHOD.FORGETSET.BUDGET.SPLIT with {', '.join(ENDINGS)}")
    of_name: dict[Name, Path] = {}
    for path, name in found.items():
        if name in of_name:
            raise ScoreError(f"{path} and {of_name[name].name} are of the same models and samples"
                             "\nkeep one of them")
        of_name[name] = path
    return found


def _parse(path: Path) -> Name:
    match = _NAMED.fullmatch(path.stem)
    if not match or not _FORGET_SET.fullmatch(match[2]):
        raise ScoreError(f"{path} is not named METHOD.FORGETSET.BUDGET.SPLIT{path.suffix}\n"
                         f"an example: ft.class-3.2.test{path.suffix}, after 2 epochs of "
                         "fine-tuning; the original model has budget 0")
    method, forget_set, epochs, split = match.groups()
    if split not in SPLITS:
        raise ScoreError(f"{path} is of the split {split!r}\nallowed: {', '.join(SPLITS)}")
    if not _METHOD.fullmatch(method) or method == "median":
        raise ScoreError(f"{path} is of the method {method!r}\nallowed: 'original' (M_O), "
                         "'retrain' (M_R) and names of your own of letters, digits and _ + -, but "
                         "not 'median'")
    return Name(method, forget_set, int(epochs), split)


def require_known_references(names: Mapping[Path, Name]) -> None:
    """Refuses a method with nearly the name of M_O or M_R if that model is missing.

    Raises:
      ScoreError: names the file.
    """
    for path, name in names.items():
        methods = {n.method for n in names.values() if n.forget_set == name.forget_set}
        meant = difflib.get_close_matches(name.method.lower(), ("original", "retrain"), 1, 0.8)
        if meant and meant[0] not in methods:
            raise ScoreError(f"{path} is of the method {name.method!r}, and forget set "
                             f"{name.forget_set} has no {meant[0]!r}\nM_O is called 'original' and "
                             "M_R 'retrain'; rename the files")


def read_file(path: Path, name: Name, task: str) -> PredictionFile:
    """Reads and checks one file.

    Args:
      path: path of the file.
      name: the parts of its name.
      task: 'regression' or 'classification'; '': taken from the outputs' shape.

    Raises:
      ScoreError: names the file, the fault and the allowed values.
    """
    arrays = {".npz": _read_npz, ".npy": _read_npy, ".csv": _read_csv}[path.suffix](path, name)
    if "logits" in arrays and "outputs" not in arrays:
        arrays["outputs"] = arrays.pop("logits")
    for key in _ARRAYS:
        if key not in arrays:
            raise ScoreError(f"{path}: the array {key!r} is missing\nit must hold 'outputs' [M, N] "
                             "(or [M, N, C], also by the name 'logits'), 'labels' [N], 'ids' [N] "
                             "and 'seeds' [M]")
    outputs, labels, ids, seeds = (arrays.pop(key) for key in _ARRAYS)
    task = task or ("classification" if outputs.ndim == 3 else "regression")
    _check_shapes(path, outputs, labels, ids, seeds, task)
    outputs, labels = _checked_values(path, outputs, labels, task)
    numbers = _whole(path, "seeds", seeds)
    if len(set(numbers.tolist())) < len(numbers) or numbers.min() < 0:
        raise ScoreError(f"{path}: the array 'seeds' holds {numbers.tolist()}\nallowed: whole "
                         "numbers from 0 on, each once")
    ids = ids.astype(str)
    if len(np.unique(ids)) < len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise ScoreError(f"{path}: the array 'ids' holds {str(values[counts > 1][0])!r} more than "
                         "once\nallowed: a text or number for each sample, each once")
    file = PredictionFile(path, name, outputs, labels, ids, tuple(numbers.tolist()),
                          _further(path, arrays, outputs, task))
    _refuse_some_nan(file)
    return file


def _check_shapes(path: Path, outputs, labels, ids, seeds, task: str) -> None:
    rank = 3 if task == "classification" else 2
    form = "logits [M, N, C] of a classification" if rank == 3 else "outputs [M, N] of a regression"
    n = outputs.shape[1] if outputs.ndim > 1 else -1
    good = {"outputs": outputs.ndim == rank and outputs.size > 0, "labels": labels.shape == (n,),
            "ids": ids.shape == (n,), "seeds": seeds.shape == outputs.shape[:1]}
    arrays = {"outputs": outputs, "labels": labels, "ids": ids, "seeds": seeds}
    for key, fits in good.items():
        if not fits:
            more = " (of two classes C is 2)" if key == "outputs" and rank == 3 else ""
            beside = "" if key == "outputs" else f", outputs {list(outputs.shape)}"
            raise ScoreError(f"{path}: the array {key!r} has shape {list(arrays[key].shape)}"
                             f"{beside}\nallowed: {form}{more}, labels [N], ids [N], seeds [M]")


def _checked_values(path: Path, outputs, labels, task: str) -> tuple[np.ndarray, np.ndarray]:
    for key, array in (("outputs", outputs), ("labels", labels)):
        if array.dtype.kind not in "fiu":
            raise ScoreError(f"{path}: the array {key!r} has dtype {array.dtype}\n"
                             "allowed: numbers")
    if not np.isfinite(labels).all():
        raise ScoreError(f"{path}: the array 'labels' holds {labels[~np.isfinite(labels)][0]}\n"
                         "allowed: finite numbers")
    if task == "regression":
        return outputs.astype(np.float32), labels.astype(np.float32)
    classes = outputs.shape[2]
    if (labels % 1 != 0).any() or labels.min() < 0 or labels.max() >= classes or classes < 2:
        raise ScoreError(f"{path}: the array 'labels' runs from {labels.min()} to {labels.max()}, "
                         f"and there are {classes} logits for each sample\nallowed: whole numbers "
                         f"from 0 to {max(classes, 2) - 1}, and at least two classes")
    return outputs.astype(np.float32), labels.astype(np.int32)


def _further(path: Path, arrays: dict[str, np.ndarray], outputs: np.ndarray,
             task: str) -> dict[str, np.ndarray]:
    """The optional arrays; unknown ones are left out."""
    n = outputs.shape[1]
    found = {}
    if "member" in arrays:
        member = _whole(path, "member", arrays["member"])
        if member.shape not in ((n,), outputs.shape[:2]) or not np.isin(member, [*_MEMBER]).all():
            raise ScoreError(f"{path}: the array 'member' has shape {list(member.shape)} and holds "
                             f"{np.unique(member).tolist()[:5]}\nallowed: [N] or [M, N] of "
                             + ", ".join(f"{k} ({words})" for k, words in _MEMBER.items()))
        found["member"] = member.astype(np.int8)
    if "peers" in arrays:
        peers = _whole(path, "peers", arrays["peers"])
        if peers.ndim != 1 or not len(peers) or peers.min() < 0 or peers.max() >= n:
            raise ScoreError(f"{path}: the array 'peers' is no list of places in the {n} samples\n"
                             f"allowed: whole numbers [P] from 0 to {n - 1}")
        found["peers"] = peers.astype(np.int32)
    for key, count in (("trained_labels", n), ("peer_labels", len(found.get("peers", ())))):
        if key in arrays:
            if arrays[key].shape != (count,):
                raise ScoreError(f"{path}: the array {key!r} has shape {list(arrays[key].shape)}\n"
                                 f"allowed: [{count}]")
            values = np.zeros((1, count, outputs.shape[2]) if task == "classification"
                              else (1, count), np.float32)
            found[key] = _checked_values(path, values, arrays[key], task)[1]
    if "from_seed" in arrays:
        found["from_seed"] = _whole(path, "from_seed", np.atleast_1d(arrays["from_seed"]))
    return found


def _refuse_some_nan(file: PredictionFile) -> None:
    """Refuses outputs that are not finite or too large to add up, unless a member has only NaN."""
    outputs = file.outputs[~file.failed]
    most = np.finfo(np.float32).max / outputs.shape[1]
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(outputs) < most)
    if bad.any():
        place = tuple(np.argwhere(bad)[0])
        seed = np.array(file.seeds)[~file.failed][place[0]]
        raise ScoreError(f"{file.path}: outputs of seed {seed} hold {outputs[place]} for the "
                         f"sample {str(file.ids[place[1]])!r}\nallowed: finite numbers that can be "
                         "added up; of a member that failed in training all outputs are nan")


def _whole(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    array = array.astype(np.int8) if array.dtype.kind == "b" else array
    if array.dtype.kind not in "fiu" or (array % 1 != 0).any():
        raise ScoreError(f"{path}: the array {key!r} holds other things than whole numbers (dtype "
                         f"{array.dtype})\nallowed: whole numbers")
    return array.astype(np.int64)


def _read_npz(path: Path, name: Name) -> dict[str, np.ndarray]:
    del name

    def read() -> dict[str, np.ndarray]:
        # NumPy leaves a file open if it cannot read it.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    return _loaded(path, read)


def _read_npy(path: Path, name: Name) -> dict[str, np.ndarray]:
    """Outputs only; labels and ids are in samples.FORGETSET.SPLIT.csv, and seeds are 0 to M-1."""
    def read() -> np.ndarray:
        with path.open("rb") as stream:
            return np.load(stream, allow_pickle=False)

    outputs = _loaded(path, read)
    beside = path.with_name(f"{SAMPLES}.{name.forget_set}.{name.split}.csv")
    if not beside.is_file():
        raise ScoreError(f"{path} holds outputs alone, and {beside} is missing\nit must have the "
                         "columns id and label (and may have member), a row for each sample")
    table = _table(beside, ("id", "label"))
    return {"outputs": outputs, "labels": _column(beside, table, "label"),
            "ids": table["id"].to_numpy(str), "seeds": np.arange(len(outputs)),
            **_member_column(beside, table)}


def _read_csv(path: Path, name: Name) -> dict[str, np.ndarray]:
    """One row per seed and sample: seed, id, label, output or logit_0, logit_1, ..., member."""
    del name
    table = _table(path, ("seed", "id", "label"))
    logits = [c for c in table.columns if re.fullmatch(r"logit_\d+", c)]
    wanted = [f"logit_{i}" for i in range(len(logits))] or ["output"]
    if sorted(logits) != sorted(wanted) and logits or not set(wanted) <= {*table.columns}:
        raise ScoreError(f"{path} has the columns {', '.join(table.columns)}\nallowed: seed, id, "
                         "label, and output (regression) or logit_0, logit_1, ...; member")
    seeds = _column(path, table, "seed")
    blocks = [table[seeds == seed] for seed in dict.fromkeys(seeds.tolist())]
    same = ("id", "label")
    for block in blocks:
        if any(block[c].tolist() != blocks[0][c].tolist() for c in same):
            raise ScoreError(f"{path}: the samples of seed {block['seed'].iloc[0]} are not those of"
                             f" seed {blocks[0]['seed'].iloc[0]}\neach seed has a row for each "
                             "sample, with the same labels in the same order")
    outputs = np.stack([np.stack([_column(path, b, c) for c in wanted], axis=-1) for b in blocks])
    members = [_member_column(path, block) for block in blocks]
    member = {"member": np.stack([m["member"] for m in members])} if members[0] else {}
    return {"outputs": outputs if logits else outputs[..., 0],
            "labels": _column(path, blocks[0], "label"), "ids": blocks[0]["id"].to_numpy(str),
            "seeds": np.array(list(dict.fromkeys(seeds.tolist()))), **member}


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = _loaded(path, lambda: pd.read_csv(path, dtype=str, keep_default_na=False))
    missing = [c for c in columns if c not in table.columns]
    if missing or table.empty:
        raise ScoreError(f"{path} has " + (f"no column {missing[0]!r}" if missing else "no rows")
                         + f"\nallowed: {', '.join(columns)} and others, a row for each sample")
    return table


def _column(path: Path, table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of numbers; 'nan' is a number."""
    text = table[name].str.strip()
    values = pd.to_numeric(text, errors="coerce").to_numpy(float)
    bad = np.isnan(values) & (text.str.lower() != "nan").to_numpy()
    if bad.any():
        raise ScoreError(f"{path}: the column {name!r} holds {text[bad].iloc[0]!r}\n"
                         "allowed: numbers")
    return values


def _member_column(path: Path, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The column `member`, as numbers or in words."""
    if "member" not in table.columns:
        return {}
    numbers = {words: number for number, words in _MEMBER.items()}
    text = table["member"].str.strip()
    found = [numbers.get(cell, find_integer(cell)) for cell in text]
    if None in found:
        raise ScoreError(f"{path}: the column 'member' holds {text.iloc[found.index(None)]!r}\n"
                         "allowed: " + ", ".join(f"{k} or '{v}'" for k, v in _MEMBER.items()))
    return {"member": np.array(found)}


def _loaded(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # NumPy, zipfile and pandas raise many types for damaged files
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in str(error) or "pickle" in str(error):
            said = "it is no file of arrays, or holds Python objects (pickled), which are not read"
        raise ScoreError(f"{path} cannot be read: {said}\nallowed: arrays of numbers, and ids as "
                         "text (ids.astype(str))") from None
