"""The metrics of results.csv. A metric's record defines how it is averaged, named and shown.

A new metric needs a function that computes its values and a record here. The function for a
split's outputs and labels is in `metrics/errors.py`, under `@per_split(NAME, TASK)`. The function
of an audit is in `audits.py`, and the records of its metrics name the audit. This file imports no
JAX, because the config's checks and the report read it.

A name holds its parameters in capitals (`forgetting@ALPHA`). Titles, units and definitions may
use them in braces, and words of the run (listed in `report/tables/names.py`) in small letters.
"""

import dataclasses
import functools
import re
from typing import Literal

AVERAGED = "averaged:"  # before the name: the metric of the seeds' mean prediction
POPULATION = "population:"  # before the name: a metric that only all seeds together have
NO_SEED = -1  # in the column seed of both
# The allowed values of a parameter in a name.
_PARAMETERS = {"SPLIT": "[A-Za-z0-9]+", "ALPHA": ".+", "WITHIN": ".+", "RATE": ".+",
               "END": "low|high"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """The properties of a metric that are the same in every run.

    Attributes:
      name: as in results.csv, its parameters in capitals.
      title: title of a column, without the unit.
      unit: shown after the title, in brackets; '': none is shown.
      definition: formula and explanation.
      better: which values are better; 'M_R': those near M_R's; '': none.
      decimals: digits after the point.
      percent: True if the value is shown times 100.
      infinite: text for an infinite value.
      over: the kind of a seed's value. 'seeds': its own; 'pairs': the mean over its pairs with
        the other seeds; 'clock': an equal share of a time that was measured once for all seeds.
      averaged: True if the metric is also computed for the mean prediction of all seeds.
      table: the table of the report that shows it. `HEADLINE` and `LEADERBOARD` also show some.
      audit: the audit that yields it; '': another part of the run yields it.
      of_reference: only M_R has it; tables show it in the rows of all models.
      for_reference: the metric that replaces this one in the leaderboard's row of M_R.
      reference_apart: M_R's value is measured against the M_R of another seed of the run.
    """

    name: str
    title: str
    unit: str = ""
    definition: str
    better: Literal["higher", "lower", "M_R", ""] = ""
    decimals: int = 3
    percent: bool = False
    infinite: str = "∞"
    over: Literal["seeds", "pairs", "clock"] = "seeds"
    averaged: bool = True
    table: Literal["further", "alphas", "speedups", "audits"] = "further"
    audit: str = ""
    of_reference: bool = False
    for_reference: str = ""
    reference_apart: bool = False


_cost = functools.partial(MetricRecord, better="lower", averaged=False)
_alpha = functools.partial(MetricRecord, better="higher", table="alphas")
_speedup = functools.partial(MetricRecord, better="higher", table="speedups", decimals=2)
_audit = functools.partial(MetricRecord, better="M_R", table="audits")
_share = functools.partial(_audit, unit="%", decimals=1, percent=True)

RECORDS: tuple[MetricRecord, ...] = (
    MetricRecord(
        name="mae_SPLIT", title="MAE {SPLIT}", unit="{unit}", better="lower", decimals=2,
        definition="mean of |predicted − true| over {split}, in {unit}; lower is closer to the "
        "truth"),
    MetricRecord(
        name="accuracy_SPLIT@WITHIN", title="within ±{WITHIN} {SPLIT}", unit="%",
        better="higher", decimals=1, percent=True,
        definition="share of {split} with |predicted − true| ≤ {WITHIN} {unit}, in %"),
    MetricRecord(
        name="accuracy_SPLIT", title="accuracy {SPLIT}", unit="%", better="higher", decimals=1,
        percent=True,
        definition="share of {split} whose largest output is the true class, in %"),
    MetricRecord(
        name="error_SPLIT", title="1 − p {SPLIT}", better="lower",
        definition="mean of 1 − p(true class) over {split}"),
    MetricRecord(
        name="utility", title="utility", better="higher",
        definition="{utility}; above 1: better on the test set than M_R"),
    MetricRecord(
        name="utility_vs_original", title="utility against M_O", better="higher",
        definition="{utility_against_original}; above 1: better on the test set than the M_O that "
        "it started from. Given where there is no M_R"),
    MetricRecord(
        name="change_SPLIT", title="change {SPLIT}", averaged=False,
        definition="{change}, over {split}: how far the outputs are from those of the M_O that the "
        "model started from. Given where there is no M_R"),
    _alpha(name="forgetting@ALPHA", title="Forgetting@{ALPHA}", for_reference="ceiling@{ALPHA}",
           definition="mean over D_f of exp(−|r − e| / α) with α = {ALPHA}{alpha_unit}, where r "
           "and e are {errors} of M_R and of the model on the same sample; 1: errs exactly as M_R. "
           "M_R of the same seed: both grew from the same initial weights, and may agree more than "
           "M_Rs of two seeds do"),
    _alpha(name="forgetting_across@ALPHA", title="Forgetting@{ALPHA} across seeds", over="pairs",
           for_reference="ceiling@{ALPHA}",
           definition="the same mean (α = {ALPHA}{alpha_unit}) against the M_Rs of every other "
           "seed, which {others}: to be compared with the ceiling. Interval: jackknife over "
           "seeds, from three on"),
    _alpha(name="ceiling@ALPHA", title="ceiling@{ALPHA}", over="pairs", of_reference=True,
           definition="the same mean (α = {ALPHA}{alpha_unit}) for M_R against the M_R of every "
           "other seed, which {others}: what a perfect method reaches across seeds, given the "
           "noise of training. No bound of Forgetting against the M_R of the same seed. Interval: "
           "jackknife over seeds, from three on"),
    _alpha(name="F@ALPHA", title="F@{ALPHA}", for_reference="ceiling@{ALPHA}",  # M_R's utility is 1
           definition="utility × Forgetting@{ALPHA}"),
    _cost(name="images", title="images", decimals=0,
          definition="images trained on, each epoch counted"),
    _cost(name="wall_seconds", title="time", unit="s", decimals=1, over="clock",
          definition="training time in seconds: the member's share of its population, compilation "
          "excluded; timed once, so no interval"),
    _cost(name="flops", title="FLOPs", decimals=0,
          definition="floating-point operations of preparation and steps"),
    _cost(name="steps", title="steps", decimals=0,
          definition="updates of the weights, those of other models in preparation included"),
    _cost(name="epochs_trained", title="epochs trained", decimals=1,
          definition="epochs behind the weights that were kept"),
    _cost(name="images_vs_retrain", title="images", unit="% of M_R", decimals=1, percent=True,
          definition="images trained on (each epoch counts, and so do passes of preparation), in % "
          "of those of M_R with the same seed. A further pass of the same image through a teacher "
          "is not counted: FLOPs do"),
    _cost(name="wall_vs_retrain", title="time", unit="% of M_R", decimals=1, percent=True,
          over="clock",
          definition="training time, in % of that of M_R with the same seed; timed once for all "
          "seeds together, so no interval"),
    _cost(name="flops_vs_retrain", title="FLOPs", unit="% of M_R", decimals=1, percent=True,
          definition="floating-point operations of preparation and steps, in % of those of M_R "
          "with the same seed"),
    _cost(name="steps_vs_retrain", title="steps", unit="% of M_R", decimals=1, percent=True,
          definition="updates of the weights, those of other models in preparation included, in % "
          "of those of M_R with the same seed"),
    _speedup(name="sisa_speedup_measured_wall", title="measured, time", over="clock",
             definition="training time of M_R over that of the deletion, compilation excluded; "
             "the times are of different runs if a model came from the store, and timed once for "
             "all seeds, so no interval"),
    _speedup(name="sisa_speedup_measured_images", title="measured, images",
             definition="images that M_R trained on over those that the deletion trained on again"),
    _speedup(name="sisa_speedup_expected", title="expected",
             definition="counted without training: the images that M_R trains on, over the mean "
             "number of images that a deletion of as many samples trains on again; the mean is "
             "over all choices of the samples"),
    _speedup(name="sisa_speedup_nominal", title="nominal", decimals=1,
             definition="(R + 1) · S, with R slices in each of S shards, as the reference study "
             "gives it; it counts checkpoints, not images, and does not depend on the forget set"),
    _audit(name="mia_auc", title="MIA AUC", audit="mia",
           definition="chance that a training sample of D_f has a lower loss than a similar test "
           "sample; 0.5: the loss tells nothing about membership. M_R's value is reached without "
           "any memory of D_f"),
    _share(name="mia_accuracy", title="MIA accuracy", audit="mia",
           definition="share of samples that the best threshold on the loss classifies correctly, "
           "cross-validated; D_f and the test set have the same weight"),
    _share(name="mia_tpr@RATE", title="MIA TPR@{RATE}", audit="mia",
           definition="share of D_f's training samples that the attack recognises, with a "
           "threshold at which it takes at most a share of {RATE} of the test samples for samples "
           "of D_f"),
    _audit(name="mia_logistic_auc", title="logistic MIA AUC", audit="mia",
           definition="AUC of a membership attack by logistic regression on the loss, over "
           "held-out folds"),
    _share(name="mia_logistic_accuracy", title="logistic MIA accuracy", audit="mia",
           definition="accuracy of the membership attack by logistic regression, on held-out "
           "folds"),
    _share(name="mia_logistic_tpr@RATE", title="logistic MIA TPR@{RATE}", audit="mia",
           definition="the same share, for the membership attack by logistic regression, on "
           "held-out folds"),
    _share(name="population:lira_accuracy", title="U-LiRA", audit="lira",
           definition="share of models that a likelihood-ratio attack classifies correctly as "
           "unlearned or retrained. It compares half of the unlearned models with the M_Rs of the "
           "other seeds; mean over D_f and over random halves. 50: they cannot be told apart. In "
           "M_R's row it compares the M_Rs of some seeds with those of the others"),
    _share(name="population:lira_accuracy_worst", title="U-LiRA, largest", audit="lira",
           definition="the U-LiRA value of the sample for which it is largest, mean over random "
           "halves. A maximum of many noisy values is far above 50 by chance alone, the more so "
           "the fewer the models: compare it with M_R's, never with 50"),
    _audit(name="population:challenge_quality", title="forgetting quality", audit="challenge",
           better="higher", decimals=4,
           definition="the measure of the 2023 challenge: mean of 2 / 2^n over D_f, n from the ε "
           "of the best attack; higher is better, and the perfect value stands in M_R's row"),
    _audit(name="population:challenge_quality_END", title="quality, {END}", audit="challenge",
           better="higher", decimals=4,
           definition="{END} end of the 95 % interval of the forgetting quality (bootstrap over "
           "models)"),
    _audit(name="population:challenge_quality_halves", title="quality, M_R against M_R",
           audit="challenge", better="", decimals=4,
           definition="forgetting quality of one half of the retrained models against the other"),
    _audit(name="population:challenge_quality_perfect", title="quality, perfect",
           audit="challenge", better="", decimals=4,
           definition="forgetting quality of unlearned models that are as good as retrained ones, "
           "with this number of models"),
    _audit(name="population:challenge_epsilon_median", title="ε, median", unit="nats",
           audit="challenge", better="lower", decimals=2,
           definition="median over D_f of the ε of the best attack"),
    _audit(name="population:challenge_score", title="challenge score", audit="challenge",
           better="higher", decimals=4,
           definition="forgetting quality × the ratios of the model's utility to M_R's, on D_r "
           "and on the test set; 0 where unlearning takes over 20 % of retraining's time"),
    _audit(name="population:challenge_accepted", title="within 20 % of the time",
           audit="challenge", better="higher", decimals=0,
           definition="1: unlearning takes at most 20 % of retraining's time; 0: it takes longer"),
    _audit(name="w1_forget", title="W1 on D_f", audit="distances", better="lower",
           reference_apart=True,
           definition="Wasserstein-1 distance between the outputs on D_f of the model and of the "
           "M_R with the same seed, which started from the same weights. M_R itself is compared "
           "with the M_R of another seed: a model may have a smaller value than M_R without having "
           "forgotten"),
    _audit(name="population:w1", title="W1 over models", audit="distances",
           definition="Wasserstein-1 distance, on one sample, between the outputs of half of the "
           "models and those of the M_Rs of the other seeds; mean over D_f and over random halves. "
           "In M_R's row: between M_Rs of some seeds and of the others. It is larger for fewer "
           "models: compare it with M_R's"),
    _audit(name="population:js", title="JS", unit="nats", audit="distances",
           definition="Jensen–Shannon divergence between the same outputs as in “W1 over models”"),
    _audit(name="population:klom", title="KLoM", unit="nats", audit="distances",
           definition="KL divergence of the margins (regression: of the outputs) of the same "
           "models as in “W1 over models”"),
    _audit(name="confusion_SPLIT", title="confusion {SPLIT}", audit="confusion",
           definition="share of the samples of the two groups with exchanged labels for which the "
           "model predicts the other group; for regression, a label within that group's range"),
    _audit(name="confusion_nearer_SPLIT", title="nearer to the wrong group, {SPLIT}",
           audit="confusion",
           definition="share of the two groups' samples whose predicted label is nearer to the "
           "other group's range than to their own. A model that was trained with both labels may "
           "predict a label between the two ranges, which `confusion` does not count"),
    _audit(name="injection_effect", title="effect of the patch", audit="injection",
           definition="change of the outputs on test images when the injected patch is stamped on "
           "them"),
    _audit(name="ain", title="AIN", decimals=2,
           definition="anamnesis index: epochs to relearn D_f, over those of M_R; 1: like a model "
           "that never saw D_f; near 0: the model still holds D_f. “–”: it is not known for every "
           "seed. Then some loss did not come down in the epochs made, or the losses of the model "
           "and of M_R were at M_O's from the start, and the bounds beside it say what is known"),
    _audit(name="ain_low", title="AIN, at least", decimals=2,
           definition="lower bound of the anamnesis index. A loss of the model that did not come "
           "down in the epochs made counts as needing one epoch more. 0 where M_R's loss did not "
           "come down, and where neither had anything to relearn"),
    _audit(name="ain_high", title="AIN, at most", decimals=2,
           definition="upper bound of the anamnesis index; infinite where the model's loss did not "
           "come down in the epochs made, or M_R had nothing to relearn"),
    _audit(name="relearn_epochs", title="epochs to relearn", decimals=1, infinite="{longer}",
           definition="epochs of training on D_f until the loss on its training samples is within "
           "5 % of M_O's. Where that took longer than the epochs made in some seeds, the cell says "
           "in how many; there is no mean"),
    _audit(name="relearn_censored", title="not relearned", unit="% of seeds", decimals=0,
           percent=True,
           definition="share of seeds whose loss did not come down to M_O's in the epochs made"),
)

# Audits by name, as `eval.audits` may list them.
AUDITS = tuple(dict.fromkeys(record.audit for record in RECORDS if record.audit))
AUDITS_OF_RETRAINED = ("lira", "challenge", "distances")  # those that compare with M_R

# Columns of the two tables of chosen metrics, from left to right. {kind}: accuracy or mae.
HEADLINE = ("{kind}_test", "{kind}_forget", "{kind}_retain", "utility", "forgetting@{alpha:g}",
            "forgetting_across@{alpha:g}", "ceiling@{alpha:g}", "F@{alpha:g}", "images_vs_retrain",
            "wall_vs_retrain")
# The leaderboard computes the gap closed from errors on D_f; results.csv does not have it.
GAP_CLOSED = MetricRecord(
    name="gap_closed", title="gap closed", unit="%", better="higher", decimals=0, percent=True,
    definition="(M_e − M_O) / (M_R − M_O) of the error on D_f per seed, in %: 0 is M_O, 100 is "
    "M_R; over the forget sets where a gap is established")
# So does the distance of an attack's success from what it reaches on M_R.
ATTACK_GAP = MetricRecord(
    name="attack_gap", title="attack, from M_R", better="lower",
    definition="|AUC − AUC for M_R| of the membership attacks within a seed, of the attack for "
    "which it is largest; 0: attacks tell D_f from unseen samples no better and no worse than they "
    "do for M_R. In M_R's row: M_R against the M_R of every other seed")
LEADERBOARD = (ATTACK_GAP.name, "mia_auc", "F@{alpha:g}", "utility", "forgetting@{alpha:g}",
               "forgetting_across@{alpha:g}", GAP_CLOSED.name, "{kind}_test", "{kind}_forget",
               "images_vs_retrain", "wall_vs_retrain", "flops_vs_retrain")


def columns(table: tuple[str, ...], classification: bool, alpha: float) -> list[str]:
    """The names of `HEADLINE` or `LEADERBOARD` as results.csv has them."""
    kind = "accuracy" if classification else "mae"
    return [name.format(kind=kind, alpha=alpha) for name in table]


@functools.cache
def find(name: str) -> MetricRecord | None:
    """The record of a metric of results.csv; None if there is none, as for `averaged:` metrics."""
    return next((record for record in RECORDS if _pattern(record.name).fullmatch(name)), None)


def parameters(record: MetricRecord, name: str) -> dict[str, str]:
    """The values in `name` of the parameters that the record's name has in capitals."""
    match = _pattern(record.name).fullmatch(name)
    assert match is not None, f"{name!r} is no metric of the record {record.name!r}"
    return match.groupdict()


def has_no_seed(name: str) -> bool:
    """Returns True if the value belongs to all seeds together."""
    return name.startswith((AVERAGED, POPULATION))


def over_pairs(name: str) -> bool:
    """Returns True if a seed's value is the mean over its pairs with the other seeds."""
    return _is(name, "over", "pairs")


def reference_apart(name: str) -> bool:
    """Returns True if M_R's value is measured against the M_R of another seed of the run."""
    return _is(name, "reference_apart", True)


def of_reference(name: str) -> bool:
    """Returns True if only M_R has the metric."""
    return _is(name, "of_reference", True)


def is_averaged(name: str) -> bool:
    """Returns True if the metric is also computed for the mean prediction of all seeds."""
    return _is(name, "averaged", True)


def timed_once(name: str) -> bool:
    """Returns True if the values of the seeds are shares of one measurement."""
    return _is(name, "over", "clock")


def shown_in(name: str, table: str) -> bool:
    """Returns True if the report shows the metric in the table; without a record: in 'further'."""
    if not has_no_seed(name) and find(name) is None:
        return table == "further"
    return _is(name, "table", table)


def _is(name: str, attribute: str, value: str | bool) -> bool:
    record = find(name)
    return record is not None and getattr(record, attribute) == value


@functools.cache
def _pattern(name: str) -> re.Pattern:
    """The pattern of a record's name, one group for each parameter."""
    parts = re.split(f"({'|'.join(_PARAMETERS)})", name)
    return re.compile("".join(f"(?P<{part}>{_PARAMETERS[part]})" if part in _PARAMETERS
                              else re.escape(part) for part in parts))
