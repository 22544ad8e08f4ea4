"""Lists what is available, one per line:  python -m unlearn_jax.listing TOPIC

    methods    values of --config.unlearn.method
    metrics    values of the column `metric` of results.csv; parameters are in capitals
    audits     elements of --config.eval.audits
    networks   values of --config.model.name
    data       values of --config.data.source
    configs    values of --config
    keys       keys of the config, --config.KEY=VALUE: meaning, default, allowed values

M_O is the original model, M_R the model that is retrained without the forget set D_f, and D_r the
rest of the training set.

    python -m unlearn_jax.listing ids --config=FILE [--config.KEY=VALUE] [--store=DIR] [--out=FILE]

writes the ids of all samples of a data set as CSV: id, split, label, file.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections

from unlearn_jax import data as data_sources
from unlearn_jax import models
from unlearn_jax.audits import AUDITS
from unlearn_jax.commandline import read_config
from unlearn_jax.config import check_config, completed
from unlearn_jax.config.keys import KEYS
from unlearn_jax.config.names import CONFIGS
from unlearn_jax.config.values import allowed_text
from unlearn_jax.data import SOURCES
from unlearn_jax.data.locations import location
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS
from unlearn_jax.metrics import catalogue
from unlearn_jax.networks.registry import NETWORKS
from unlearn_jax.startup import run
from unlearn_jax.system import disk
from unlearn_jax.system.cells import rows_text


def methods() -> dict[str, str]:
    """Values of `--config.unlearn.method`, each with its meaning."""
    folder = Path(__file__).with_name("methods")
    return {name: first_line(folder / f"{name}.py") for name in METHODS}


# Placeholders for words that a report takes from its run (`report/tables/names.py`).
_WORDS_OF_A_RUN = {
    "split": "SPLIT", "unit": "label units", "alpha_unit": " label units",
    "errors": "the errors", "others": "start from other weights",
    "utility": "MAE of M_R / MAE of the model, or accuracy of the model / accuracy of M_R",
}


def metrics() -> dict[str, str]:
    """Values of the column `metric` of results.csv, parameters in capitals."""
    return {record.name: re.sub(
                r"\{(\w+)\}", lambda part: _WORDS_OF_A_RUN.get(part[1], part[1]),
                f"{record.title}: {record.definition}")
            for record in catalogue.RECORDS}


def audits() -> dict[str, str]:
    """Elements of `--config.eval.audits`."""
    return {name: _sentence(function.__doc__ or "") for name, function in AUDITS.items()}


def networks() -> dict[str, str]:
    """Values of `--config.model.name`."""
    resnets = {name: f"ResNet of {sum(blocks)} {'bottleneck' if bottleneck else 'basic'} "
                  f"block{'s' * (sum(blocks) > 1)} in {len(blocks)} "
                  f"stage{'s' * (len(blocks) > 1)}"
               for name, (blocks, bottleneck) in models.DEPTHS.items()}
    return resnets | {name: network.line for name, network in NETWORKS.items()}


def data() -> dict[str, str]:
    """Values of `--config.data.source`."""
    folder = Path(__file__).with_name("data")
    return {name + ":NAME" * (name == "tfds"): first_line(folder / f"{name}.py")
            for name in SOURCES}


def configs() -> dict[str, str]:
    """Values of `--config`, from any folder."""
    return {file.stem: first_line(file) for file in sorted(CONFIGS.glob("*.py"))
            if "def get_config" in file.read_text(encoding="utf-8")}


def keys() -> dict[str, str]:
    """Keys of the config, as `--config.KEY=VALUE` takes them: meaning, default, allowed values."""
    found = {name: f"{key.meaning} [default: {key.default!r}; allowed: {allowed_text(key)}]"
             for name, key in KEYS.items()}
    for name, method in METHODS.items():
        for option, default in method.options.items():
            found[f"unlearn.{name}.{option}"] = (
                f"option of {name}, explained at the top of methods/{name}.py "
                f"[default: {default!r}]")
    return found


TOPICS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": methods, "metrics": metrics, "audits": audits, "networks": networks, "data": data,
    "configs": configs, "keys": keys,
}


def ids(arguments: list[str]) -> None:
    """Writes the ids of all samples of a config's data set.

    Raises:
      InputError: a wrong flag or config, or data that cannot be loaded.
    """
    parser = argparse.ArgumentParser(prog="unlearn-jax list ids", add_help=False)
    parser.add_argument("--store", type=Path, default=Path("runs/store"))
    parser.add_argument("--out", type=Path)
    own, rest = parser.parse_known_args(arguments)
    config = completed(read_config(rest))
    with config.unlocked():
        config.forget.sets = ("random:0.1",)  # a file of ids may not be written yet
        check_config(config)
        config.forget.sets = ()
    text = rows_text(("id", "split", "label", "file"), id_rows(config, own.store / "data"))
    if own.out:
        disk.write_file(own.out, text)
        print(own.out)
    else:
        sys.stdout.write(text)


def id_rows(config: ml_collections.ConfigDict, cache: Path) -> list[dict[str, Any]]:
    """A row per sample, sorted by id: id, split, label, file.

    The split is train, validation or test; 'left out' for a sample outside the configured share or
    range of labels; or 'dropped' for a file that cannot be used, which dropped.csv of a run names
    with the reason. These have no label.

    Args:
      config: its sections `data` and `forget` are read.
      cache: folder for decoded images.

    Raises:
      InputError: the data cannot be loaded or split.
    """
    dataset = data_sources.load(config.data, cache)
    splits = make_splits(dataset, config.data, config.forget)
    found = [(own, "left out", "") for own in dataset.left_out_ids.tolist()]
    found += [(d.id, "dropped", "") for d in dataset.dropped]
    for name in ("train", "validation", "test"):
        for row in getattr(splits, name):
            label = dataset.labels[row]
            found.append((str(dataset.ids[row]), name,
                          dataset.class_names[label] if dataset.class_names else f"{label:g}"))
    return [{"id": own, "split": split, "label": label, "file": location(config.data, own)}
            for own, split, label in sorted(found)]


def first_line(file: Path) -> str:
    """The first sentence of a module's docstring."""
    return _sentence(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")


def _sentence(text: str) -> str:
    """The first line, without a command at its end."""
    return text.strip().partition("\n")[0].partition(":  ")[0]


def main(arguments: list[str]) -> None:
    """Prints a topic; `--help` prints which topics there are.

    Raises:
      InputError: the topic does not exist.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    if arguments[:1] == ["ids"]:
        ids(arguments[1:])
        return
    if len(arguments) != 1 or arguments[0] not in TOPICS:
        raise InputError(f"list takes one of {', '.join(TOPICS)}, ids --config=FILE, not "
                         f"{' '.join(arguments)!r}")
    found = TOPICS[arguments[0]]()
    width = max(map(len, found))
    for name, line in found.items():
        print(f"{name:{width}}  {line}")


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
