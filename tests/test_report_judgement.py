"""The verdict on made models whose truth is known, by the project's own metrics and attacks."""

import dataclasses

import ml_collections
import numpy as np
import pandas as pd
import pytest

from unlearn_jax.audits import Audit, AuditedSamples, audit_rows
from unlearn_jax.report.sections import card
from unlearn_jax.report.tables import judgement
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.results import Outcome, Targets, result_rows

N = 600  # samples of a split
CONFIG = ml_collections.ConfigDict({"alpha": 15.0, "alphas": (15.0,), "within": ()})
SPLITS = ("forget", "retain", "test")


def regression(rng, seeds, seen):
    """Outputs `[M, N]` by split: errors of 2 years on what was seen, of 7 on what was not."""
    labels = {split: np.random.default_rng(i).uniform(20, 60, N) for i, split in enumerate(SPLITS)}
    # What is hard for one model is hard for all.
    hard = {split: np.random.default_rng(10 + i).normal(0, 1, N) for i, split in enumerate(SPLITS)}
    return labels, {
        split: labels[split] + (2 if split in seen else 7) * (
            0.8 * hard[split] + 0.6 * rng.normal(0, 1, (seeds, N))) for split in SPLITS}


def made(name, seeds):
    """A model whose truth the name says, M_O and M_R: outputs by split of each."""
    rng = np.random.default_rng([seeds, 5])
    labels, original = regression(rng, seeds, ("forget", "retain"))
    _, retrained = regression(rng, seeds, ("retain",))
    _, other = regression(rng, seeds, ("retain",))
    gap = np.abs(retrained["forget"] - labels["forget"]).mean()
    if name == "retrained":
        found = other
    elif name == "untouched":
        found = original
    elif name == "shifted":  # as far as M_R errs, with all that M_O knows
        found = {split: x + gap for split, x in original.items()}
    elif name == "constant":
        middle = np.quantile(labels["forget"], np.linspace(0, 1, 400))
        errors = np.abs(middle[:, None] - labels["forget"]).mean(1)
        found = original | {"forget": np.full_like(
            original["forget"], middle[np.argmin(np.abs(errors - gap))])}
    elif name == "useless":
        found = {split: x + rng.normal(0, 12, x.shape) for split, x in other.items()}
    elif name == "one seed remembers":
        found = {split: np.concatenate([original[split][:1], x[1:]]) for split, x in other.items()}
    elif name == "one seed fails":
        found = {split: np.concatenate([x[:1] * np.nan, x[1:]]) for split, x in other.items()}
    return labels, original, retrained, found


def read(labels, original, retrained, found, *, audits=("mia", "distances"), classification=False,
         measures=()):
    """The run that results.csv, written of these outputs, would be."""
    def outcome(method, epochs, outputs):
        seeds = tuple(range(len(outputs["test"])))
        cost = np.ones(len(seeds))
        failed = ~np.isfinite(outputs["test"]).reshape(len(seeds), -1).all(1)
        return Outcome(
            method=method, forget_set="set", epochs=epochs, stage="", seeds=seeds, outputs=outputs,
            images=cost, seconds=cost, epochs_trained=cost, failed=failed, flops=cost, steps=cost,
            measures={name: of[method] for name, of in measures})

    targets = Targets(labels, {split: np.arange(len(x)).astype(str) for split, x in labels.items()})
    reference = outcome("retrain", 9, retrained)
    models = [outcome("original", 0, original), outcome("ft", 1, found)]
    rows = result_rows(models, reference, targets, 1 if classification else 40.0, CONFIG,
                       classification)
    every = np.arange(N)
    for model in (*models, reference):
        rows += audit_rows(Audit(
            outcome=model, reference=reference, targets=targets,
            members=AuditedSamples("forget", every, labels["forget"]),
            others=AuditedSamples("test", every, labels["test"]), classification=classification,
            config=CONFIG), audits)[0]
    return Run(None, pd.DataFrame(rows), None, {
        "task": "classification" if classification else "regression", "label_unit": "years",
        "forget_sets": {"set": {}}}, {"config": {"eval": {"alpha": 15.0}}})


def judged(*outputs, **options):
    return judgement.judge(read(*outputs, **options), "set", ModelKey("ft", 1))


@pytest.mark.parametrize("seeds", (3, 8))
@pytest.mark.parametrize("name, words", [
    ("retrained", {3: judgement.UNDECIDED, 8: judgement.FORGOTTEN}),
    ("untouched", judgement.NOT_FORGOTTEN),
    ("shifted", judgement.NOT_FORGOTTEN),
    ("constant", judgement.DAMAGED),
    ("useless", judgement.DAMAGED),
    ("one seed remembers", judgement.NOT_FORGOTTEN),
    ("one seed fails", judgement.DAMAGED),
])
def test_made_models_get_the_right_word(name, words, seeds):
    found = judged(*made(name, seeds))
    assert found.word == (words[seeds] if isinstance(words, dict) else words), found
    assert (found.seeds_needed > 0) == (found.word == judgement.UNDECIDED)


