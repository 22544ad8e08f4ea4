"""Audits: what attacks and distances say of saved predictions. No model, no training.

`config.eval.audits` names which. A value of a member is a row of results.csv like any other;
what only a whole population has (an attack over all models) is one row of seed -1, with the
prefix `population:`.

A new audit is a function here, with `@_audit(NAME)` above it, and in `metrics/catalogue.py` a
record of each metric that it yields.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np

from unlearn_jax.data.inject import Injection
from unlearn_jax.metrics import (
    attacks,
    catalogue,
    challenge,
    confidence,
    confusion,
    distributions,
    errors,
    injection,
    likelihood_ratio,
)
from unlearn_jax.metrics.shapes import Refused
from unlearn_jax.results import Outcome, Targets

Values = Iterator[tuple[str, np.ndarray | float]]

# Random halvings of the seeds over which what is said of two populations is averaged.
_HALVINGS = 20
# Models of a kind in a half. Of three a likelihood-ratio attack would judge one by the variance of
# the two others, of a single degree of freedom; and of one model there is no distribution.
_LEAST_LIRA, _LEAST_DISTANCES, _LEAST_CHALLENGE = 4, 2, 2


@dataclasses.dataclass(frozen=True)
class AuditedSamples:
    """Some samples of a split, with the labels by which attacks judge them.

    Attributes:
      split: as in `Outcome.outputs`.
      places: `[n]` in the split.
      labels: `[n]` that models are trained on, or would be.
    """

    split: str
    places: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit looks at.

    Attributes:
      outcome: the models that are judged.
      reference: M_R of the same forget set.
      targets: labels by split.
      members: the samples of D_f that were trained on. Attacks judge them alone: what is in D_f
        as a validation sample no model ever learned.
      others: samples like them that no model has seen.
      classification: outputs are logits.
      config: the section `eval` of the config.
      injection: of the training samples, if any.
      step: label units that stand for a year (`units.label_step`; regression).
    """

    outcome: Outcome
    reference: Outcome
    targets: Targets
    members: AuditedSamples
    others: AuditedSamples
    classification: bool
    config: ml_collections.ConfigDict
    injection: Injection | None = None
    step: float = 1.0

    @property
    def is_reference(self) -> bool:
        """Whether M_R itself is judged."""
        return self.outcome.method == self.reference.method

    @property
    def forget(self) -> AuditedSamples:
        """All of D_f, with its true labels."""
        labels = self.targets.labels["forget"]
        return AuditedSamples("forget", np.arange(len(labels)), labels)

    def losses(self, samples: AuditedSamples) -> np.ndarray:
        """`[M, n]`: cross entropies in nats, or absolute errors in label units."""
        outputs = self.outcome.outputs[samples.split][:, samples.places]
        of = confidence.cross_entropies if self.classification else errors.absolute_errors
        return np.asarray(of(outputs, samples.labels))

    def scores(self, outcome: Outcome, samples: AuditedSamples) -> np.ndarray:
        """`[M, n]`: logit-scaled confidences, or the outputs in label units."""
        outputs = outcome.outputs[samples.split][:, samples.places]
        if not self.classification:
            return outputs
        return np.asarray(confidence.logit_scaled_confidences(outputs, samples.labels))

    def utilities(self, outcome: Outcome, split: str) -> np.ndarray:
        """`[M]`, higher is better: accuracy, or 1 / MAE."""
        outputs, labels = outcome.outputs[split], self.targets.labels[split]
        if self.classification:
            return np.asarray(errors.accuracy(outputs, labels))
        return 1 / np.asarray(errors.mean_error(errors.absolute_errors(outputs, labels)))


AUDITS: dict[str, Callable[[Audit], Values]] = {}


def _audit(name: str):
    """Puts a function into `AUDITS`."""
    def add(function: Callable[[Audit], Values]):
        AUDITS[name] = function
        return function
    return add


@_audit("mia")
def _mia(audit: Audit) -> Values:
    """Can losses of D_f, as far as it was trained on, be told from those of test samples like it?

    There is no row for a rate of less than one of these test samples.
    """
    found = attacks.mia(audit.losses(audit.members), audit.losses(audit.others), seed=0)
    for name, attack in (("mia", found.threshold), ("mia_logistic", found.logistic)):
        yield f"{name}_auc", attack.auc
        yield f"{name}_accuracy", attack.accuracy
        for rate, tpr in zip(attacks.FALSE_POSITIVE_RATES, attack.tpr):
            if attacks.resolves(rate, len(audit.others.places)):
                yield f"{name}_tpr@{rate:g}", tpr


