"""Loads a data source and applies the study's steps: share, label range, quality filter."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from unlearn_jax.data import given, quality
from unlearn_jax.data.arrays import load_arrays
from unlearn_jax.data.dataset import Dataset, Dropped, fingerprint, first_equal
from unlearn_jax.data.digits import load_digits
from unlearn_jax.data.folder import load_folder
from unlearn_jax.data.source import Filter, Pixels, Source, in_memory
from unlearn_jax.data.synthetic import load_synthetic
from unlearn_jax.data.utkface import load_utkface
from unlearn_jax.errors import ConfigError, InputError
from unlearn_jax.labels import histogram, strata
from unlearn_jax.system.disk import human_bytes
from unlearn_jax.units import label_step


def _synthetic(settings, cache: Path) -> Source:
    del cache
    needed = settings.size * (3 * settings.image_size**2 + _FACE_BYTES)
    if needed > (held := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise InputError(f"config.data.size is {settings.size}: so many images of "
                         f"{settings.image_size} pixels take {human_bytes(needed)}, and this "
                         f"machine has {human_bytes(held)} of memory; ask for fewer or smaller "
                         "ones")
    d = load_synthetic(settings.size, settings.image_size, settings.seed, settings.label_noise)
    return Source(d.name, d.task, d.label_unit, d.class_names,
                  in_memory(d.images, d.labels, d.ids, d.attributes))


def _tfds(settings, cache: Path) -> Source:
    # imported here, as TensorFlow Datasets takes half a second that the other sources do not need
    from unlearn_jax.data.tfds import load_tfds
    return load_tfds(settings, cache)


_FACE_BYTES = 500  # bytes of the traits that a synthetic face is drawn from
_SUBSET = 1  # the data seed's stream; see splits.py

# name: (config.data, folder for decoded images) -> Source; 'tfds' is written tfds:NAME
SOURCES: dict[str, Callable[..., Source]] = {
    "synthetic": _synthetic,
    "utkface": load_utkface,
    "digits": load_digits,
    "folder": load_folder,
    "arrays": load_arrays,
    "tfds": _tfds,
}


def check_source(source: str) -> str:
    """The kind of a source: a key of `SOURCES`.

    Raises:
      ConfigError: there is no such source; lists those that exist.
    """
    kind, _, name = source.partition(":")
    if kind not in SOURCES or (kind == "tfds") != bool(name):
        options = ", ".join("tfds:NAME" if s == "tfds" else s for s in SOURCES)
        raise ConfigError(f"config.data.source is {source!r}; allowed: {options}")
    return kind


def load(settings, cache: Path) -> Dataset:
    """The data set that a config describes.

    The steps, in the study's order: all usable samples; a share of them, stratified by label
    (`stratified`); a range of labels (only if they are numbers); the quality filter; the first of
    equal images (only if `repeats` is 'drop'); numbers become classes (only with `groups`). The ids
    of samples outside the share or the range, which is a choice, are in `left_out_ids`. `dropped`
    lists images that the source could not use, that the quality filter refuses, or that repeat
    another one. Histograms of the source's own labels are taken after each step.

    Args:
      settings: the config's `data` section.
      cache: folder for decoded images; made where it is missing.

    Returns:
      The samples that are left, sorted by id.

    Raises:
      InputError: an unknown source, a task that the source does not support, a path without the
        files that the source needs, or no sample left.
    """
    kind = check_source(settings.source)
    source = SOURCES[kind](settings, Path(cache))
    if settings.groups and source.task != "regression":
        raise InputError(f"config.data.groups is {settings.groups}, but the source "
                         f"{settings.source!r} has classes of its own; allowed there: ()")
    if not settings.groups and source.task != settings.task:
        raise InputError(f"config.data.task is {settings.task!r}; the source "
                         f"{settings.source!r} is a {source.task}"
                         + (", or set config.data.groups" if source.task == "regression" else ""))
    _summarise(source)
    if source.task == "regression" and settings.label_unit:
        source = dataclasses.replace(source, label_unit=settings.label_unit)
    labels = source.samples.labels
    rows = np.arange(len(labels))
    histograms = {"all": histogram(labels)}
    if settings.fraction < 1:
        by_step = ((settings.label_min, label_step(settings)) if source.task == "regression"
                   else ())
        rows = stratified(given.strata_apart(strata(labels, *by_step), source.samples.splits),
                          settings.fraction, settings.seed)
        histograms["fraction"] = histogram(labels[rows])
        logging.info("%s: %d of %d images are outside the share of %g", source.name,
                     len(labels) - len(rows), len(labels), settings.fraction)
        _refuse_empty(rows, f"config.data.fraction={settings.fraction:g}", labels)
    if source.task == "regression":
        low, high = settings.label_min, settings.label_max
        inside = (labels[rows] >= low) & (labels[rows] <= high)
        logging.info("%s: %d of %d images have labels outside %g to %g (label_min, label_max)",
                     source.name, (~inside).sum(), len(rows), low, high)
        rows = rows[inside]
        histograms["range"] = histogram(labels[rows])
        _refuse_empty(rows, f"config.data.label_min={low:g}, label_max={high:g}", labels)
    left_out = np.delete(source.samples.ids, rows)
    pixels = source.samples.pixels(rows, _quality_filter(settings))
    refused = pixels.reasons != ""
    dropped = [Dropped(str(i), "quality", str(reason)) for i, reason in zip(
        source.samples.ids[rows[refused]], pixels.reasons[refused])]
    rows = rows[~refused]
    if settings.quality == "on":
        histograms["quality"] = histogram(labels[rows])
        _refuse_empty(rows, "config.data.quality='on'", labels)
        logging.info("quality: %d of %d images dropped", len(dropped), len(refused))
    if settings.repeats == "drop":
        twins = first_equal(pixels.digests)
        first = twins == np.arange(len(rows))
        dropped += _repeats(source, rows, twins)
        rows, pixels = rows[first], dataclasses.replace(
            pixels, images=pixels.images[first], digests=pixels.digests[first])
        histograms["repeats"] = histogram(labels[rows])
        logging.info("repeats: %d of %d images dropped", (~first).sum(), len(first))
    given.check_left(source.samples.splits, rows)
    if settings.groups:
        source = in_groups(source, settings.groups, settings.label_max)
    return _dataset(source, rows, pixels, (*source.samples.dropped, *dropped), histograms,
                    left_out)


def _repeats(source: Source, rows: np.ndarray, twins: np.ndarray) -> list[Dropped]:
    """The samples to drop among `rows` `[n]`; `twins` `[n]` are the first rows of equal images."""
    ids, labels = source.samples.ids[rows], source.samples.labels[rows]
    return [Dropped(str(ids[i]), "repeats", "the same pixels as another image"
                    + (", under another label" if labels[i] != labels[twins[i]] else "")
                    + f": {ids[twins[i]]}")
            for i in np.flatnonzero(twins != np.arange(len(rows)))]


def in_groups(source: Source, groups: Sequence[float], label_max: float) -> Source:
    """A regression's samples, each with the group of its label as its class.

    Args:
      source: a regression.
      groups: lower ends, ascending; a group extends to the next one's lower end, exclusive.
      label_max: end of the last group, inclusive; it appears only in the group's name.

    Returns:
      A classification of `len(groups)` classes with names such as `20to30`; a label below the first
      group has the class -1, which must not be used.
    """
    ends = (*groups[1:], label_max)
    labels = np.searchsorted(groups, source.samples.labels, side="right") - 1
    return dataclasses.replace(
        source, task="classification", label_unit="class",
        class_names=tuple(f"{low:g}to{high:g}" for low, high in zip(groups, ends)),
        samples=dataclasses.replace(source.samples, labels=labels.astype(np.float64)))


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a random share, with the same share of every label.

    round(fraction * N) rows are taken in all: floor(fraction * n) of a label with n rows, and one
    more of the labels with the largest remainders (Hamilton's method; equal remainders are ordered
    at random, so that no range of labels is favoured). So a label with fewer than 1 / fraction
    samples keeps one or none. Labels that are not integers are grouped by their integer part; for a
    regression the labels here are strata (`labels.strata`).

    Args:
      labels: [N].
      fraction: share to keep, above 0, at most 1.
      seed: decides which samples of a label are taken.

    Returns:
      [round(fraction * N)] int64, sorted.
    """
    _, strata, counts = np.unique(np.floor(labels), return_inverse=True, return_counts=True)
    quota = fraction * counts
    take = np.floor(quota).astype(int)
    missing = round(fraction * len(labels)) - int(take.sum())
    rng = np.random.default_rng([seed, _SUBSET])
    # the last key counts first; remainders such as 0.3 * 7 - 2 and 0.3 * 17 - 5 must tie
    order = np.lexsort((rng.random(len(take)), -np.round(quota - take, 9)))
    take[order[:missing]] += 1
    chosen = [rng.permutation(np.flatnonzero(strata == s))[:n] for s, n in enumerate(take)]
    return np.sort(np.concatenate(chosen))