@pytest.mark.parametrize("seeds", (3, 8))
@pytest.mark.parametrize("relearned", (True, False))
def test_a_class_that_only_the_head_forgot_is_not_forgotten(seeds, relearned):
    """Its logit is put out: the accuracy on the class is 0, as M_R's, and all else is M_O's."""
    rng = np.random.default_rng(seeds)
    kinds = {"forget": np.zeros(N, int), "test": np.zeros(N, int), "retain": np.arange(N) % 3 + 1}

    def logits(margins):
        return {split: rng.normal(0, 1, (seeds, N, 4)) + margins[split] * np.eye(4)[kinds[split]]
                for split in SPLITS}

    original = logits({"forget": 9, "retain": 9, "test": 6})
    retrained = logits({"forget": -9, "retain": 9, "test": -9})
    found = {split: x - 20 * np.eye(4)[0] for split, x in original.items()}
    measures = (("relearn_epochs", {"original": np.zeros(seeds), "ft": np.ones(seeds),
                                    "retrain": 8 + rng.uniform(0, 1, seeds)}),) * relearned
    got = judged(kinds, original, retrained, found, classification=True, measures=measures,
                 audits=("mia",))
    assert got.word == judgement.NOT_FORGOTTEN
    assert ("it relearns D_f faster than M_R" in got.reason) == relearned


def test_an_attack_that_finds_lower_losses_finds_a_memory():
    """The logistic attack alone is established; by the loss's AUC, D_f has the lower losses."""
    labels, original, retrained, found = made("retrained", 8)
    run = read(labels, original, retrained, found)
    table = run.results.set_index(["method", "metric", "seed"]).value

    def judged_with(auc):
        for seed, wide in enumerate(np.linspace(-0.3, 0.3, 8)):
            table["ft", "mia_auc", seed] = table["retrain", "mia_auc", seed] + auc + wide
            table["ft", "mia_logistic_auc", seed] = \
                table["retrain", "mia_logistic_auc", seed] + 0.2 + wide / 100
        changed = Run(None, table.reset_index().assign(forget_set="set", epochs=run.results.epochs),
                      None, run.data, run.run)
        return judgement.judge(changed, "set", ModelKey("ft", 1))

    assert judged_with(0.1).word == judgement.NOT_FORGOTTEN
    assert judged_with(-0.1).word == judgement.DAMAGED
    assert judged_with(0.1).check("attack").metric == "mia_logistic_auc"


def test_without_an_attack_nothing_is_forgotten():
    found = judged(*made("retrained", 8), audits=())
    assert found.word == judgement.UNDECIDED and "no attack was run" in found.reason
    assert found.seeds_needed == -1


def test_without_a_difference_of_m_o_nothing_is_forgotten():
    labels, _, retrained, found = made("retrained", 8)
    got = judged(labels, made("useless", 8)[2], retrained, found)
    assert got.word == judgement.UNDECIDED and "nothing to forget" in got.reason


def test_one_seed_establishes_nothing():
    labels, *models = made("untouched", 3)
    one = [{split: x[:1] for split, x in model.items()} for model in models]
    got = judged(labels, *one, audits=("mia",))
    assert got.word == judgement.UNDECIDED and "one seed" in got.reason and got.seeds == 1


def test_a_wide_interval_is_no_success_and_says_how_many_seeds_decide():
    """Two models whose mean is M_R's; the more they vary over seeds, the less is known."""
    labels, original, retrained, found = made("retrained", 8)
    jump = np.linspace(-4, 4, 8)[:, None]
    varied = found | {"forget": found["forget"] + jump * np.sign(
        found["forget"] - labels["forget"])}
    got = judged(labels, original, retrained, varied)
    assert got.word != judgement.FORGOTTEN
    error = got.check("error")
    assert error.outcome != "same" and error.high - error.low > 2


def test_seeds_needed_are_enough():
    """With the number that is named, mean and deviation as they were, the check is decided."""
    mean, std, margin = 0.2, 1.0, 0.5
    n = judgement._seeds_for(mean, std, margin, one_sided=False)
    values = np.linspace(-1, 1, n)
    values = mean + std * values / values.std(ddof=1)
    assert _outcome(values, margin) == "same"
    fewer = np.linspace(-1, 1, n - 1)
    assert _outcome(mean + std * fewer / fewer.std(ddof=1), margin) == "open"
    assert judgement._seeds_for(0.5, 5.0, 0.5, one_sided=False) > 100
    assert judgement._seeds_for(0.5, 100.0, 0.5, one_sided=False) == -1


def _outcome(values, margin):
    zero = pd.Series(0.0, range(len(values)))
    series = judgement._Series(question="error", metric="x", evaluated=pd.Series(values),
                               retrained=zero, original=zero, least_margin=lambda mean: margin)
    return judgement._checks([series])[0].outcome


def test_verdict_csv_has_a_row_for_each_check():
    run = read(*made("untouched", 3))
    table = judgement.table(judgement.judge_all(run))
    assert set(table.verdict) == {judgement.NOT_FORGOTTEN} and set(table.method) == {"ft"}
    assert table.set_index("metric").outcome["mae_forget"] == "differs"
    assert {"error", "attack", "utility"} == set(table.question)
    error = table.set_index("metric").loc["mae_forget"]
    assert error.ci90_low < error.difference < error.ci90_high < 0 < error.margin


@pytest.mark.parametrize("name, metric", [("untouched", "MAE forget"), ("useless", "MAE test")])
def test_the_page_shows_the_differences_that_decided_and_no_others(name, metric):
    run = read(*made(name, 8))
    found = judgement.judge(run, "set", ModelKey("ft", 1))
    text = card._with_evidence(run, found)
    assert text.startswith(found.reason[:1].upper() + found.reason[1:])
    assert f"{metric} (years) minus that of M_R: " in text
    # The same checks, where something else decided: nothing is shown.
    other = dataclasses.replace(found, reason="training failed in 1 of 8 seeds (3)")
    assert card._with_evidence(run, other) == "Training failed in 1 of 8 seeds (3)."
