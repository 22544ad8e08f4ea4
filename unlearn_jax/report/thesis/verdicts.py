"""The study's claims, each tested within the seeds of a run, and corrected for their number.

A claim is a set of comparisons that should all hold. One-sided paired t-tests judge it:

- for it: the largest p of its comparisons, as all must hold (an intersection-union test);
- against it: the smallest p of the opposite directions times the number of comparisons, as one of
  them is enough (Bonferroni).

The claim's p is twice the smaller of the two, for the two directions. One Holm correction is over
all claims and arms that were tested. A claim holds, or is contradicted, where its corrected p is
below 0.05; otherwise it is open.

Sources: Berger 1982, "Multiparameter hypothesis testing and acceptance sampling"; Holm 1979, "A
simple sequentially rejective multiple test procedure".
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.judgement import LEVEL
from unlearn_jax.report.tables.names import describe, symbol
from unlearn_jax.report.tables.stats import Estimate, estimate, holm, independent, paired_p
from unlearn_jax.report.thesis.arms import random_arms, study_model
from unlearn_jax.report.thesis.claims import CLAIMS, RND, Claim, Comparison, Term
from unlearn_jax.report.thesis.published import printed

HOLDS, FAILS, OPEN, ABSENT = "holds", "contradicted", "open", "not measured"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A claim, tested.

    Attributes:
      claim: which.
      arm: the arm of random labels; '' for a claim that is not about random labels.
      in_print: whether the study's own printed numbers satisfy it; None where it printed none.
      held, n: seeds in which all comparisons hold, of the seeds with finite values for all.
      weakest: over seeds, the difference of the comparison that is least certain to hold.
      where: that comparison in words.
      uncorrected: holds where the 95 % intervals of all comparisons are above 0, contradicted where
        that of one is below 0, otherwise open.
      p: of the claim, in the direction `toward`; NaN where it could not be tested.
      toward: 1 where its evidence is rather for it, −1 where it is rather against it, 0 without p.
      p_holm: corrected for the number of claims that were tested.
      status: the outcome after the correction.
    """

    claim: Claim
    arm: str
    in_print: bool | None
    held: int
    n: int
    weakest: Estimate
    where: str
    uncorrected: str
    p: float = math.nan
    toward: int = 0
    p_holm: float = math.nan

    @property
    def status(self) -> str:
        if self.uncorrected == ABSENT:
            return ABSENT
        if not self.p_holm < LEVEL:
            return OPEN
        return HOLDS if self.toward > 0 else FAILS


@functools.lru_cache(maxsize=1)
def verdicts(run: Run) -> tuple[Verdict, ...]:
    """Every claim; those about random labels once for every arm of them."""
    return corrected(judge(run, claim, arm) for claim in CLAIMS
                     for arm in (random_arms(run) if claim.of_random_labels else ("",)))


