"""The disk cache of image sources: their samples, and chosen images as one uint8 array.

There are two kinds of entries, each a folder. `NAME-index-KEY` lists the samples of a source; every
image was decoded once, coarsely, to check that this is possible. `NAME-SIZE-KEY` holds the pixels
of chosen samples, mapped rather than read. So a study of 30 % of a set stores 30 % of its pixels.

An entry is built beside its place, flushed and renamed when whole, so a killed build leaves nothing
that looks whole (disk.py); a file lock, which dies with its process, makes a second process wait.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import threadpoolctl

from unlearn_jax.data.dataset import Dropped, image_digests
from unlearn_jax.data.decode import MIN_SIDE, UnusableImage, check_image, decode_image
from unlearn_jax.data.source import Filter, Pixels, Samples
from unlearn_jax.errors import InputError
from unlearn_jax.system import bars, disk, processes

# Raise it when decode.py, what sources read or the format changes: old entries are then ignored.
VERSION = 3

_CHUNK = 32  # images that a thread takes at once ...
_CHUNK_BYTES = 2**20  # ... or fewer, so that their pixels stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as its source holds it, with its id, label and attributes.

    `read` gives the encoded image, or [H, W, C] uint8; it is called before the next sample is taken
    from the walk.
    """

    id: str
    read: Callable[[], bytes | np.ndarray]
    label: float
    attributes: tuple[int, ...] = ()


Walk = Callable[[], Iterator[Sample | Dropped]]


def cached_samples(cache: Path, name: str, key: dict, image_size: int, walk: Walk,
                   attributes: tuple[str, ...] = (), min_side: int = MIN_SIDE) -> Samples:
    """Returns the usable samples of a source: from the cache, or read and then added to it.

    Args:
      cache: folder of all entries.
      name: name of the source; file-name safe.
      key: JSON values that change when the samples do, such as a hash of the files' times.
      image_size: height and width, pixels.
      walk: yields the source's samples; called to build an entry, not to open one.
      attributes: names of the samples' attributes.
      min_side: smaller images are dropped, pixels.

    Raises:
      InputError: no usable image, an id that occurs twice, or a damaged entry. `Samples.pixels`
        raises it if the source has changed meanwhile.
    """
    parts = {**key, "min_side": min_side, "attributes": attributes, "version": VERSION}
    entry = cache / f"{name}-index-{_digest(parts)}"
    _make(entry, lambda part: _build_index(part, name, walk, attributes, min_side))
    with _damage_is_an_input_error(entry), np.load(entry / "columns.npz") as columns:
        columns = dict(columns)
        ids = columns["ids"]
        dropped = tuple(Dropped(*map(str, row)) for row in columns["dropped"])
        held = {a: columns[f"attribute_{a}"] for a in attributes}
        labels = columns["labels"]

    def pixels(rows: np.ndarray, refuse: Filter | None) -> Pixels:
        chosen = ids[rows]
        choice = {**parts, "image_size": image_size, "filter": refuse.key if refuse else None,
                  "ids": hashlib.sha256("\n".join(chosen.tolist()).encode()).hexdigest()}
        entry = cache / f"{name}-{image_size}-{_digest(choice)}"
        _make(entry, lambda part: _build_pixels(part, name, walk, chosen, image_size, refuse,
                                                min_side))
        return _open_pixels(entry)

    return Samples(ids, labels, held, dropped, pixels)


