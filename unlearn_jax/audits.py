"""Audits: attacks and distances, computed from saved predictions. No model, no training.

`config.eval.audits` names the audits of a run. A value of one member is a row of results.csv like
any other. A value of a whole population (an attack over all models) is one row with seed -1, and
its metric has the prefix `population:`.

A new audit is a function here, with `@_audit(NAME)` above it, and a record in
`metrics/catalogue.py` for each metric that it yields.
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

# Comparisons of two populations are means over this many random halvings of the seeds.
_HALVINGS = 20
# Least number of models of a kind in a half. With three, a likelihood-ratio attack would judge one
# by the variance of the two others, which has a single degree of freedom. One has no distribution.
_LEAST_LIRA, _LEAST_DISTANCES, _LEAST_CHALLENGE = 4, 2, 2


@dataclasses.dataclass(frozen=True)
class AuditedSamples:
    """Some samples of a split, with the labels that attacks compare predictions with.

    Attributes:
      split: as in `Outcome.outputs`.
      places: `[n]` positions in the split.
      labels: `[n]` the labels for training, whether the samples were trained on or not.
    """

    split: str
    places: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """The input of an audit.

    Attributes:
      outcome: the models that are judged.
      reference: M_R of the same forget set; None: there is none.
      targets: labels by split.
      members: the samples of D_f that were trained on. Attacks use only these: no model has learned
        the validation samples in D_f.
      others: similar samples that no model was trained on.
      classification: outputs are logits.
      config: the section `eval` of the config.
      injection: the injection into the training samples, if there is one.
      step: label units that stand for a year (`units.label_step`; regression).
    """

    outcome: Outcome
    reference: Outcome | None
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
        return self.reference is not None and self.outcome.method == self.reference.method

    @property
    def retrained(self) -> Outcome:
        """M_R, for audits that compare with it.

        Raises:
          Refused: there is none.
        """
        if self.reference is None:
            raise Refused("it compares with M_R, and there is none")
        return self.reference

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
        return 1 / np.asarray(errors.mae(outputs, labels))


AUDITS: dict[str, Callable[[Audit], Values]] = {}


def _audit(name: str):
    """Puts a function into `AUDITS`."""
    def add(function: Callable[[Audit], Values]):
        AUDITS[name] = function
        return function
    return add


@_audit("mia")
def _mia(audit: Audit) -> Values:
    """Can an attack tell losses of D_f's training samples from losses of similar test samples?

    A false positive rate that allows less than one of these test samples has no row.
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
    """Can an attack tell models that forgot a sample from models that never saw it?

    Half of the models are compared with the M_Rs of the other seeds. So M_R itself can be judged in
    the same way: its value is what the attack reaches on models that do not differ.
    """
    accuracies = np.stack([
        likelihood_ratio.attack_accuracy(*likelihood_ratio.u_lira_leave_pair_out(mine, theirs))
        for mine, theirs in _halves(audit, audit.members, _LEAST_LIRA)])
    yield "population:lira_accuracy", float(np.mean(accuracies))
    # The maximum is taken in each halving. The maximum of the means over halvings would be smaller
    # for M_R, because over the halvings all of its models are on both sides.
    yield "population:lira_accuracy_worst", float(np.mean(accuracies.max(axis=1)))


@_audit("challenge")
def _challenge(audit: Audit) -> Values:
    """The 2023 challenge's forgetting quality and score."""
    retrained = _finite(audit.scores(audit.retrained, audit.members))
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
    o, r = audit.outcome, audit.retrained
    if not (r.costed and (o.costed or o.method == "original")):
        raise Refused("the score needs the times of training, which predictions and models from "
                      "files do not hold; the forgetting quality is there")
    if "retain" not in o.outputs:
        raise Refused("the score needs predictions on the split 'retain'")
    utilities = {f"{split}_{kind}": _finite(audit.utilities(of, split)[:, None])[:, 0]
                 for split in ("retain", "test")
                 for kind, of in (("unlearned_U", o), ("retrained_R", r))}
    # M_O needs almost no time beyond its training, which every method starts from.
    seconds = 1e-9 if o.method == "original" else float(np.mean(o.seconds[~o.failed]))
    result = challenge.score(found.value, **utilities, seconds=seconds,
                             retrain_seconds=float(np.mean(r.seconds[~r.failed])))
    yield "population:challenge_score", result.value
    yield "population:challenge_accepted", float(result.accepted)


@_audit("confusion")
def _confusion(audit: Audit) -> Values:
    """How often does a model take one of the two groups with exchanged labels for the other?"""
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
    """How much does the injected patch change the outputs on test images?"""
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

    The two populations are half of the models and the M_Rs of the other seeds. These distances are
    larger for fewer models, so M_R's own distance is computed from equally many.
    """
    mine, theirs = (audit.scores(o, audit.forget) for o in (audit.outcome, audit.retrained))
    if audit.is_reference:
        theirs = np.roll(theirs, 1, axis=0)  # the M_R of another seed
    if len(mine) < 2:
        raise Refused(f"it needs two seeds, there is {len(mine)}")
    yield "w1_forget", np.asarray(distributions.wasserstein(mine, theirs, over="samples"))
    halves = _halves(audit, audit.forget, _LEAST_DISTANCES)
    # Margins are clipped as in the source. Labels are not: they may have any unit.
    klom = functools.partial(distributions.klom,
                             **({} if audit.classification else {"limit": np.inf}))
    for name, distance in (("w1", distributions.wasserstein),
                           ("js", distributions.jensen_shannon), ("klom", klom)):
        yield f"population:{name}", float(np.mean([distance(*pair) for pair in halves]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an audit gave no values, or only some, for certain models.

    Attributes:
      audit: a key of `AUDITS`.
      method, epochs, forget_set: which models.
      reason: what is missing.
    """

    audit: str
    method: str
    epochs: int
    forget_set: str
    reason: str


def refusals_in_words(refusals: list[Refusal]) -> list[str]:
    """One sentence for each pair of audit and reason, whatever the number of models."""
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
    """Rows of results.csv, and the reasons for missing ones.

    Args:
      audit: the input of all audits.
      names: keys of `AUDITS`.

    Returns:
      One dict for each value, with the columns of results.csv; and the audits that were not
      possible (too few models or samples), which the report shows as warnings.

    Raises:
      ValueError: arguments of a metric do not fit together, which is a bug.
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

    No seed is on both sides, because models of one seed resemble each other, and M_R would be
    compared with itself. n counts the seeds whose models did not fail. Each of
    them is on one side in some halvings and on the other side in others.

    Raises:
      Refused: a half has fewer than `least` models.
    """
    mine, theirs = (audit.scores(o, samples) for o in (audit.outcome, audit.retrained))
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
    """The models without NaN. The attacks check how many there are."""
    values_MN = np.asarray(values_MN)
    return values_MN[np.isfinite(values_MN).all(axis=1)]