def corrected(found: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts with p-values corrected for all of them together, after Holm."""
    found = tuple(found)
    return tuple(dataclasses.replace(v, p_holm=float(p))
                 for v, p in zip(found, holm([v.p for v in found])))


def judge(run: Run, claim: Claim, arm: str = "") -> Verdict:
    """Tests a claim by itself; `corrected` gives it its status among others.

    Args:
      run: with the models that the claim is about; else it is not measured.
      arm: stands for the study's M_RND.
    """
    differences = {c: _difference(run, c, arm) for c in claim.comparisons}
    in_print = _in_print(run, claim, arm)
    if any(d.empty for d in differences.values()):
        return Verdict(claim, arm, in_print, 0, 0, estimate([]), "", ABSENT)
    table = pd.DataFrame(dict(enumerate(differences.values()))).dropna()
    apart = {c: _difference(run, c, arm, independent).reindex(table.index) for c in differences}
    found = {c: _estimate(table[i], apart[c]) for i, c in enumerate(differences)}
    least = min(found, key=lambda c: _certainty(found[c]))
    uncorrected = OPEN
    if len(table) and all(e.above_zero for e in found.values()):
        uncorrected = HOLDS
    elif any(e.below_zero for e in found.values()):
        uncorrected = FAILS
    p, toward = p_of_all([one_sided(d) for d in apart.values()])
    return Verdict(claim, arm, in_print, int((table > 0).all(axis=1).sum()), len(table),
                   found[least], words(run, least, arm), uncorrected, p, toward)


def one_sided(differences: pd.Series) -> float:
    """p that the mean difference is at most 0, of the paired t-test; NaN below two seeds."""
    p, mean = paired_p(differences), estimate(differences).mean
    return p / 2 if mean > 0 else 1 - p / 2


def p_of_all(ps: Sequence[float]) -> tuple[float, int]:
    """p of a claim, and its direction: 1 for it, −1 against it, 0 where there is no test.

    Args:
      ps: one-sided p-values of its comparisons, small where a comparison holds. NaN: it could not
        be tested, so that the claim can be contradicted by the others alone. Where all differences
        of a comparison are equal, its p is 0, 1, or 0.5 if they are 0.
    """
    tested = [p for p in ps if math.isfinite(p)]
    if not tested:
        return math.nan, 0
    supported = max(ps) if len(tested) == len(ps) else 1.0
    contradicted = min(1.0, len(ps) * min(1 - p for p in tested))
    return min(1.0, 2 * min(supported, contradicted)), 1 if supported <= contradicted else -1


def _estimate(differences: pd.Series, apart: pd.Series) -> Estimate:
    """The mean of differences, with the interval of the independent values in `apart`."""
    raw, interval = estimate(differences), estimate(apart)
    return Estimate(raw.mean, raw.std, interval.low, interval.high, raw.n)


def _certainty(e: Estimate) -> float:
    """How far a mean lies above 0, in half widths of its interval; ±∞ without an interval."""
    if not e.n:
        return 0.0
    return e.mean / e.half if e.n > 1 and e.half > 0 else math.copysign(math.inf, e.mean)


def words(run: Run, comparison: Comparison, arm: str) -> str:
    """A comparison as a difference: `Forgetting@15 of M_FT, 2 epochs − M_O`."""
    larger, smaller = comparison.larger, comparison.smaller
    first = describe(run, larger.metric).header
    if not isinstance(smaller, Term):
        return f"{first} of {_name(larger, arm)} − {smaller:g}"
    same_set = larger.forget_set == smaller.forget_set
    ends = [_name(t, arm) + ("" if same_set else f" on {t.forget_set}")
            for t in (larger, smaller)]
    where = f" on {larger.forget_set}" if same_set else ""
    second = describe(run, smaller.metric).header
    if second == first:
        return f"{first}{where}: {ends[0]} − {ends[1]}"
    return f"{first} of {ends[0]} − {second} of {ends[1]}{where}"


def _name(term: Term, arm: str) -> str:
    method = arm if term.model == RND else term.model
    if method == "median":
        return "median"
    return symbol(method) + (f" ({term.epochs})" if term.epochs else "")


def _values(run: Run, term: Term, arm: str) -> pd.Series:
    method = arm if term.model == RND else term.model
    if term.forget_set not in run.forget_sets:
        return pd.Series(dtype=float)
    model = (run.only(term.forget_set, method) if method in ("original", "retrain", "median")
             else ModelKey(method, term.epochs))
    return run.values(model, term.forget_set, term.metric) if model else pd.Series(dtype=float)


def _difference(run: Run, comparison: Comparison, arm: str,
                read: Callable = lambda metric, values: values) -> pd.Series:
    """By seed; `read`, such as `stats.independent`, transforms the values of a metric first."""
    larger = read(comparison.larger.metric, _values(run, comparison.larger, arm))
    if not isinstance(comparison.smaller, Term):
        return larger - comparison.smaller
    smaller = read(comparison.smaller.metric, _values(run, comparison.smaller, arm))
    if larger.empty or smaller.empty:
        return pd.Series(dtype=float)
    return larger - smaller


def _in_print(run: Run, claim: Claim, arm: str) -> bool | None:
    if not claim.table or (arm and not study_model(run, arm)):
        return None
    pairs = [(_printed(claim, c.larger), _printed(claim, c.smaller)) for c in claim.comparisons]
    numbers = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(numbers) < len(pairs):
        return None
    return all(a > b for a, b in numbers)


def _printed(claim: Claim, term: Term | float) -> float | None:
    if not isinstance(term, Term):
        return term
    if (term.model, term.metric) == ("retrain", "utility"):
        return 1.0  # by definition
    model = "rnd" if term.model == RND else term.model
    return printed(claim.table, model, term.epochs, term.forget_set, term.metric)
