"""Audits: what attacks and distances say of saved predictions. No model, no training.

`config.eval.audits` names which. A value of a member is a row of results.csv like any other;
what only a whole population has (an attack over all models) is one row of seed -1, with the
prefix `population:`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np

from unlearn_jax.data.inject import Injection
from unlearn_jax.metrics import (
    attacks,
    challenge,
    confidence,
    confusion,
    distributions,
    errors,
    injection,
    likelihood_ratio,
)
from unlearn_jax.results import Outcome, Targets

POPULATION = "population:"
POPULATION_SEED = -1

Values = Iterator[tuple[str, np.ndarray | float]]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit looks at.

    Attributes:
      outcome: the models that are judged.
      reference: M_R of the same forget set.
      targets: labels by split.
      peers: `[p]` places in the test split of the samples that D_f is compared with.
      classification: outputs are logits.
      config: the section `eval` of the config.
      injection: of the training samples, if any.
    """

    outcome: Outcome
    reference: Outcome
    targets: Targets
    peers: np.ndarray
    classification: bool
    config: ml_collections.ConfigDict
    injection: Injection | None = None

    @property
    def is_reference(self) -> bool:
        """Whether M_R itself is judged."""
        return self.outcome.method == self.reference.method

    def losses(self, split: str) -> np.ndarray:
        """`[M, N]`: cross entropies in nats, or absolute errors in label units."""
        outputs, labels = self.outcome.outputs[split], self.targets.labels[split]
        of = confidence.cross_entropies if self.classification else errors.absolute_errors
        return np.asarray(of(outputs, labels))

    def scores(self, outcome: Outcome) -> np.ndarray:
        """`[M, N]` on D_f: logit-scaled confidences, or the outputs in label units."""
        outputs = outcome.outputs["forget"]
        if not self.classification:
            return outputs
        return np.asarray(confidence.logit_scaled_confidences(outputs,
                                                              self.targets.labels["forget"]))

    def utilities(self, outcome: Outcome, split: str) -> np.ndarray:
        """`[M]`, higher is better: accuracy, or 1 / MAE."""
        outputs, labels = outcome.outputs[split], self.targets.labels[split]
        if self.classification:
            return np.asarray(errors.accuracy(outputs, labels))
        return 1 / np.asarray(errors.mean_error(errors.absolute_errors(outputs, labels)))


def _mia(audit: Audit) -> Values:
    """Can the losses of D_f be told from those of test samples of its kind?"""
    found = attacks.mia(audit.losses("forget"), audit.losses("test")[:, audit.peers], seed=0)
    for name, attack in (("mia", found.threshold), ("mia_logistic", found.logistic)):
        yield f"{name}_auc", attack.auc
        yield f"{name}_accuracy", attack.accuracy
        for rate, tpr in zip(attacks.FALSE_POSITIVE_RATES, attack.tpr):
            yield f"{name}_tpr@{rate:g}", tpr


def _lira(audit: Audit) -> Values:
    """Is a model one of those that forgot a sample, or one that never saw it?"""
    if audit.is_reference:
        return
    forgot, never = (_finite(audit.scores(o)) for o in (audit.outcome, audit.reference))
    accuracies = likelihood_ratio.attack_accuracy(
        *likelihood_ratio.u_lira_leave_one_out(forgot, never))
    yield "population:lira_accuracy", float(np.mean(accuracies))
    yield "population:lira_accuracy_worst", float(np.max(accuracies))


def _challenge(audit: Audit) -> Values:
    """The 2023 challenge's forgetting quality and score."""
    retrained = _finite(audit.scores(audit.reference))
    if audit.is_reference:
        half = len(retrained) // 2
        found = challenge.forgetting_quality(retrained[:half], retrained[half:2 * half],
                                             bins=audit.config.challenge_bins)
        yield "population:challenge_quality_halves", found.value
        yield "population:challenge_quality_perfect", challenge.perfect_quality(
            len(retrained), len(retrained), bins=audit.config.challenge_bins)
        return
    unlearned = _finite(audit.scores(audit.outcome))
    found = challenge.forgetting_quality(unlearned, retrained, bins=audit.config.challenge_bins)
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


