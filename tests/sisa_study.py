"""A study of a linear model with SISA: 60 training samples, two of which have copies.

As a script it trains, and kills itself in the second epoch of a given slice:

    python tests/sisa_study.py STORE SLICE
"""

import os
import signal
import sys
import types
from pathlib import Path

import numpy as np
from toy import MODEL, resident

from unlearn_jax.config import default_config
from unlearn_jax.data.resident import RowIndex
from unlearn_jax.data.splits import ForgetSet, Rows, Splits
from unlearn_jax.engine import run as engine
from unlearn_jax.stages import sisa
from unlearn_jax.stages.graph import RunContext, original_stage
from unlearn_jax.storage.store import Store
from unlearn_jax.train import make_loss

TRAIN, VALIDATION, TEST = np.split(np.arange(80, dtype=np.int32), [60, 70])
# Sample 5 has two copies and sample 7 has one: the resident rows 80, 81 and 82.
ROWS = Rows(np.sort(np.append(TRAIN, [5, 5, 7])).astype(np.int32),
            np.concatenate([np.zeros(6, int), [1, 2], np.zeros(2, int), [1], np.zeros(52, int)]))
INDEX = RowIndex(80, np.array([5 * 3 + 1, 5 * 3 + 2, 7 * 3 + 1]), 3)
SOURCES = np.append(np.arange(80), [5, 5, 7])  # the sample of each resident row
DATA = resident(83)
SEEDS = (0, 1)


class Log:
    """Replaces the run's records."""

    def __init__(self):
        self.stages, self.tables, self.warnings = [], {}, []

    def warn(self, message):
        self.warnings.append(message)

    def record_stage(self, stage, forget_set, key, status, seconds, images, members, epochs,
                     from_seed=-1):
        self.stages.append((stage, forget_set, status, members, images))

    def record_start(self, program, compile_seconds, first_step_seconds):
        assert compile_seconds >= 0
        assert first_step_seconds is None or first_step_seconds > 0

    def write_table(self, name, rows, columns):
        self.tables[name] = rows


def forget(name, rows) -> ForgetSet:
    """A forget set of training samples, with one validation sample."""
    return ForgetSet(name, name, np.sort(np.array(rows, np.int32)), VALIDATION[:1])


def make_study(store, *forget_sets, **changes) -> RunContext:
    """The study; `changes` are keys of the config, such as `train__epochs`."""
    config = default_config()
    defaults = dict(seeds=SEEDS, train__epochs=3, train__batch_size=8, train__optimizer="sgd",
                    train__learning_rate=0.05, parallel__members=1, unlearn__method="sisa",
                    train__recalibrate_norms="off",  # the model has no norms
                    unlearn__sisa__shards=3, unlearn__sisa__slices=2)
    config.update_from_flattened_dict(
        {k.replace("__", "."): v for k, v in {**defaults, **changes}.items()})
    dataset = types.SimpleNamespace(fingerprint="f" * 32, num_classes=0, class_names=(),
                                    label_unit="years",
                                    ids=np.array([f"id-{i}" for i in range(80)]))
    splits = Splits(TRAIN, VALIDATION, TEST, ROWS, forget_sets)
    return RunContext(config, "sisa", Store(store), Log(), dataset, splits, DATA, INDEX, MODEL,
                      make_loss("mse", 10.0), None)


def make_sisa(study: RunContext) -> sisa.Sisa:
    """SISA for the study, planned and not trained."""
    return sisa.make_scheme(study, original_stage(study), study.config.unlearn.sisa)


def _die(at_slice: str) -> None:
    batches = engine.epoch_batches

    def dying(member, name, epoch, *args):
        if (name, epoch) == (f"sisa/slice-{at_slice}", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(member, name, epoch, *args)

    engine.epoch_batches = dying


if __name__ == "__main__":
    _die(sys.argv[2])
    make_sisa(make_study(Path(sys.argv[1]), train__checkpoint_seconds=0.0)).run()
