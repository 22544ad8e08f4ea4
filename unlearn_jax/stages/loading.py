"""The data of a study, split and laid on the device, and what has to be said of them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from unlearn_jax import data
from unlearn_jax.config import default_config
from unlearn_jax.data.augment import augmentation
from unlearn_jax.data.dataset import Dataset
from unlearn_jax.data.resident import Streamed, make_resident
from unlearn_jax.data.splits import Splits, make_splits
from unlearn_jax.engine import recalibration
from unlearn_jax.engine.layout import find_devices
from unlearn_jax.engine.memory import image_bytes
from unlearn_jax.errors import InputError
from unlearn_jax.models import build_model
from unlearn_jax.stages import belonging, workdir
from unlearn_jax.stages.graph import RunContext
from unlearn_jax.storage.store import Store
from unlearn_jax.system import processes
from unlearn_jax.train import balanced_weights, make_loss
from unlearn_jax.units import FACES


def prepare(config: ml_collections.ConfigDict, config_name: str, store: Store,
            run: workdir.RunRecord, bar: Callable[..., Any] | None) -> RunContext:
    """Loads the data, splits it and lays it on the device, if that has room for the images."""
    study = load(config, config_name, store, run, bar)
    record_data(study)
    return study


def load(config: ml_collections.ConfigDict, config_name: str, store: Store,
         run: workdir.RunRecord, bar: Callable[..., Any] | None) -> RunContext:
    """Like `prepare`, but notes nothing in the run."""
    began = time.monotonic()
    dataset = data.load(config.data, store.root / "data")
    splits = make_splits(dataset, config.data, config.forget, config.original.trained_on)
    trained, stamped = dataset, np.zeros(0, np.int32)
    if splits.injection:
        trained, stamped = splits.injection.training_view(dataset, splits.test)
    if (only := only_label(trained, splits.train)) is not None:
        raise InputError(f"all {len(splits.train)} training samples of {dataset.name!r} have the "
                         f"{only}; allowed: at least two labels, as a model learns nothing from "
                         "one")
    mine = next(d for d in find_devices(config.parallel.backend)
                if d.process_index == jax.process_index())
    most_bytes = processes.lowest("device memory", image_bytes(config.parallel, mine))
    resident, index = make_resident(trained, splits.rows, augmentation(config.data),
                                    config.data.seed, most_bytes)
    jax.block_until_ready(resident.images)
    seconds = time.monotonic() - began
    logging.info("data: %s, %d images of %d pixels in %.1f s: train %d (%d with copies), "
                 "validation %d, test %d", dataset.name, len(dataset.labels),
                 config.data.image_size, seconds, len(splits.train), len(splits.rows.source),
                 len(splits.validation), len(splits.test))
    if isinstance(resident, Streamed):
        logging.info("the images stay on the host, %.2f GB with copies, and are streamed",
                     (resident.images.nbytes + resident.copies.nbytes) / 1e9)
    for f in splits.forget_sets:
        logging.info("forget set %s: %d training and %d validation samples", f.name,
                     len(f.train), len(f.validation))
        for note in filter(None, (f.untrained, f.skipped)):
            logging.warning("forget set %s: %s", f.name, note)
    model = build_model(config.model, config.data.image_size, dataset.num_classes)
    weights: tuple[float, ...] = ()
    if config.train.class_weights == "balanced":
        weights = balanced_weights(trained.labels[splits.rows.source], dataset.num_classes)
    loss = make_loss(config.train.loss, config.model.output_scale, weights)
    notes = belonging.notes(config.model, model, dataset.images, splits.train)
    return RunContext(config, config_name, store, run, dataset, splits, resident, index, model,
                      loss, bar, stamped, seconds, notes)


def record_data(study: RunContext) -> None:
    """Notes the data, and warnings about them, in the record of the run."""
    for warning in (lost_unasked(study.config.data, study.dataset),
                    asked_by_number(study.config),
                    *without_labels(study.dataset, study.splits),
                    *seen_elsewhere(study.dataset, study.splits), *study.notes):
        if warning:
            logging.warning(warning)
            study.run.warn(warning)
    if study.config.retrain.mode == "off":
        logging.warning("config.retrain.mode='off': no M_R is trained, and what compares with it "
                        "is left out")
    left = recalibration.share_left(study.config, len(study.splits.rows.source))
    trains = not study.config.original.path or study.config.retrain.mode == "train"
    if trains and left > recalibration.LITTLE and study.config.train.recalibrate_norms == "off":
        study.run.warn(recalibration.in_words(left, "", None))
    for f in study.splits.forget_sets:
        for note in filter(None, (f.untrained, f.skipped)):
            study.run.warn(f"forget set {f.name}: {note}")
    study.run.record_stage("data", "", study.dataset.fingerprint, "computed", study.load_seconds,
                           len(study.dataset.labels))
    study.run.write_data(study.dataset, study.splits)


def asked_by_number(config: ml_collections.ConfigDict) -> str:
    """Warns when forget sets name samples by numbers that differ from the order of the files."""
    if (not config.data.source.startswith("tfds:") or config.data.ids != "stored"
            or not any(request.startswith("ids:") for request in config.forget.sets)):
        return ""
    return ("ids such as 'train-000007' number the examples as TensorFlow Datasets stores them, in "
            "another order than the files of most sets; config.data.ids='original', or the name of "
            "a feature, takes other ids")


def only_label(dataset: Dataset, rows: np.ndarray) -> str | None:
    """The only label of the samples `rows` `[n]`, in words; None if there are several labels."""
    labels = dataset.labels[rows]
    if len(labels) and (labels != labels[0]).any():
        return None
    known = dataset.class_names[labels[0]] if dataset.class_names else f"{labels[0]:g}"
    return f"{'class' if dataset.class_names else 'label'} {known!r}"


def without_labels(dataset: Dataset, splits: Splits) -> Iterator[str]:
    """Warns of forget sets that leave samples of one label only: M_R learns nothing from them."""
    for f in splits.forget_sets:
        if only := only_label(dataset, splits.retain_train(f)):
            yield (f"forget set {f.name}: all training samples that it leaves have the {only}; M_R "
                   "can learn nothing else")


def seen_elsewhere(dataset: Dataset, splits: Splits) -> Iterator[str]:
    """Warns of images that are in two splits, or in D_f and in D_r."""
    advice = "config.data.repeats='drop' keeps one of each"
    if n := dataset.repeated(splits.test, splits.train):
        yield (f"{n} of {len(splits.test)} test samples have the same pixels as a training sample; "
               + advice)
    for f in splits.forget_sets:
        forgotten = splits.forget(f)
        if n := dataset.repeated(forgotten, splits.retain_train(f)):
            yield (f"forget set {f.name}: {n} of {len(forgotten)} samples have the same pixels as "
                   "a sample of the retain set, so that M_R has learned them too; " + advice)


def lost_unasked(settings: ml_collections.ConfigDict, dataset: Dataset) -> str:
    """Warns when the default label range, meant for ages, drops samples of other data.

    Args:
      settings: the config's `data` section.
      dataset: as loaded.

    Returns:
      A warning; '' if no sample was dropped.
    """
    default, steps = default_config().data, dataset.histograms
    bounds = settings.label_min, settings.label_max
    if ("range" not in steps or settings.source in FACES
            or bounds != (default.label_min, default.label_max)):
        return ""
    before = sum(steps.get("fraction", steps["all"]).values())
    lost = before - sum(steps["range"].values())
    if not lost:
        return ""
    return (f"{lost} of {before} samples have labels outside {bounds[0]:g} to {bounds[1]:g} and "
            "are left out: that is the default, which is meant for ages; config.data.label_min and "
            "label_max set another range")
