"""Is the forget set forgotten? One of four words for each unlearned model, from all its tests.

Each check compares the unlearned model M_e with the retrained M_R, seed by seed. The checks ask:

- error: does M_e err on D_f as M_R does, on average and, where it was measured, sample by sample
  (Forgetting against the M_Rs of other seeds)?
- attack: does a membership attack tell D_f from unseen samples no better, and no worse, than it
  does for M_R? Every attack that was run is a check, and so are the time to relearn D_f and the
  distance between outputs (W1), where they were measured.
- utility: is M_e as good as M_R on the test set and on the retain set?

A check has three outcomes. 'same': the 90 % interval of the mean difference lies within a margin
(two one-sided tests at 5 %). 'differs': the difference is not 0, at 5 % after Holm's correction
over the checks of the model, and the check is not 'same'. 'open': neither; too few seeds.

The words: *not forgotten* if a check differs in the direction of memory, or if a seed's error is
nearer to that of its M_O than to that of its M_R; otherwise *damaged* if a check differs in another
direction or training failed in a seed; otherwise *forgotten* if all checks are 'same', an attack is
among them, and a check tells M_O from M_R; otherwise *undecided*. So a wide interval is never a
success: 'forgotten' is the outcome of tests of equivalence.

Without M_R there are two words alone: *not forgotten* if a membership attack finds D_f
(`unretrained.py`), *undecided* otherwise; and *damaged* if training failed in a seed.

Sources: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach"
(equivalence); Holm 1979 (several differences); Berger 1982, "Multiparameter hypothesis testing and
acceptance sampling" (all equivalences at 5 % each are one test at 5 %).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import pandas as pd

from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.stats import holm, independent, paired_p, student_t
from unlearn_jax.report.tables.unretrained import ATTACK, CHANCE, drawn_here, memory

FORGOTTEN, NOT_FORGOTTEN, DAMAGED, UNDECIDED = "forgotten", "not forgotten", "damaged", "undecided"
WORDS = (FORGOTTEN, NOT_FORGOTTEN, DAMAGED, UNDECIDED)

LEVEL = 0.05
# The margins, each at least M_R's standard deviation over seeds.
OF_THE_GAP = 0.25  # of what M_O and M_R differ by: error and time to relearn
OF_AUC = 0.05  # of an attack's AUC, or of Forgetting
OF_ERROR = 0.1  # of M_R's own error: test and retain set
MOST_SEEDS = 1000  # a count of seeds above it is not worth a promise

ATTACKS = ("mia_auc", "mia_logistic_auc")

Outcome = Literal["same", "differs", "open"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of M_e with M_R.

    Attributes:
      question: 'error', 'attack' or 'utility'.
      metric: of results.csv, the difference of which it is; of relearn_epochs n the speed
        1 / (1 + n), of accuracies the errors, of Forgetting what it lacks to 1.
      mean, low, high: of M_e minus M_R over seeds, and its 90 % interval; NaN below two seeds.
        Without M_R: of the attack's AUC minus 0.5.
      margin: differences within ±margin count as none; M_e may be better without a limit where
        `one_sided`.
      outcome: 'same', 'differs' or 'open'.
      memory: whether a difference of this sign means that M_e remembers.
      tells: whether the same check tells M_O from M_R, so that it can see a memory.
      seeds: how many would make the outcome other than 'open', if mean and standard deviation
        stayed as they are; 0 where it is not open, -1 where no number up to `MOST_SEEDS` would.
    """

    question: Literal["error", "attack", "utility"]
    metric: str
    mean: float
    low: float
    high: float
    margin: float
    one_sided: bool
    outcome: Outcome
    memory: bool
    tells: bool
    seeds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What all checks say together of one unlearned model on one forget set.

    Attributes:
      forget_set, model: which.
      word: of `WORDS`.
      reason: in words.
      seeds: that all three models share, with finite errors.
      seeds_needed: how many would decide, if means and standard deviations stayed as they are; 0:
        it is decided; -1: more seeds alone would not.
      checks: all that results.csv allows.
    """

    forget_set: str
    model: ModelKey
    word: str
    reason: str
    seeds: int
    seeds_needed: int
    checks: tuple[Check, ...]

    def check(self, question: str) -> Check | None:
        """The check of a question that decides most: one that differs, then an open one."""
        order = {"differs": 0, "open": 1, "same": 2}
        found = [c for c in self.checks if c.question == question]
        return min(found, key=lambda c: order[c.outcome], default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Series:
    """The values by seed that a check compares; those of M_R come first in all differences."""

    question: Literal["error", "attack", "utility"]
    metric: str
    evaluated: pd.Series
    retrained: pd.Series
    original: pd.Series
    least_margin: Callable[[float], float]  # of M_R's mean
    of_gap: bool = False  # whether a share of M_O's distance from M_R is the margin
    memory_sign: int = 0  # the sign of a difference that means memory; 0: none does
    one_sided: bool = False  # only values above M_R's count


def judge(run: Run, forget_set: str, model: ModelKey) -> Judgement:
    """Weighs all checks of one unlearned model.

    Args:
      run: the work directory.
      forget_set: its name.
      model: an unlearned one.
    """
    if run.only(forget_set, "retrain") is None:
        return _judge_alone(run, forget_set, model)
    series = _series(run, forget_set, model)
    error = series[0]
    finite = _paired(error.evaluated, error.retrained)
    checks = _checks(series)
    failed = sorted(set(error.evaluated.index) - set(error.evaluated.dropna().index))
    word, reason = _word(checks, _like_original(error), failed, len(error.evaluated))
    if word == UNDECIDED and len(finite) < 2:
        reason = "one seed gives no interval, so nothing is established" if len(finite) else \
            "no seed has finite values for M_R and the model"
    needed = _needed(checks) if word == UNDECIDED else 0
    return Judgement(forget_set=forget_set, model=model, word=word, reason=reason,
                     seeds=len(finite), seeds_needed=needed, checks=tuple(checks))


def _judge_alone(run: Run, forget_set: str, model: ModelKey) -> Judgement:
    """What can be said without M_R."""
    mine, before = (memory(run, forget_set, m, LEVEL)
                    for m in (model, run.only(forget_set, "original")))
    errors = run.values(model, forget_set, f"{'accuracy' if run.classification else 'mae'}_forget")
    failed = sorted(set(errors.index) - set(errors.dropna().index))
    if mine.found:
        word, reason = NOT_FORGOTTEN, (
            f"an attack on its losses still tells D_f from unseen samples of its kind (AUC "
            f"{mine.mean:.3f}; chance gives up to {mine.most:.3f})"
            + ("" if drawn_here(run) else ", if training and test samples are of one kind: their "
               "split was not drawn here"))
    elif failed:
        word, reason = DAMAGED, _on_failed(failed, len(errors))
    else:
        word, reason = UNDECIDED, "no M_R: " + (
            "no attack was run (eval.audits lists them)" if not mine.seeds else
            "D_f was not chosen by its kind or at random, so that an attack shows no memory"
            if math.isnan(mine.most) else
            f"an attack that finds D_f in M_O finds it no more (AUC {mine.mean:.3f}), and that "
            "alone is no forgetting" if before.found else
            "the attack does not find D_f in M_O either, so it could not see a memory")
    checks = (Check(question="attack", metric=ATTACK, mean=mine.mean - CHANCE,
                    low=mine.low - CHANCE, high=mine.high - CHANCE, margin=mine.most - CHANCE,
                    one_sided=True, outcome="differs" if mine.found else "open",
                    memory=mine.found, tells=before.found, seeds=0 if mine.found else -1),)
    return Judgement(forget_set=forget_set, model=model, word=word, reason=reason,
                     seeds=len(errors) - len(failed),
                     seeds_needed=-1 if word == UNDECIDED else 0,
                     checks=checks if mine.seeds else ())


@functools.lru_cache(maxsize=1)  # the page, its sections and the terminal show the same
def judge_all(run: Run) -> tuple[Judgement, ...]:
    """All unlearned models of all forget sets, in the order of the report."""
    return tuple(judge(run, forget_set, model) for forget_set in run.forget_sets
            for model in run.unlearned(forget_set))


def table(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """verdict.csv: one row per model and check; a model without a check has one row.

    Returns:
      Columns forget_set, method, epochs, verdict, reason, seeds, seeds_needed, question, metric,
      difference, ci90_low, ci90_high, margin, outcome.
    """
    rows = []
    for j in judgements:
        head = {"forget_set": j.forget_set, "method": j.model.method, "epochs": j.model.epochs,
                "verdict": j.word, "reason": j.reason, "seeds": j.seeds,
                "seeds_needed": j.seeds_needed}
        rows += [{**head, "question": c.question, "metric": c.metric, "difference": c.mean,
                  "ci90_low": c.low, "ci90_high": c.high, "margin": c.margin,
                  "outcome": c.outcome} for c in j.checks] or [head]
    return pd.DataFrame(rows, columns=[
        "forget_set", "method", "epochs", "verdict", "reason", "seeds", "seeds_needed", "question",
        "metric", "difference", "ci90_low", "ci90_high", "margin", "outcome"])


def _series(run: Run, forget_set: str, model: ModelKey) -> list[_Series]:
    """What can be compared; the error on D_f comes first and is always there."""
    reference, original = (run.only(forget_set, m) for m in ("retrain", "original"))

    def triple(metric: str, of_reference: str = "") -> tuple[pd.Series, pd.Series, pd.Series]:
        return (run.values(model, forget_set, metric),
                run.values(reference, forget_set, of_reference or metric),
                run.values(original, forget_set, metric))

    def errors(split: str) -> tuple[pd.Series, pd.Series, pd.Series]:
        if run.classification:
            return tuple(1 - values for values in triple(f"accuracy_{split}"))
        return triple(f"mae_{split}")

    def named(values: tuple[pd.Series, pd.Series, pd.Series]) -> dict[str, pd.Series]:
        return dict(zip(("evaluated", "retrained", "original"), values))

    what = "accuracy" if run.classification else "mae"
    alpha = f"{run.alpha:g}"
    found = [_Series(question="error", metric=f"{what}_forget", **named(errors("forget")),
                     least_margin=_of_error, of_gap=True, memory_sign=-1)]
    across = triple(f"forgetting_across@{alpha}", f"ceiling@{alpha}")
    found.append(_Series(
        question="error", metric=f"forgetting_across@{alpha}",
        # 1 minus Forgetting: a distance from M_R, like the others
        **named(tuple(1 - independent(f"ceiling@{alpha}", x) for x in across)),
        least_margin=_of_auc, one_sided=True))
    # Low losses on D_f are a memory of it. The logistic attack finds any losses that are other
    # than those on unseen samples; `_word` asks whether they are lower.
    found += [_Series(question="attack", metric=name, **named(triple(name)), least_margin=_of_auc,
                      memory_sign=sign, one_sided=not sign)
              for name, sign in zip(ATTACKS, (1, 0))]
    # A speed, as the epochs are infinite where the loss did not come down.
    found.append(_Series(question="attack", metric="relearn_epochs",
                         **named(tuple(1 / (1 + x) for x in triple("relearn_epochs"))),
                         least_margin=_of_error, of_gap=True, memory_sign=1))
    found.append(_Series(question="attack", metric="w1_forget", **named(triple("w1_forget")),
                         least_margin=_of_error, of_gap=True, one_sided=True))
    found += [_Series(question="utility", metric=f"{what}_{split}", **named(errors(split)),
                      least_margin=_of_error, one_sided=True) for split in ("test", "retain")]
    return [s for i, s in enumerate(found) if i == 0 or len(_paired(s.evaluated, s.retrained))]


def _of_error(mean: float) -> float:
    return OF_ERROR * abs(mean)


def _of_auc(mean: float) -> float:
    del mean
    return OF_AUC


def _paired(a: pd.Series, b: pd.Series) -> pd.Series:
    """a minus b in the seeds where both are finite."""
    difference = (a - b).dropna()
    return difference[np.isfinite(difference)]


def _checks(series: list[_Series]) -> list[Check]:
    differences = [_paired(s.evaluated, s.retrained) for s in series]
    corrected = holm([_p(d, s.one_sided) for d, s in zip(differences, series)])
    return [_check(s, d, p) for s, d, p in zip(series, differences, corrected)]


def _check(series: _Series, difference: pd.Series, p: float) -> Check:
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    std = float(difference.std(ddof=1)) if n > 1 else math.nan
    half = student_t(1 - LEVEL, n) * std / math.sqrt(n) if n > 1 else math.nan
    low, high = mean - half, mean + half
    margin, tells = _margin(series)
    same = n > 1 and high < margin and (series.one_sided or low > -margin)
    differs = n > 1 and p < LEVEL and not same
    outcome: Outcome = "same" if same else "differs" if differs else "open"
    seeds = 0 if outcome != "open" else _seeds_for(mean, std, margin, series.one_sided)
    return Check(question=series.question, metric=series.metric, mean=mean, low=low, high=high,
                 margin=margin, one_sided=series.one_sided, outcome=outcome,
                 memory=bool(series.memory_sign) and mean * series.memory_sign > 0,
                 tells=tells, seeds=seeds)


def _margin(series: _Series) -> tuple[float, bool]:
    """The margin of a check, and whether the check tells M_O from M_R."""
    retrained = series.retrained[np.isfinite(series.retrained)]
    spread = float(retrained.std(ddof=1)) if len(retrained) > 1 else 0.0
    margin = series.least_margin(float(retrained.mean())) if len(retrained) else math.nan
    before = _paired(series.original, series.retrained)
    tells = len(before) > 1 and paired_p(before) < LEVEL
    if series.of_gap and tells:
        margin = OF_THE_GAP * abs(float(before.mean()))
    return max(margin, spread), tells and not series.one_sided


def _p(difference: pd.Series, one_sided: bool) -> float:
    """Of the paired t-test that the mean is 0, or at most 0."""
    if len(difference) < 2:
        return math.nan
    p = paired_p(difference)
    return p if not one_sided else p / 2 if difference.mean() > 0 else 1 - p / 2


def _seeds_for(mean: float, std: float, margin: float, one_sided: bool) -> int:
    """The least number of seeds with which an open check would have an outcome; -1: none has."""
    if not math.isfinite(std):
        return -1
    excess = max(mean, 0.0) if one_sided else abs(mean)
    for n in range(3, MOST_SEEDS + 1):
        root = std / math.sqrt(n)
        if excess + student_t(1 - LEVEL, n) * root < margin or \
                excess > student_t(1 - LEVEL if one_sided else 1 - LEVEL / 2, n) * root:
            return n
    return -1


def _needed(checks: list[Check]) -> int:
    """All open checks decided; -1 where what is missing is not a matter of seeds."""
    seeds = [c.seeds for c in checks if c.outcome == "open"]
    return -1 if not seeds or min(seeds) < 0 else max(seeds)


def _like_original(error: _Series) -> list[int]:
    """The seeds in which M_e's error on D_f is nearer to its M_O's than to its M_R's.

    Only where that is no noise: where the least gap between the two is over four standard
    deviations of M_R's errors over seeds, so that half of it is over two.
    """
    frame = pd.DataFrame({"o": error.original, "r": error.retrained,
                          "e": error.evaluated}).dropna()
    if len(frame) < 2:
        return []
    gaps = frame.r - frame.o
    if gaps.min() <= 4 * frame.r.std(ddof=1):
        return []
    return [int(seed) for seed in frame.index[frame.e < (frame.o + frame.r) / 2]]


def _word(checks: list[Check], like_original: list[int], failed: list[int], seeds: int,
          ) -> tuple[str, str]:
    """The word and its reason."""
    differing = [c for c in checks if c.outcome == "differs"]
    lower = any(c.metric == "mia_auc" and c.mean > c.margin for c in checks)
    memory = [c for c in differing if c.memory or (lower and c.metric == "mia_logistic_auc")]
    if memory:
        return NOT_FORGOTTEN, "; ".join(said(c) for c in memory)
    if like_original:
        return NOT_FORGOTTEN, (f"in {len(like_original)} of {seeds} seeds "
                               f"({', '.join(map(str, like_original))}) its error on D_f is nearer "
                               "to M_O's than to M_R's")
    if failed:
        return DAMAGED, _on_failed(failed, seeds)
    if differing:
        return DAMAGED, "; ".join(said(c) for c in differing)
    if not any(c.question == "attack" and c.metric in ATTACKS for c in checks):
        return UNDECIDED, "no attack was run (eval.audits lists them)"
    if not any(c.tells for c in checks if c.question != "utility"):
        return UNDECIDED, ("no check tells M_O itself from M_R, so there is nothing to forget that "
                           "these checks could see")
    opened = [c for c in checks if c.outcome == "open"]
    if opened:
        return UNDECIDED, "too wide for a verdict: " + ", ".join(_WHAT[c.question] + (
            f" ({c.metric})") for c in opened)
    return FORGOTTEN, "every check finds it equal to M_R within its margin"


def _on_failed(failed: list[int], seeds: int) -> str:
    return f"training failed in {len(failed)} of {seeds} seeds ({', '.join(map(str, failed))})"


_WHAT = {"error": "error on D_f", "attack": "attack", "utility": "utility"}


def said(check: Check) -> str:
    """A difference in words."""
    name, more = check.metric, check.mean > 0
    if name == "mia_auc":
        return "its losses on D_f, compared with unseen samples, are " + (
            "lower than M_R's: an attack finds what it was trained on" if more else
            "higher than M_R's")
    if name == "mia_logistic_auc":
        return "an attack on its losses tells D_f from unseen samples better than it does for M_R"
    if name == "relearn_epochs":
        return f"it relearns D_f {'faster' if more else 'slower'} than M_R"
    if name == "w1_forget":
        return "its outputs on D_f are distributed unlike those of M_R"
    if check.question == "utility":
        return f"it errs more than M_R on the {name.rsplit('_', 1)[1]} set"
    if name.startswith("forgetting_across"):
        return "its errors on D_f resemble M_R's less than those of another M_R do"
    return f"it errs {'more' if more else 'less'} on D_f than M_R"
