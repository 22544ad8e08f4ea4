"""What can be said of a model where there is no M_R: whether an attack still finds D_f in it.

With an M_R, its own values are the baseline of every check. Without one, the only baseline is
chance. A membership attack compares losses on D_f's training samples with losses on test samples.
If both are of one kind and the split was drawn at random, a model that never saw D_f treats them
alike, so the chance that a sample of D_f has the lower loss is 0.5 (AUC). The AUC of such a model
is off 0.5 by the draw of the samples alone: its standard deviation is sqrt((n + p + 1) / (12 n p))
for n samples of D_f and p others. An attack finds D_f in a model if the mean AUC over seeds is
above 0.5 by more than that draw explains (one-sided, at 5 %) and, with several seeds, by more than
they scatter (t-test, at 5 %).

A test split that came with the data may differ from the training split in kind. An attack finds
that difference, too, and the verdict says so.

The converse holds for no test without M_R: an attack that finds nothing shows no forgetting. And
nothing can be said by it where D_f was picked by ids, since its samples may be easier than others.
Where the split was not drawn here, the verdict names the condition that both are of one kind.

Source: Mann & Whitney 1947, "On a test of whether one of two random variables is stochastically
larger than the other" (the deviation of the AUC).
"""

import dataclasses
import math

import numpy as np
from scipy.special import ndtri

from unlearn_jax.labels import find_range
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.stats import student_t

ATTACK, CHANCE = "mia_auc", 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The attack on the models of all seeds.

    Attributes:
      mean, low, high: of the AUC over seeds, and its 90 % interval; NaN for none.
      seeds: with a finite AUC.
      most: the largest mean that the draw of the samples explains at 5 %; NaN: it is not known.
      found: whether the attack finds D_f.
    """

    mean: float
    low: float
    high: float
    seeds: int
    most: float
    found: bool


def memory(run: Run, forget_set: str, model: ModelKey | None, level: float) -> Memory:
    """Whether the attack finds D_f in the models of a method.

    Args:
      run: the work directory.
      forget_set: its name.
      model: M_O or an unlearned one; None: there is none, and nothing is found.
      level: of both tests, such as 0.05.
    """
    values = run.values(model, forget_set, ATTACK)
    auc = values[np.isfinite(values)].to_numpy()
    n = len(auc)
    mean = float(auc.mean()) if n else math.nan
    std = float(auc.std(ddof=1)) if n > 1 else math.nan
    half = student_t(1 - level, n) * std / math.sqrt(n) if n > 1 else math.nan
    most = CHANCE + float(ndtri(1 - level)) * _deviation(run, forget_set)
    found = mean > most and (n == 1 or mean - half > CHANCE)
    return Memory(mean=mean, low=mean - half, high=mean + half, seeds=n, most=most,
                  found=bool(found))


def drawn_here(run: Run) -> bool:
    """Whether a random draw of this run divided the samples into training and test split."""
    listed = run.run["config"].get("original", {}).get("trained_on", "")
    return not listed and not run.given_splits and "scored" not in run.run


def _deviation(run: Run, forget_set: str) -> float:
    """The standard deviation of the AUC of a model without memory; NaN: D_f is not comparable."""
    entry = run.data["forget_sets"][forget_set]
    request, members, others = entry["request"], entry["train"], entry.get("peers", 0)
    kind = request.partition(":")[0]
    described = (":" in request or request == "injected" or find_range(request) is not None)
    alike = kind == "random" or (
        described and kind not in ("ids", "name") and others < run.data["counts"]["test"])
    if not (alike and members and others):
        return math.nan
    return math.sqrt((members + others + 1) / (12 * members * others))
