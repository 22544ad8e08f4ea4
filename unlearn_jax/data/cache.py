"""Decoded images on disk: every source of image files is decoded once into one uint8 array.

An entry is a folder of `images.npy` (mapped, not read), `columns.npz` and `about.json`. It is
built beside its place and renamed when whole, so a killed build leaves nothing that looks whole;
a file lock, which dies with its process, makes a second process wait instead of decoding too.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from absl import logging

from unlearn_jax.data.dataset import Dropped, image_digests
from unlearn_jax.data.decode import MIN_SIDE, UnusableImage, decode_image
from unlearn_jax.data.source import Samples
from unlearn_jax.errors import InputError

VERSION = 1  # raise it when decode.py or the format changes: old entries are then left aside

_CHUNK = 32  # images a worker takes at a time
_PROBES = 32  # images whose digests are checked when an entry is opened


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as its source has it: encoded or as an array, and what is known of it."""

    id: str
    content: bytes | np.ndarray
    label: float
    attributes: tuple[int, ...] = ()


def decoded(cache: Path, name: str, key: dict, image_size: int,
            samples: Callable[[], Iterator[Sample | Dropped]],
            attributes: tuple[str, ...] = (), min_side: int = MIN_SIDE) -> Samples:
    """Open the cache's entry for a source, building it first where there is none.

    Args:
      cache: folder of all entries.
      name: of the source; file-name safe.
      key: everything that decides the samples (JSON values), such as a digest of file times.
      image_size: pixels.
      samples: walks over the source; called only to build.
      attributes: names of the samples' attributes.
      min_side: smaller images are dropped, pixels.

    Raises:
      InputError: no usable image, an id that occurs twice, or a damaged entry.
    """
    parts = {**key, "image_size": image_size, "min_side": min_side, "attributes": attributes,
             "version": VERSION}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    entry = cache / f"{name}-{image_size}-{digest}"
    if not entry.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(entry.with_name(entry.name + ".lock")) as alone:
            if alone:
                for leftover in cache.glob(entry.name + ".part-*"):
                    shutil.rmtree(leftover)  # of a killed build
            if not entry.exists():
                _build(entry, name, image_size, samples, attributes, min_side)
    return _open(entry)


def remembered(cache: Path, name: str, key: dict, compute: Callable[[], Any]) -> Any:
    """What `compute` returns (JSON values), kept under a digest of `key` for the next time."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"{name}-{digest}.json"
    if path.exists():
        return json.loads(path.read_text())
    value = compute()
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{uuid.uuid4().hex}")
    part.write_text(json.dumps(value))
    os.replace(part, path)
    return value


def _build(entry: Path, name: str, image_size: int, samples, attributes: tuple[str, ...],
           min_side: int) -> None:
    logging.info("%s: decoding at %d pixels; later runs reuse this", name, image_size)
    part = entry.with_name(f"{entry.name}.part-{uuid.uuid4().hex}")
    part.mkdir()
    try:
        kept, digests, dropped = _decode_all(part / "images.npy", name, image_size, samples(),
                                             min_side)
        if not kept:
            example = f", such as {dropped[0].id!r} ({dropped[0].reason})" if dropped else ""
            raise InputError(f"source {name!r} holds no usable image; "
                             f"{len(dropped)} were left out{example}")
        ids = np.array([s.id for s in kept])
        _refuse_repeated(name, ids)
        columns = {f"attribute_{a}": np.array([s.attributes[i] for s in kept], np.int32)
                   for i, a in enumerate(attributes)}
        np.savez(part / "columns.npz", ids=ids, labels=np.array([s.label for s in kept]),
                 digests=digests, **columns)
        dropped = sorted(dataclasses.astuple(d) for d in dropped)
        about = {"attributes": attributes, "dropped": dropped}
        (part / "about.json").write_text(json.dumps(about, indent=1))
        try:
            os.rename(part, entry)
        except OSError:
            if not entry.exists():  # else another process was first: its entry is as good
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _decode_all(path: Path, name: str, image_size: int, samples, min_side: int):
    """Decodes in threads (the decoders release the interpreter lock) and writes in order."""
    kept, digests, dropped = [], [], []
    workers = min(len(os.sched_getaffinity(0)), 16)
    pending = collections.deque()
    shape = (image_size, image_size, 3)
    with path.open("wb") as f, concurrent.futures.ThreadPoolExecutor(workers) as pool, \
            tqdm.tqdm(desc=f"decoding {name}", unit=" images", leave=False, disable=None) as bar:
        _write_header(f, (0, *shape))

        def collect() -> None:
            chunk, images, reasons, chunk_digests = pending.popleft().result()
            for sample, reason in zip(chunk, reasons):
                if reason:
                    dropped.append(Dropped(sample.id, "read", reason))
                else:
                    kept.append(dataclasses.replace(sample, content=b""))
            f.write(images.data)
            digests.append(chunk_digests)
            bar.update(len(chunk))

        chunk = []
        for sample in samples:
            if isinstance(sample, Dropped):
                dropped.append(sample)
                continue
            chunk.append(sample)
            if len(chunk) == _CHUNK:
                pending.append(pool.submit(_decode_chunk, chunk, image_size, min_side))
                chunk = []
            if len(pending) > 4 * workers:
                collect()
        if chunk:
            pending.append(pool.submit(_decode_chunk, chunk, image_size, min_side))
        while pending:
            collect()
        f.seek(0)
        _write_header(f, (len(kept), *shape))
    return kept, np.concatenate([np.zeros((0, 16), np.uint8), *digests]), dropped


def _decode_chunk(chunk: list[Sample], image_size: int, min_side: int):
    images = np.empty((len(chunk), image_size, image_size, 3), np.uint8)
    reasons, n = [], 0
    for sample in chunk:
        try:
            images[n] = decode_image(sample.content, image_size, min_side)
        except UnusableImage as e:
            reasons.append(str(e))
        else:
            reasons.append("")
            n += 1
    return chunk, images[:n], reasons, image_digests(images[:n])


def _write_header(f, shape: tuple[int, ...]) -> None:
    # numpy leaves room for a longer first axis, so that this header can be written again
    np.lib.format.write_array_header_1_0(
        f, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _open(entry: Path) -> Samples:
    try:
        images = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        with np.load(entry / "columns.npz", allow_pickle=False) as columns:
            columns = dict(columns)
        about = json.loads((entry / "about.json").read_text())
        # A power cut can leave a file of the right length full of zeros.
        probes = np.unique(np.linspace(0, len(images) - 1, _PROBES).astype(int))
        if not np.array_equal(image_digests(images[probes]), columns["digests"][probes]):
            raise ValueError("images differ from their digests")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise InputError(f"decoded images in {str(entry)!r} are damaged ({e}); delete that "
                         "folder and run again") from e
    rows = np.argsort(columns["ids"], kind="stable")
    return Samples(
        images=images, rows=rows, labels=columns["labels"][rows], ids=columns["ids"][rows],
        attributes={a: columns[f"attribute_{a}"][rows] for a in about["attributes"]},
        digests=columns["digests"][rows], dropped=tuple(Dropped(*d) for d in about["dropped"]))


def _refuse_repeated(name: str, ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"source {name!r} has {counts.max()} samples of the id "
                         f"{values[counts.argmax()]!r}; ids must be unique")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Holds a file lock; yields whether this process is surely alone."""
    with path.open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("another process is decoding these images; waiting for it")
            fcntl.flock(f, fcntl.LOCK_EX)
        except OSError as e:  # some cluster file systems have no locks
            logging.warning("no lock on %s (%s): processes may decode the same images", path, e)
            yield False
            return
        yield True