@_audit("lira")
def _lira(audit: Audit) -> Values:
    """Is a model one of those that forgot a sample, or one that never saw it?

    Half of the models are set against the M_Rs of the other seeds, so that M_R itself can be
    judged in the same way: what attacks on models that are no different come to.
    """
    accuracies = np.stack([
        likelihood_ratio.attack_accuracy(*likelihood_ratio.u_lira_leave_pair_out(mine, theirs))
        for mine, theirs in _halves(audit, audit.members, _LEAST_LIRA)])
    yield "population:lira_accuracy", float(np.mean(accuracies))
    # The largest of each halving: over means of halvings it would be smaller for M_R, whose models
    # all come to stand on both sides.
    yield "population:lira_accuracy_worst", float(np.mean(accuracies.max(axis=1)))


@_audit("challenge")
def _challenge(audit: Audit) -> Values:
    """The 2023 challenge's forgetting quality and score."""
    retrained = _finite(audit.scores(audit.reference, audit.members))
    rules = dict(bins=audit.config.challenge_bins, narrow=audit.config.challenge_narrow)
    if audit.is_reference:
        yield "population:challenge_quality_perfect", challenge.perfect_quality(
            len(retrained), len(retrained), **rules)
        half = len(retrained) // 2
        if half < _LEAST_CHALLENGE:
            raise Refused("half of the M_Rs are compared with the other half, "
                          f"{_LEAST_CHALLENGE} of either at least, and half of {len(retrained)} "
                          f"is {half}")
        found = challenge.forgetting_quality(retrained[:half], retrained[half:2 * half], **rules)
        yield "population:challenge_quality_halves", found.value
        return
    unlearned = _finite(audit.scores(audit.outcome, audit.members))
    found = challenge.forgetting_quality(unlearned, retrained, **rules)
    yield "population:challenge_quality", found.value
    yield "population:challenge_quality_low", found.low
    yield "population:challenge_quality_high", found.high
    yield "population:challenge_epsilon_median", float(np.median(found.epsilons))
    o, r = audit.outcome, audit.reference
    utilities = {f"{split}_{kind}": _finite(audit.utilities(of, split)[:, None])[:, 0]
                 for split in ("retain", "test")
                 for kind, of in (("unlearned_U", o), ("retrained_R", r))}
    # M_O has cost next to nothing beyond the training that there was anyway.
    seconds = 1e-9 if o.method == "original" else float(np.mean(o.seconds[~o.failed]))
    result = challenge.score(found.value, **utilities, seconds=seconds,
                             retrain_seconds=float(np.mean(r.seconds[~r.failed])))
    yield "population:challenge_score", result.value
    yield "population:challenge_accepted", float(result.accepted)


@_audit("confusion")
def _confusion(audit: Audit) -> Values:
    """Are the two groups whose labels were exchanged taken for each other?"""
    if not audit.injection or audit.injection.kind != "confusion":
        raise Refused("it needs config.data.inject='confusion:A:B:N'")
    a, b = audit.injection.groups
    for split in ("test", "forget"):
        outputs, labels = audit.outcome.outputs[split], audit.targets.labels[split]
        asked = max(np.sum(a.holds(labels) | b.holds(labels)), 1)
        if audit.classification:
            counts = confusion.interclass_confusion(outputs, labels, class_a=int(a.low),
                                                    class_b=int(b.low))
            yield f"confusion_{split}", np.asarray(counts) / asked
            continue
        # A prediction counts as the whole label nearest to it.
        half = audit.step / 2
        bins = dict(bin_a=(a.low - half, a.high + half), bin_b=(b.low - half, b.high + half))
        for name, count in (("confusion", confusion.binned_confusion),
                            ("confusion_nearer", confusion.nearer_confusion)):
            yield f"{name}_{split}", np.asarray(count(outputs, labels, **bins)) / asked


@_audit("injection")
def _injection(audit: Audit) -> Values:
    """How far does the injected patch move the outputs on test images?"""
    if not audit.injection or audit.injection.kind != "patch":
        raise Refused("it needs config.data.inject='patch:A:N'")
    plain, stamped = (audit.outcome.outputs[split] for split in ("test", "stamped"))
    if audit.classification:
        stands_for = np.full(plain.shape[1], int(audit.injection.groups[0].low))
        plain, stamped = (confidence.logit_scaled_confidences(x, stands_for)
                          for x in (plain, stamped))
    yield "injection_effect", np.asarray(injection.output_change(plain, stamped))


