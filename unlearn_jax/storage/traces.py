"""Which parts of a store have seen given samples.

A run notes in the store which samples its data have, and in which split each is (`record_samples`,
`record_forget_set`). The notes hold digests of the ids instead of the ids, so that a note may stay
where the samples must go. `find_traces` compares them with the ids of a deletion request.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_jax.storage.half_finished import POPULATION, saved_stages
from unlearn_jax.storage.store import (
    Store,
    StoreError,
    canonical_json,
    load_array,
    parse_marker,
    stage_key,
)

SAMPLES = "samples"  # the stage of the notes
TRAIN, VALIDATION, TEST = range(3)
DATA, _COMPILED = "data", "compiled"
ARRAYS = "arrays-*.npz"  # files in DATA that data/arrays.py writes
# What a part of a store has seen of the samples.
SAW, UNLEARNED, WITHOUT, UNKNOWN = "saw", "unlearned", "without", "unknown"
CACHE, MODELS, DERIVED, PROGRESS = "cache", "models", "derived", "progress"
_KEY = re.compile("[0-9a-f]{16}")
_ENTRY = re.compile("(.+)-(index|[0-9]+)-[0-9a-f]{16}")  # of the image cache (data/cache.py)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A part of a store that has to do with the samples.

    Attributes:
      path: its directory or file.
      kind: CACHE (images or ids of a source), MODELS (a stage with a checkpoint), DERIVED (numbers
        computed by models: predictions, explanations) or PROGRESS (half-finished models).
      saw: SAW: it holds them, or was trained on them; UNLEARNED: its models started from an M_O
        that was, and a method then unlearned all of them; WITHOUT: trained without them; UNKNOWN.
      why: in words.
      parts: what determines the stage; {} of a cache or of progress.
    """

    path: Path
    kind: str
    saw: str
    why: str
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def id_digests(ids: Iterable[str]) -> np.ndarray:
    """`[N, 16]` uint8: a digest of each id, the same for all Unicode forms of its characters."""
    found = [hashlib.blake2b(unicodedata.normalize("NFC", own).encode(), digest_size=16).digest()
             for own in ids]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)


def record_samples(store: Store, original: str, parts: Mapping[str, Any],
                   splits: Sequence[Iterable[str]]) -> None:
    """Notes which samples M_O's data have. All processes call it.

    Args:
      store: where M_O is stored or will be.
      original: the key of M_O.
      parts: of M_O's stage; `data` and `split` identify the data for training schemes beside M_O.
      splits: the ids of the training, validation and test split.
    """
    about = {"original": original, "data": parts.get("data", ""), "split": parts.get("split", {})}
    digests = [id_digests(ids) for ids in splits]
    split = np.repeat(np.arange(len(digests), dtype=np.int8), [len(d) for d in digests])
    _note(store, about, {"ids.npy": np.concatenate(digests), "split.npy": split})


def record_forget_set(store: Store, forget: Mapping[str, str], ids: Iterable[str]) -> None:
    """Notes the samples of a forget set. All processes call it.

    Args:
      store: of the run.
      forget: its part of the keys of stages (`stages.graph.forget_parts`).
      ids: of its training and validation samples.
    """
    _note(store, {"forget": dict(forget)}, {"ids.npy": id_digests(ids)})