def _confusion(audit: Audit) -> Values:
    """Are the two groups whose labels were exchanged taken for each other?"""
    if not audit.injection or audit.injection.kind != "confusion":
        raise ValueError("it needs config.data.inject='confusion:A:B:N'")
    a, b = audit.injection.groups
    for split in ("test", "forget"):
        outputs, labels = audit.outcome.outputs[split], audit.targets.labels[split]
        if audit.classification:
            counts = confusion.interclass_confusion(outputs, labels, class_a=int(a.low),
                                                    class_b=int(b.low))
        else:  # a prediction counts as the whole label nearest to it
            counts = confusion.binned_confusion(
                outputs, labels, bin_a=(a.low - 0.5, a.high + 0.5),
                bin_b=(b.low - 0.5, b.high + 0.5))
        yield f"confusion_{split}", np.asarray(counts) / max(
            np.sum(a.holds(labels) | b.holds(labels)), 1)


def _injection(audit: Audit) -> Values:
    """How far does the injected patch move the outputs on test images?"""
    if not audit.injection or audit.injection.kind != "patch":
        raise ValueError("it needs config.data.inject='patch:A:N'")
    plain, stamped = (audit.outcome.outputs[split] for split in ("test", "stamped"))
    if audit.classification:
        stands_for = np.full(plain.shape[1], int(audit.injection.groups[0].low))
        plain, stamped = (confidence.logit_scaled_confidences(x, stands_for)
                          for x in (plain, stamped))
    yield "injection_effect", np.asarray(injection.output_change(plain, stamped))


def _distances(audit: Audit) -> Values:
    """How far are the outputs on D_f from those of M_R, seed by seed and as populations?

    M_R itself is compared half against half, seed with seed: what distance the same procedure has.
    """
    mine, theirs = audit.scores(audit.outcome), audit.scores(audit.reference)
    if audit.is_reference:
        theirs = np.roll(theirs, 1, axis=0)  # the M_R of another seed
    if len(mine) < 2:
        raise ValueError(f"it needs two seeds, there is {len(mine)}")
    yield "w1_forget", np.asarray(distributions.wasserstein(mine, theirs, over="samples"))
    good = np.isfinite(mine).all(1) & np.isfinite(theirs).all(1)
    mine, theirs = mine[good], audit.scores(audit.reference)[good]
    if audit.is_reference:
        half = len(mine) // 2
        mine, theirs = mine[:half], mine[half:2 * half]
    if len(mine) < 2:
        return  # of one model there is no distribution
    for name, distance in (("w1", distributions.wasserstein),
                           ("js", distributions.jensen_shannon), ("klom", distributions.klom)):
        yield f"population:{name}", float(np.mean(distance(mine, theirs)))


AUDITS: dict[str, Callable[[Audit], Values]] = {
    "mia": _mia, "lira": _lira, "challenge": _challenge, "confusion": _confusion,
    "distances": _distances, "injection": _injection,
}


def audit_rows(audit: Audit, names: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of results.csv, and why an audit gave none.

    Args:
      audit: what they look at.
      names: keys of `AUDITS`.

    Returns:
      One dict per value, with the columns of results.csv; and a sentence for each audit that
      could not be made (too few models or samples), which the report shows as a warning.
    """
    rows, refused = [], []
    o = audit.outcome
    for name in names:
        try:
            found = list(AUDITS[name](audit))
        except ValueError as e:
            refused.append(f"audit {name} of {o.method} at {o.epochs} epochs on {o.forget_set}: "
                           f"{e}")
            continue
        for metric, value in found:
            whole = metric.startswith(POPULATION)
            seeds, values = ((POPULATION_SEED,), [value]) if whole else (o.seeds, value)
            rows += [{"method": o.method, "forget_set": o.forget_set, "epochs": o.epochs,
                      "seed": seed, "metric": metric, "value": float(v), "stage": o.stage}
                     for seed, v in zip(seeds, np.asarray(values), strict=True)]
    return rows, refused


def _finite(values_MN: np.ndarray) -> np.ndarray:
    """The models without NaN, whose number the attacks check."""
    values_MN = np.asarray(values_MN)
    return values_MN[np.isfinite(values_MN).all(axis=1)]
