"""Feature injection in linear models:  python -m unlearn_jax.linear_injection --config=FILE

Ridge regression, or for classes logistic regression of one class against the rest, learns from
the config's training images, averaged down to 8 x 8 pixels and standardised. A further feature
reveals the labels of the first forget set and is 0 elsewhere. Then M_O is unlearned by gradient
descent on D_r, by one Newton step on D_r, by one step by the influence of D_f, and by the
projective residual update. The remaining weight of the feature, and the distance of all other
weights from M_R's, are printed and written to OUT/linear_injection.csv. No network is trained;
augmented copies and `data.inject`'s patches are not used.

Every seed of the config draws its own D_r with replacement (a bootstrap); D_f is always whole.
On D_r the feature is always 0. So gradient descent forgets it by the penalty alone: slowly, and
more slowly with a smaller --ridge. For the same reason a Newton step removes all of it, even if
every other weight is wrong: its remaining weight is 0 by construction, and only its distance from
M_R tests it (0 for a regression, whose objective is quadratic). Influence and residual update use
D_f, and both numbers test them.
Source: Izzo et al. 2021, "Approximate Data Deletion from Machine Learning Models".
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from unlearn_jax import commandline, data
from unlearn_jax.config import check_config, completed
from unlearn_jax.data.splits import make_splits
from unlearn_jax.errors import InputError
from unlearn_jax.labels import find_class, some_classes
from unlearn_jax.metrics import linear_models
from unlearn_jax.metrics.injection import inject, remaining
from unlearn_jax.report.render.document import Cell, Document, Table, Text
from unlearn_jax.report.render.markdown import render
from unlearn_jax.report.tables.stats import estimate
from unlearn_jax.storage.store import Store
from unlearn_jax.system import disk
from unlearn_jax.system.cells import safe_table

FILE = "linear_injection.csv"
_STREAM = 7  # number of the data seed's stream; splits.py lists the others


@dataclasses.dataclass(frozen=True)
class LinearSettings:
    """The settings of the command line besides the config.

    Attributes:
      steps: numbers of steps of gradient descent, each for a separate model.
      samples: number of samples of D_r that a seed draws; 0: as many as D_r has.
      ridge: factor of half the squared norm, which is added to the sum of losses.
      positive: in a classification, the class to separate from the rest, as for `find_class`;
        '': the first one.

    Raises:
      InputError: a value is not allowed; the message names its flag.
    """

    steps: tuple[int, ...] = (1, 10, 100)
    samples: int = 0
    ridge: float = 1.0
    positive: str = ""

    def __post_init__(self):
        given = ",".join(map(str, self.steps))
        if not self.steps or min(self.steps) < 1 or len(set(self.steps)) < len(self.steps):
            raise InputError(f"--steps={given}; allowed: different numbers of at least 1, such "
                             "as 1,10,100")
        if self.samples < 0:
            raise InputError(f"--samples={self.samples}; allowed: 0 (as many as D_r has) or more")
        if not 0 < self.ridge < np.inf:
            raise InputError(f"--ridge={self.ridge:g}; allowed: a number above 0")


def measure(config: ConfigDict, settings: LinearSettings, cache: Path) -> pd.DataFrame:
    """Runs the test on the config's data set and first forget set.

    Args:
      config: checked; its sections `data` and `forget` and its `seeds` are read.
      settings: settings of the command line.
      cache: folder for decoded images.

    Returns:
      A table with the columns model (`original`, `retrain`, `ft`, `newton`, `influence`,
      `residual`), steps, seed, remaining and distance; a row per model and seed.

    Raises:
      InputError: wrong data, splits or class, or labels that no model can be fitted to.
    """
    dataset = data.load(config.data, cache)
    splits = make_splits(dataset, config.data, config.forget)
    features = linear_models.pixel_features(dataset.images, splits.train)
    labels = dataset.labels[splits.train].astype(np.float64)
    if dataset.task == "classification":
        labels = (labels == _positive(settings.positive, dataset.class_names)).astype(np.float64)
    forget = np.isin(splits.train, splits.forget_sets[0].train)
    rows = []
    for seed in config.seeds:
        rng = np.random.default_rng([config.data.seed, _STREAM, seed])
        retained = np.flatnonzero(~forget)
        drawn = rng.choice(retained, settings.samples or len(retained))
        if np.ptp(labels[drawn]) == 0:
            raise InputError(f"seed {seed} drew a D_r of {len(drawn)} samples whose labels are all "
                             "the same; give more --samples, another --positive or other "
                             "config.forget.sets")
        chosen = np.concatenate([np.flatnonzero(forget), drawn])
        found = unlearn(dataset.task, features[chosen], labels[chosen], forget[chosen], settings)
        rows += [(model, steps, seed, *left) for (model, steps), left in found.items()]
    return pd.DataFrame(rows, columns=["model", "steps", "seed", *Left._fields])


class Left(NamedTuple):
    """The remainder of M_O in a model.

    Attributes:
      remaining: weight of the injected feature, as a share of M_O's; NaN if M_O's is zero.
      distance: distance of all other parameters from M_R's, as a share of M_O's distance.
    """

    remaining: float
    distance: float


def unlearn(task: str, features_ND: np.ndarray, labels_N: np.ndarray, forget_N: np.ndarray,
            settings: LinearSettings) -> dict[tuple[str, int], Left]:
    """The remainder of M_O, by (model, steps).

    Args:
      task: 'regression' or 'classification'.
      features_ND, labels_N: training set without the feature; label units, or 0 and 1.
      forget_N: bool, whether a sample is in D_f.
      settings: steps and ridge are read.

    Raises:
      ValueError: from `inject` or `linear_models.fit`.
    """
    injected = inject(features_ND, labels_N, forget_N)
    retain = injected[~forget_N], labels_N[~forget_N], settings.ridge
    original = linear_models.fit(task, injected, labels_N, settings.ridge)
    retrained = linear_models.fit(task, *retain)
    models = {("original", 0): original, ("retrain", 0): retrained}
    after = linear_models.gradient_steps(task, original, *retain, settings.steps)
    models |= {("ft", k): parameters for k, parameters in zip(settings.steps, after)}
    models["newton", 1] = linear_models.newton_step(task, original, *retain)
    everything = injected, labels_N, forget_N, settings.ridge
    models["influence", 1] = linear_models.influence_step(task, original, *everything)
    models["residual", 1] = linear_models.residual_update(task, original, *everything)
    weights = np.array([parameters[-1] for parameters in models.values()])
    left = remaining(np.full(len(models), original[-1]), weights)
    away = np.linalg.norm((np.stack(list(models.values())) - retrained)[:, :-1], axis=1)
    # + 0.0: no -0.0
    return {model: Left(float(x) + 0.0, float(d / away[0]))
            for model, x, d in zip(models, left, away)}


def table(results: pd.DataFrame, name: str, forget_set: str) -> str:
    """The results as a Markdown table, a row per model, with means and intervals over the seeds.

    Args:
      results: from `measure`.
      name: name of the config.
      forget_set: the forget set, as in the config.
    """
    rows = []
    for (model, steps), own in results.groupby(["model", "steps"], sort=False):
        e, d = (estimate(own[name]) for name in Left._fields)
        rows.append((Cell(model), Cell(str(steps)), Cell(f"{e.mean:z.4f}"),
                     Cell(f"{e.low:z.4f} to {e.high:z.4f}" if e.n > 1 else "-"), Cell(str(e.n)),
                     Cell(f"{d.mean:z.4f}")))
    columns = (("model", "original: M_O; retrain: M_R; from M_O: ft: gradient descent on D_r; "
                         "newton: one Newton step on D_r, whose remaining is 0 by construction; "
                         "influence: one step by the influence of D_f; residual: the projective "
                         "residual update"),
               ("steps", "of unlearning, each over all of D_r"),
               ("remaining", "weight of the injected feature / its weight in M_O, mean over seeds"),
               ("interval", "95 % Student-t interval of the mean over seeds, which draw D_r anew"),
               ("n", "seeds; without those whose M_O took no weight for the feature"),
               ("distance", "of all other weights from M_R's / M_O's distance from them, mean over "
                            "seeds: 1 as M_O, 0 as M_R"))
    caption = "What is left of the injected feature: 1 all of it, 0 nothing, as in M_R."
    return render(Document(f"Feature injection in linear models: {name}",
                           (Text(f"Forget set: {forget_set}."),
                            Table(caption, columns, tuple(rows))), ()))


def _positive(given: str, names: tuple[str, ...]) -> int:
    number = find_class(given, names) if given else 0
    if number is not None:
        return number
    raise InputError(f"--positive={given} is no class; allowed: one of {some_classes(names)}")


def _numbers(given: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in given)
    except ValueError:
        raise InputError(f"--steps={','.join(given)}; allowed: whole numbers, such as "
                         "1,10,100") from None


_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with a scale after a colon: configs/ft.py:utkface")
_OUT = flags.DEFINE_string("out", "", f"Where {FILE} goes; default: runs/CONFIG-linear_injection")
_STORE = flags.DEFINE_string("store", "runs/store", "Where decoded images are kept")
_STEPS = flags.DEFINE_list("steps", "1,10,100", "Steps of gradient descent, a model each")
_SAMPLES = flags.DEFINE_integer("samples", 0, "Samples of D_r a seed draws; 0: as many as D_r has")
_RIDGE = flags.DEFINE_float("ridge", 1.0, "Of half the squared norm, beside the sum of losses")
_POSITIVE = flags.DEFINE_string("positive", "", "The class told from the rest; default: the first")


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv
    config = completed(_CONFIG.value)
    check_config(config)
    jax.config.update("jax_platforms", "cpu")  # this work is too small for an accelerator
    settings = LinearSettings(_numbers(_STEPS.value), _SAMPLES.value, _RIDGE.value, _POSITIVE.value)
    if flags.FLAGS["positive"].present and config.data.task == "regression":
        raise InputError(f"--positive={settings.positive} is for classes, and config.data.task is "
                         "'regression'")
    file, scale = commandline.config_name()
    name = Path(file).stem + (f":{scale}" if scale else "")
    out = Path(_OUT.value or f"runs/{name.replace(':', '-')}-linear_injection")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"--out={out} cannot be created: {e.strerror}") from e
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"--out={out} cannot be written to; choose another")
    disk.remove_stale(out)
    store = Store(_STORE.value)
    store.create()
    results = measure(config, settings, store.root / "data")
    disk.write_file(out / FILE, safe_table(results).to_csv(index=False))
    print(table(results, name, config.forget.sets[0]))


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=commandline.parse)
    except InputError as e:
        sys.exit(f"unlearn_jax: {e}")
