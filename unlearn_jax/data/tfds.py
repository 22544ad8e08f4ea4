"""Any image data set of TensorFlow Datasets, read without TensorFlow: `tfds:cifar10`.

The data set's own splits are pooled, unless `data.split` is 'given'. A data set prepared as
ArrayRecord is read. Any other is downloaded and prepared, which needs a network and a data set
whose own code works without TensorFlow. The code of cifar10 and mnist needs TensorFlow: prepare
them once where it is installed, and copy the folder:

    tfds.builder("cifar10", file_format="array_record", data_dir=DIR).download_and_prepare()

TFDS stores most sets in another order than their files: sorted by a hash of a key, which the set's
own code gives each example and TFDS does not keep. So `train-000007` is not the eighth image of
the original file, unless `config.data.ids` is 'original'.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from unlearn_jax.data import given
from unlearn_jax.data.cache import Sample, cached_samples
from unlearn_jax.data.dataset import Dropped
from unlearn_jax.data.files import signature
from unlearn_jax.data.source import Source
from unlearn_jax.errors import InputError
from unlearn_jax.system import processes

_CHUNK = 256  # records read at a time
# Sets whose code numbers the examples of each split from 0 in file order and uses the number as
# the key: tensorflow_datasets/image_classification/mnist.py, cifar.py, cifar10_1.py.
_NUMBERED = ("cifar10", "cifar100", "cifar10_1", "emnist", "fashion_mnist", "kmnist", "mnist")


def load_tfds(settings, cache: Path) -> Source:
    """All images of a data set; see `Source`.

    `settings.path` is TFDS' data directory; empty: its default, ~/tensorflow_datasets. The image
    and label are the supervised keys, or else the features 'image' and 'label'. Other classes and
    whole numbers of at most 32 bits are attributes. `settings.ids` sets the ids:

    * `stored`: SPLIT-NUMBER in the order in which TFDS stores the examples.
    * `original`: SPLIT-NUMBER in the order of the set's files, if TFDS does not shuffle the set or
      the set is known to number its examples.
    * name of a feature: its text unchanged, or SPLIT-NUMBER from its whole number.

    Raises:
      InputError: an unknown data set, one that cannot be prepared, or one without an image and
        a label for `settings.task`, or without such ids; with given splits also an unknown split,
        none named train, or an id in two of them.
    """
    name = settings.source.partition(":")[2]
    builder = _prepared(name, settings.path)
    features = builder.info.features
    keys = builder.info.supervised_keys or ("image", "label")
    image, label = keys[0], keys[1]
    classes = settings.task == "classification"
    _check_features(name, features, image, label, classes)
    attributes = tuple(sorted(key for key, feature in features.items()
                              if key != label and _is_attribute(feature)))
    # images stay encoded, for the decoder that all sources share
    decoders = {image: tfds.decode.SkipDecoding()} \
        if isinstance(features[image], tfds.features.Image) else None

    _check_ids(builder, settings.ids)
    where, by_split = f"'tfds:{name}'", given.is_given(settings)
    splits = given.check_names(sorted(builder.info.splits), where) if by_split else {}

    def samples() -> Iterator[Sample | Dropped]:
        split_of: dict[str, str] = {}
        for split in sorted(builder.info.splits):
            records = builder.as_data_source(split, decoders=decoders)
            order = _order(builder, split, len(records), settings.ids)
            for start in range(0, len(records), _CHUNK):
                numbers = list(range(start, min(start + _CHUNK, len(records))))
                for i, record in zip(numbers, records.__getitems__(numbers)):
                    known = order[i] if order is not None else record[settings.ids]
                    own = _text(known) if isinstance(known, bytes | str) else f"{split}-{known:06d}"
                    if by_split and split_of.setdefault(own, split) != split:
                        raise InputError(f"{where} has the image {own!r} in two splits, "
                                         f"{split_of[own]!r} and {split!r}; config.data.split="
                                         f"{given.GIVEN!r} allows one (config.data.ids is "
                                         f"{settings.ids!r})")
                    if classes and record[label] < 0:  # TFDS marks a hidden label so
                        yield Dropped(own, "read", "no label")
                    else:
                        yield Sample(own, functools.partial(record.get, image),
                                     float(record[label]),
                                     (*(int(record[a]) for a in attributes),
                                      *((splits[split],) if by_split else ())))

    key = {"files": signature(Path(builder.data_path)), "features": [image, label],
           "classes": classes, "named_by": settings.ids}
    held = cached_samples(cache, re.sub("[^A-Za-z0-9_.]+", "-", f"tfds-{name}"), key,
                          settings.image_size, samples,
                          (*attributes, given.COLUMN) if by_split else attributes, min_side=1)
    if by_split:
        held = given.take_splits(held, splits, where)
    if classes:
        return Source(settings.source, settings.task, "class", tuple(features[label].names), held)
    return Source(settings.source, settings.task, "units", (), held)


def _check_ids(builder: tfds.core.DatasetBuilder, ids: str) -> None:
    if ids in ("stored", "original"):
        if ids == "stored" or builder.info.disable_shuffling or builder.name in _NUMBERED:
            return
    elif ids in builder.info.features and _names_examples(builder.info.features[ids]):
        return
    some = [name for name, feature in sorted(builder.info.features.items())
            if _names_examples(feature)]
    numbered = f"'original' with {', '.join(_NUMBERED)}"
    raise InputError(f"config.data.ids is {ids!r}; allowed with 'tfds:{builder.name}': 'stored'"
                     + "".join(f", {name!r}" for name in some)
                     + f" (a feature); {numbered}, whose code gives each example its number as key")


def _names_examples(feature) -> bool:
    """Whether each example may have its own value: a text, or a whole number that is no class."""
    whole = isinstance(feature, tfds.features.Tensor) and feature.shape == () \
        and np.issubdtype(feature.np_dtype, np.integer)
    return isinstance(feature, tfds.features.Text) or (
        whole and not isinstance(feature, tfds.features.ClassLabel))


def _order(builder: tfds.core.DatasetBuilder, split: str, count: int, ids: str):
    """The number of each stored example `[count]`; None if a feature names the examples."""
    if ids not in ("stored", "original"):
        return None
    if ids == "stored" or builder.info.disable_shuffling:
        return np.arange(count)
    # TFDS sorts by the hash of the key, with the split's name as salt (core/shuffle.py).
    hasher = tfds.core.hashing.Hasher(split)
    return np.array(sorted(range(count), key=hasher.hash_key))


def _text(name: bytes | str) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name


def _prepared(name: str, path: str) -> tfds.core.DatasetBuilder:
    directory = str(Path(path).expanduser()) if path else tfds.core.constants.DATA_DIR
    wish = f"config.data.source is 'tfds:{name}'"
    # The first of several processes prepares it, while the others wait.
    processes.on_first_process(wish, lambda: _prepare(name, directory, wish))
    builder = _builder(name, directory, wish)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(f"{wish}, which was prepared as {builder.info.file_format.value!r} in "
                         f"{str(builder.data_path)!r}; without TensorFlow only 'array_record' can "
                         "be read: prepare it again with that file_format")
    return builder


def _builder(name: str, directory: str, wish: str) -> tfds.core.DatasetBuilder:
    try:
        builder = tfds.builder(name, data_dir=directory)
        if not builder.is_prepared():
            builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    except (ValueError, AssertionError, ImportError) as e:  # TFDS' errors for unknown names
        first = str(e).splitlines()[0]
        raise InputError(f"{wish}, which is neither prepared under {directory!r} nor known to "
                         f"TensorFlow Datasets: {first}") from e
    return builder


def _prepare(name: str, directory: str, wish: str) -> None:
    builder = _builder(name, directory, wish)
    if builder.is_prepared():
        return
    try:
        builder.download_and_prepare()
    except Exception as e:  # a download and a data set's own code can raise anything
        cause = (str(e).splitlines() or [""])[-1]  # TFDS prints whole examples before it
        raise InputError(
            f"{wish}, which is not prepared under {directory!r} and cannot be prepared here "
            f"({type(e).__name__}: {cause}); prepare it where there are a network and "
            "TensorFlow, with file_format='array_record', and copy the folder") from e


def _check_features(name: str, features, image: str, label: str, classes: bool) -> None:
    held = ", ".join(sorted(features))
    if image not in features or len(features[image].shape or ()) != 3:
        raise InputError(f"'tfds:{name}' has no image feature {image!r}; it has {held}")
    feature = features[label] if label in features else None
    is_class = isinstance(feature, tfds.features.ClassLabel)
    is_number = isinstance(feature, tfds.features.Tensor) and feature.shape == () \
        and np.issubdtype(feature.np_dtype, np.number)
    if is_class != classes or not is_number:
        wanted = "a class label for a classification" if classes else "a number for a regression"
        raise InputError(f"'tfds:{name}' has no feature {label!r} that is {wanted} "
                         f"(config.data.task); it has {held}")


def _is_attribute(feature) -> bool:
    if isinstance(feature, tfds.features.ClassLabel):
        return True
    return isinstance(feature, tfds.features.Tensor) and feature.shape == () \
        and np.can_cast(feature.np_dtype, np.int32)