def _build_index(part: Path, name: str, walk: Walk, attributes: tuple[str, ...],
                 min_side: int) -> None:
    dropped: list[Dropped] = []
    kept: list[tuple[str, float, tuple[int, ...]]] = []

    def check(chunk: list[tuple[Sample, Any]]) -> list[str]:
        reasons = []
        for _, content in chunk:
            try:
                check_image(content, min_side)
            except UnusableImage as e:
                reasons.append(str(e))
            else:
                reasons.append("")
        return reasons

    def samples() -> Iterator[Sample]:
        for sample in walk():
            if isinstance(sample, Dropped):
                dropped.append(sample)
            else:
                yield sample

    for chunk, reasons in _in_threads(samples(), check, _CHUNK, f"checking {name}"):
        for (sample, _), reason in zip(chunk, reasons):
            if reason:
                dropped.append(Dropped(sample.id, "read", reason))
            else:
                kept.append((sample.id, sample.label, sample.attributes))
    if not kept:
        raise InputError(f"source {name!r} holds no usable image; {_reasons(dropped)}")
    kept.sort()
    ids, labels, values = zip(*kept)
    for one, next_one in zip(ids, ids[1:]):
        if one == next_one:
            raise InputError(f"source {name!r} has two samples of the id {one!r}; "
                             "ids must be unique")
    columns: dict[str, Any] = {f"attribute_{a}": np.array(column, np.int32)
                               for a, column in zip(attributes, zip(*values))}
    rows = sorted(dataclasses.astuple(d) for d in dropped)
    np.savez(part / "columns.npz", ids=np.array(ids), labels=np.array(labels, np.float64),
             dropped=np.array(rows, str).reshape(-1, 3), **columns)


def _reasons(dropped: list[Dropped]) -> str:
    """The number of dropped samples by reason, each with an example; the most frequent first."""
    found: dict[str, list[str]] = {}
    for d in dropped:
        found.setdefault(d.reason, []).append(d.id)
    parts = [f"{len(ids)} {reason} (such as {ids[0]!r})"
             for reason, ids in sorted(found.items(), key=lambda item: -len(item[1]))]
    more = f"; and {len(parts) - 5} more reasons" if len(parts) > 5 else ""
    return f"left out: {'; '.join(parts[:5])}{more}" if parts else "it has none at all"