def _note(store: Store, parts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    key = stage_key(SAMPLES, parts)
    if not store.complete(SAMPLES, key):
        with store.write(SAMPLES, key, parts) as directory:
            for name, array in arrays.items():
                np.save(directory / name, array)


def find_traces(root: Path, ids: Iterable[str]) -> list[Trace]:
    """All parts of a store that have to do with the samples, sorted by kind and path.

    Models whose data had none of the samples are left out, and so are caches without them.

    Args:
      root: of the store.
      ids: of the samples, in any Unicode form.
    """
    asked = _as_set(id_digests(ids))
    markers, damaged = _markers(root)
    notes = _Notes(markers, asked)
    found = list(_caches(root, asked))
    models: dict[str, Trace] = {}
    for directory, marker in markers.items():
        if directory.parent.name != SAMPLES and _is_model(marker):
            saw, why = notes.judge(marker["parts"])
            if saw:
                models[directory.name] = Trace(directory, MODELS, saw, why, marker["parts"])
    found += models.values()
    for directory, marker in markers.items():
        parent = models.get(_model_of(marker))
        if parent is not None:
            found.append(Trace(directory, DERIVED, parent.saw, "computed by the models of "
                               f"{parent.path.parent.name}/{parent.path.name}", marker["parts"]))
    found += [Trace(path, MODELS, UNKNOWN, why) for path, why in damaged.items()]
    found += _progress(root, notes)
    order = (CACHE, MODELS, DERIVED, PROGRESS)
    return sorted(found, key=lambda trace: (order.index(trace.kind), trace.path))


def removable(trace: Trace) -> bool:
    """Whether a deletion removes it (forget_data): what saw the samples, and what can be made anew.

    Models that were unlearned or trained without the samples stay, and so do models of which it is
    not known. Caches and progress of which it is not known go: a run makes them again.
    """
    return trace.saw == SAW or trace.saw == UNKNOWN and trace.kind in (CACHE, PROGRESS)


def work_directories(root: Path, keys: Set[str]) -> list[Path]:
    """Work directories whose runs used stages of these keys.

    A store does not know the work directories of its runs. The folder that holds the store is
    searched, two levels deep.
    """
    found = []
    for pattern in ("*/run.json", "*/*/run.json"):
        for path in root.absolute().parent.glob(pattern):
            try:
                record = json.loads(path.read_bytes())
                same = Path(record["store"]).absolute() == root.absolute()
                used = {stage["key"] for stage in record["stages"]}
            except (OSError, ValueError, KeyError, TypeError):
                continue  # cut off, or of an earlier version: its own report says so
            if same and used & keys:
                found.append(path.parent)
    return sorted(found)


def unknown_ids(root: Path, ids: Iterable[str]) -> list[str]:
    """Those of the ids that no note and no cache of a store has."""
    held: set[bytes] = set()
    for path in (root / SAMPLES).glob("*/ids.npy"):
        held.update(_as_list(load_array(path.parent, "ids.npy")))
    for path in (root / DATA).glob("*/"):
        held.update(_as_list(id_digests(_ids_of_entry(path) or ())))
    return [own for own in ids if not held.intersection(_as_list(id_digests([own])))]


def is_store(root: Path) -> bool:
    """Whether a directory looks like a store."""
    return (root / DATA).is_dir() or (root / POPULATION).is_dir() or any(
        _KEY.fullmatch(path.name) for path in root.glob("*/*/"))


class _Notes:
    """The notes of a store, compared with the samples."""

    def __init__(self, markers: Mapping[Path, dict[str, Any]], asked: set[bytes]) -> None:
        self._by_key = {path.name: marker["parts"] for path, marker in markers.items()}
        # The samples that data have, in the training, validation and test split.
        self._seen: dict[str, tuple[set[bytes], ...]] = {}
        self._forgotten: dict[str, set[bytes]] = {}
        for path, marker in markers.items():
            parts = marker["parts"]
            if path.parent.name != SAMPLES:
                continue
            ids = _as_list(load_array(path, "ids.npy"))
            if "forget" in parts:
                self._forgotten[_text(parts["forget"])] = asked.intersection(ids)
                continue
            split = load_array(path, "split.npy")
            seen = tuple(asked.intersection(ids[i] for i in np.flatnonzero(split == part))
                         for part in (TRAIN, VALIDATION, TEST))
            self._seen[parts["original"]] = seen
            self._seen[_text([parts["data"], parts["split"]])] = seen

    def judge(self, parts: Mapping[str, Any]) -> tuple[str, str]:
        """What models of these parts saw of the samples, and why; ('', '') if they are no data."""
        seen = self._of(parts)
        if seen is None:
            return UNKNOWN, ("no note says which samples its data had; a run of this version with "
                             "its config makes one")
        trained, chose, tested = seen
        learned = trained | chose
        if not learned:
            return (WITHOUT, "they are in its test split") if tested else ("", "")
        several = f"{len(learned)} of them"
        how = f"trained on {len(trained)} of them" + (
            f", and {len(chose)} chose its epoch" if chose else "")
        if "forget" not in parts:
            return SAW, how
        forgotten = self._forgotten.get(_text(parts["forget"]))
        if forgotten is None:
            return UNKNOWN, "no note says which samples its forget set has"
        name = parts["forget"].get("name", "")
        if kept := learned - forgotten:
            return SAW, f"{len(kept)} of them are not in its forget set {name}"
        if "original" in parts:
            return UNLEARNED, f"its M_O was {how}; then {name} was unlearned"
        return WITHOUT, f"trained without its forget set {name}, which has {several}"

    def original(self, key: str) -> bool | None:
        """Whether the M_O of this key saw samples; None: not known."""
        return any(self._seen[key][:TEST]) if key in self._seen else None

    def _of(self, parts: Mapping[str, Any]) -> tuple[set[bytes], ...] | None:
        for key in (parts.get("original"), _text([parts.get("data"), parts.get("split")])):
            if key in self._seen:
                return self._seen[key]
        above = self._by_key.get(parts.get("training", ""))  # of a scheme after a deletion
        return self._of(above) if above is not None else None


def _caches(root: Path, asked: set[bytes]) -> Iterator[Trace]:
    """Entries of the image cache that hold the samples, or may hold them."""
    named: dict[str, bool] = {}  # by source: whether one of its lists of ids has the samples
    entries = []
    for path in sorted((root / DATA).glob("*/")):
        if found := _ENTRY.fullmatch(path.name):
            held = _ids_of_entry(path)
            has = None if held is None else bool(asked.intersection(_as_list(id_digests(held))))
            if found[2] == "index" and has is not None:
                named[found[1]] = named.get(found[1], False) or has
            entries.append((path, found, has))
    for path in sorted((root / DATA).glob(ARRAYS)):
        held = _ids_of_entry(path)
        if held is None:
            yield Trace(path, CACHE, UNKNOWN, "images that a Python program handed over; the file "
                                              "cannot be read")
        elif asked.intersection(_as_list(id_digests(held))):
            yield Trace(path, CACHE, SAW, "images that a Python program handed over, theirs among "
                                          "them")
    for path, found, has in entries:
        if has:
            yield Trace(path, CACHE, SAW, "a list of ids and labels with them"
                        if found[2] == "index" else "decoded images, theirs among them")
        elif has is None and named.get(found[1], True):
            yield Trace(path, CACHE, UNKNOWN, "decoded images of the same source; an earlier "
                                              "version did not note which")


def _ids_of_entry(path: Path) -> list[str] | None:
    """The ids in an entry of the image cache, or in a file of arrays; None: it does not say."""
    try:
        with np.load(path / "columns.npz" if path.is_dir() else path) as columns:
            if "ids" not in columns:
                return None
            dropped = columns["dropped"][:, 0].tolist() if "dropped" in columns else []
            return [*columns["ids"].tolist(), *dropped]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None  # it is damaged, or has just been removed


def _progress(root: Path, notes: _Notes) -> Iterator[Trace]:
    for path in sorted((root / POPULATION).glob("*/*/")):
        if path.name.startswith("."):
            continue
        stages = saved_stages(path)
        saw = [notes.original(key) if method == "original" else None for method, key in stages]
        if any(saw):
            yield Trace(path, PROGRESS, SAW, "half-finished models, an M_O with them among these")
        elif not stages or None in saw:
            yield Trace(path, PROGRESS, UNKNOWN, "half-finished models")


def _markers(root: Path) -> tuple[dict[Path, dict[str, Any]], dict[Path, str]]:
    """The markers of all finished stages, and what is wrong with damaged ones."""
    markers, damaged = {}, {}
    for folder in sorted(root.glob("*/")):
        if folder.name in (DATA, POPULATION, _COMPILED) or folder.name.startswith("."):
            continue
        for directory in sorted(folder.glob("*/")):
            if not _KEY.fullmatch(directory.name):
                continue
            try:
                markers[directory] = parse_marker(directory)
            except StoreError as e:
                damaged[directory] = str(e)
    return markers, damaged


def _is_model(marker: Mapping[str, Any]) -> bool:
    return any(name.startswith("checkpoint/") for name in marker["files"])


def _model_of(marker: Mapping[str, Any]) -> str:
    """The key of the models that a stage was computed by; '' of other stages."""
    model = marker["parts"].get("model", "")
    return model if isinstance(model, str) else ""


def _text(value: Any) -> str:
    return canonical_json({"": value})


def _as_list(digests: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in digests]


def _as_set(digests: np.ndarray) -> set[bytes]:
    return set(_as_list(digests))