@_audit("distances")
def _distances(audit: Audit) -> Values:
    """How far are the outputs on D_f from those of M_R, seed by seed and as populations?

    As populations, half of the models and the M_Rs of the other seeds: the fewer the models, the
    larger all of these distances are, so that M_R's own is to be of as many.
    """
    mine, theirs = (audit.scores(o, audit.forget) for o in (audit.outcome, audit.reference))
    if audit.is_reference:
        theirs = np.roll(theirs, 1, axis=0)  # the M_R of another seed
    if len(mine) < 2:
        raise Refused(f"it needs two seeds, there is {len(mine)}")
    yield "w1_forget", np.asarray(distributions.wasserstein(mine, theirs, over="samples"))
    halves = _halves(audit, audit.forget, _LEAST_DISTANCES)
    # Margins are cut off as in the source; labels may have any unit.
    klom = functools.partial(distributions.klom,
                             **({} if audit.classification else {"limit": np.inf}))
    for name, distance in (("w1", distributions.wasserstein),
                           ("js", distributions.jensen_shannon), ("klom", klom)):
        yield f"population:{name}", float(np.mean([distance(*pair) for pair in halves]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an audit gave no value, or not all, of some models.

    Attributes:
      audit: a key of `AUDITS`.
      method, epochs, forget_set: of the models.
      reason: what it lacks.
    """

    audit: str
    method: str
    epochs: int
    forget_set: str
    reason: str


def refusals_in_words(refusals: list[Refusal]) -> list[str]:
    """A sentence for each audit and reason, that one reason for all models stands there once."""
    alike: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        alike.setdefault((refusal.audit, refusal.reason), []).append(refusal)
    return [f"audit {audit} of {_who(found)}: {reason}" for (audit, reason), found in alike.items()]


def _who(refusals: list[Refusal]) -> str:
    first = refusals[0]
    if len(refusals) == 1:
        return (f"{first.method} at {first.epochs} epoch{'s' * (first.epochs != 1)} on "
                f"{first.forget_set}")
    methods, sets = ({getattr(r, name): None for r in refusals} for name in ("method",
                                                                            "forget_set"))
    return f"{len(refusals)} populations ({', '.join(methods)}; on {', '.join(sets)})"


def audit_rows(audit: Audit,
               names: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """Rows of results.csv, and why an audit gave none or not all.

    Args:
      audit: what they look at.
      names: keys of `AUDITS`.

    Returns:
      One dict per value, with the columns of results.csv; and the audits that could not be made
      (too few models or samples), which the report shows as warnings.

    Raises:
      ValueError: a metric was given what does not fit, which is a bug.
    """
    rows, refused = [], []
    o = audit.outcome
    for name in names:
        try:
            for metric, value in AUDITS[name](audit):
                whole = catalogue.has_no_seed(metric)
                seeds, values = ((catalogue.NO_SEED,), [value]) if whole else (o.seeds, value)
                rows += [{"method": o.method, "forget_set": o.forget_set, "epochs": o.epochs,
                          "seed": seed, "metric": metric, "value": float(v), "stage": o.stage}
                         for seed, v in zip(seeds, np.asarray(values), strict=True)]
        except Refused as e:
            refused.append(Refusal(audit=name, method=o.method, epochs=o.epochs,
                                   forget_set=o.forget_set, reason=str(e)))
    return rows, refused


def _halves(audit: Audit, samples: AuditedSamples,
            least: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores `[n / 2, N]` of half of the models and of the M_Rs of other seeds, several times.

    No seed is on both sides, as models of one seed resemble each other: where M_R is judged there
    could be none. All of n seeds whose models have not failed take their turn on either side.

    Raises:
      Refused: fewer than `least` in a half.
    """
    mine, theirs = (audit.scores(o, samples) for o in (audit.outcome, audit.reference))
    seeds = np.flatnonzero(np.isfinite(mine).all(1) & np.isfinite(theirs).all(1))
    half = len(seeds) // 2
    if half < least:
        raise Refused(f"half of the models are compared with the M_Rs of the other seeds, {least} "
                      f"of either at least; that takes {2 * least} seeds without a failed member, "
                      f"and there are {len(seeds)}")
    rng = np.random.default_rng(0)
    orders = [rng.permutation(seeds) for _ in range(_HALVINGS)]
    return [(mine[order[:half]], theirs[order[half:2 * half]]) for order in orders]


def _finite(values_MN: np.ndarray) -> np.ndarray:
    """The models without NaN, whose number the attacks check."""
    values_MN = np.asarray(values_MN)
    return values_MN[np.isfinite(values_MN).all(axis=1)]