def _build_pixels(part: Path, name: str, walk: Walk, ids: np.ndarray, image_size: int,
                  refuse: Filter | None, min_side: int) -> None:
    shape = (image_size, image_size, 3)
    chunk_size = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * image_size**2)))
    wanted = set(ids.tolist())

    def decode(chunk: list[tuple[Sample, Any]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        images = np.stack([decode_image(content, image_size, min_side) for _, content in chunk])
        reasons = refuse.reasons(images) if refuse else [""] * len(images)
        images = images[[not reason for reason in reasons]]
        return images, image_digests(images), reasons

    disk.require_space(part, len(ids) * math.prod(shape))
    kept, digests, found = [], [np.zeros((0, 16), np.uint8)], {}
    samples = (s for s in walk() if isinstance(s, Sample) and s.id in wanted)
    with (part / "images.npy").open("wb") as f:
        _write_header(f, (0, *shape))
        try:
            for chunk, (images, chunk_digests, reasons) in _in_threads(
                    samples, decode, chunk_size, f"decoding {name}", len(ids)):
                f.write(images.data)
                digests.append(chunk_digests)
                for (sample, _), reason in zip(chunk, reasons):
                    found[sample.id] = reason
                    if not reason:
                        kept.append(sample.id)
        except UnusableImage as e:
            raise _changed(name) from e
        if len(found) != len(ids):
            raise _changed(name)
        f.seek(0)
        _write_header(f, (len(kept), *shape))
    order = np.argsort(np.array(kept, str), kind="stable")
    if (order != np.arange(len(order))).any():  # a .tar has its own order
        _reorder(part / "images.npy", order)
    # The ids are for a deletion (storage/traces.py); entries of earlier versions lack them.
    np.savez(part / "columns.npz", digests=np.concatenate(digests)[order],
             reasons=np.array([found[i] for i in ids.tolist()], str), ids=ids)


def _reorder(path: Path, order: np.ndarray) -> None:
    images = np.load(path, mmap_mode="r")
    with path.with_name("sorted.npy").open("wb") as f:
        _write_header(f, images.shape)
        for row in order:
            f.write(images[row].data)
    os.replace(path.with_name("sorted.npy"), path)


def _changed(name: str) -> InputError:
    return InputError(f"the images of source {name!r} changed while they were read; run again")


def _in_threads(samples: Iterator[Sample], work: Callable[[list], Any], chunk_size: int,
                title: str, total: int | None = None) -> Iterator[tuple[list, Any]]:
    """Yields (chunk, work(chunk)) in the samples' order; a chunk is a list of (sample, content).

    This thread reads, since an archive has one read position. Other threads decode side by side,
    since decoding releases the interpreter lock.
    """
    workers = _workers()
    pending: collections.deque[tuple[list, concurrent.futures.Future]] = collections.deque()
    # One thread each for numpy's own products: its threads would compete with these.
    with threadpoolctl.threadpool_limits(1, "blas"), \
            concurrent.futures.ThreadPoolExecutor(workers) as pool, \
            bars.work_bar()(desc=title, total=total, unit=" images", delay=bars.PATIENCE) as bar:

        def collect() -> tuple[list, Any]:
            chunk, future = pending.popleft()
            result = future.result()
            bar.update(len(chunk))
            # drops the content: the consumer may keep the samples
            return [(sample, None) for sample, _ in chunk], result

        chunk = []
        for sample in samples:
            chunk.append((sample, sample.read()))
            if len(chunk) == chunk_size:
                pending.append((chunk, pool.submit(work, chunk)))
                chunk = []
            if len(pending) > 4 * workers:
                yield collect()
        if chunk:
            pending.append((chunk, pool.submit(work, chunk)))
        while pending:
            yield collect()


def check_entry(entry: Path) -> None:
    """Reads everything in an entry.

    Raises:
      InputError: it is damaged.
    """
    if (entry / "images.npy").exists():
        _open_pixels(entry)
        return
    with _damage_is_an_input_error(entry), np.load(entry / "columns.npz") as columns:
        dict(columns)


def _open_pixels(entry: Path) -> Pixels:
    with _damage_is_an_input_error(entry):
        with np.load(entry / "columns.npz") as columns:
            columns = dict(columns)
        if not len(columns["digests"]):  # an empty file cannot be mapped
            images = np.load(entry / "images.npy")
        else:
            images = np.load(entry / "images.npy", mmap_mode="r")
        images = np.asarray(images)
        damaged = int((_digests(images) != columns["digests"]).any(1).sum())
        if damaged:
            raise ValueError(f"{damaged} of {len(images)} images differ from their digests")
    return Pixels(images, columns["digests"], columns["reasons"])


def _digests(images: np.ndarray) -> np.ndarray:
    """`image_digests` in threads.

    Every image is read at every opening. Otherwise models could be trained on images that a failing
    disk or a stray write has changed, under the fingerprint of the true images. SHA-256 reads
    1 GB/s per core: the 23,707 faces of UTKFace take 0.2 s at 48 pixels, and 4 s on one core at
    224, where one epoch takes minutes. Training reads the same pages later.
    """
    step = max(1, _CHUNK_BYTES // max(1, images[:1].nbytes))
    parts = [images[i:i + step] for i in range(0, len(images), step)]
    with concurrent.futures.ThreadPoolExecutor(_workers()) as pool:
        return np.concatenate([np.zeros((0, 16), np.uint8), *pool.map(image_digests, parts)])


def _workers() -> int:
    return min(len(os.sched_getaffinity(0)), 16)


def _write_header(f: IO[bytes], shape: tuple[int, ...]) -> None:
    # numpy leaves room for a longer first axis, so that this header can be rewritten
    np.lib.format.write_array_header_1_0(
        f, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _make(entry: Path, build: Callable[[Path], None]) -> None:
    """Builds an entry if there is none."""
    if entry.exists():
        return
    # Each process of a program runs this by itself, and waits for the lock's holder alone.
    with processes.alone(), disk.lock(
            entry.with_name(entry.name + ".lock"),
            f"waiting for another process that is decoding the images of {entry}"):
        if entry.exists():
            return
        with disk.temporary_directory(entry) as part:
            build(part)
            try:
                disk.move_into_place(part, entry)
            except OSError:
                if not entry.exists():  # else another process was first: its entry is as good
                    raise


@contextlib.contextmanager
def _damage_is_an_input_error(entry: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:  # for damaged files NumPy and zipfile raise a dozen types
        raise InputError(f"cached images in {str(entry)!r} are damaged ({e}); delete that "
                         "folder and run again") from e


def _digest(parts: dict) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