def _quality_filter(settings) -> Filter | None:
    if settings.quality == "off":
        return None
    key = {"bounds": {k: v for k, v in settings.items() if k.startswith("quality")},
           "code": hashlib.sha256(Path(quality.__file__).read_bytes()).hexdigest()}
    return Filter(key, lambda images: quality.quality_reasons(images, settings))


def _dataset(source: Source, rows: np.ndarray, pixels: Pixels, dropped: tuple[Dropped, ...],
             histograms: dict[str, dict[str, int]], left_out: np.ndarray) -> Dataset:
    samples = source.samples
    labels = samples.labels[rows].astype(np.float32 if source.task == "regression" else np.int32)
    ids = samples.ids[rows]
    attributes = {name: column[rows] for name, column in samples.attributes.items()}
    return Dataset(
        name=source.name, images=pixels.images, labels=labels, ids=ids, task=source.task,
        label_unit=source.label_unit, num_classes=len(source.class_names),
        class_names=source.class_names, attributes=attributes, dropped=dropped,
        histograms=histograms, left_out_ids=left_out,
        fingerprint=fingerprint(pixels.images, labels, ids, pixels.digests),
        twins=first_equal(pixels.digests),
        given_splits=samples.splits[rows] if len(samples.splits) else samples.splits,
        sets=source.sets)


def _summarise(source: Source) -> None:
    samples = source.samples
    kinds, counts = np.unique([d.reason.split(":")[0] for d in samples.dropped],
                              return_counts=True)
    skipped = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts))
    logging.info("%s: %d usable images; skipped: %s", source.name, len(samples.ids),
                 skipped or "none")


def _refuse_empty(rows: np.ndarray, step: str, labels: np.ndarray) -> None:
    if not len(rows):
        raise InputError(f"{step} leaves no sample of {len(labels)}; labels there run from "
                         f"{labels.min():g} to {labels.max():g}")
