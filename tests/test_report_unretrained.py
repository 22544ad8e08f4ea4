"""Verdicts without M_R, on made tables of attacks."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unlearn_jax.report.sections import summary
from unlearn_jax.report.tables import judgement
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.unretrained import memory

D_F, PEERS = 200, 100
DEVIATION = math.sqrt((D_F + PEERS + 1) / (12 * D_F * PEERS))  # of the AUC by chance


def made(auc, before=(0.8, 0.82, 0.81), request="20-28", peers=PEERS, errors=None):
    """A run without M_R: the AUC of M_FT and of M_O by seed."""
    errors = errors or [5.0] * len(auc)
    rows = [(method, epochs, seed, metric, value)
            for method, epochs, metric, values in (
                ("ft", 2, "mia_auc", auc), ("original", 0, "mia_auc", before[:len(auc)]),
                ("ft", 2, "mae_forget", errors), ("original", 0, "mae_forget", [3.0] * len(auc)),
                ("ft", 2, "mae_test", errors), ("original", 0, "mae_test", [4.0] * len(auc)))
            for seed, value in enumerate(values)]
    results = pd.DataFrame(rows, columns=["method", "epochs", "seed", "metric", "value"])
    return Run(Path("run"), results.assign(forget_set="set"), None, {
        "task": "regression", "label_unit": "years", "counts": {"test": 500}, "class_names": [],
        "forget_sets": {"set": {"request": request, "train": D_F, "peers": peers}}},
        {"config": {"eval": {"alpha": 15.0}, "retrain": {"mode": "off"}}, "stages": []})


def judged(*args, **options):
    return judgement.judge(made(*args, **options), "set", ModelKey("ft", 2))


def test_an_attack_that_finds_d_f_shows_a_memory():
    found = judged((0.70, 0.72, 0.71))
    assert found.word == judgement.NOT_FORGOTTEN and found.seeds_needed == 0
    assert "AUC 0.710; chance gives up to 0.558" in found.reason  # 0.5 + 1.645 * 0.03542
    (check,) = found.checks
    assert check.mean == pytest.approx(0.21) and check.memory and check.outcome == "differs"
    assert check.margin == pytest.approx(stats.norm.ppf(0.95) * DEVIATION)
    half = stats.t.ppf(0.95, 2) * np.std([0.70, 0.72, 0.71], ddof=1) / math.sqrt(3)
    assert (check.low, check.high) == pytest.approx((0.21 - half, 0.21 + half))


@pytest.mark.parametrize("auc, reason", [
    ((0.54, 0.55, 0.56), "finds it no more (AUC 0.550)"),  # chance gives as much
    ((0.45, 0.95, 0.55), "finds it no more"),  # by one seed alone
    ((0.30, 0.31, 0.32), "finds it no more"),
])
def test_an_attack_that_finds_nothing_decides_nothing(auc, reason):
    found = judged(auc)
    assert found.word == judgement.UNDECIDED and found.seeds_needed == -1
    assert found.reason.startswith("no M_R: ") and reason in found.reason
    assert "alone is no forgetting" in found.reason


def test_an_attack_that_does_not_find_d_f_in_m_o_is_said_to_be_blind():
    assert "not find D_f in M_O either" in judged((0.5, 0.51), before=(0.51, 0.5)).reason


@pytest.mark.parametrize("request_, peers, found", [
    ("random:0.1", 500, True), ("class:3", 60, True), ("gender:1", 60, True),
    ("injected", 60, True),
    ("ids:asked.txt", 500, False), ("ids:asked.txt", 60, False), ("name:people", 60, False),
    ("people", 60, False),
    ("20-28", 500, False),  # no test sample is of that kind, and all were taken
    ("20-28", 0, False),
])
def test_d_f_must_be_comparable_with_the_samples_that_it_is_compared_with(request_, peers, found):
    run = made((0.7, 0.72, 0.71), request=request_, peers=peers)
    assert memory(run, "set", ModelKey("ft", 2), 0.05).found == found
    if not found:
        reason = judgement.judge(run, "set", ModelKey("ft", 2)).reason
        assert "not chosen by its kind or at random" in reason


def test_of_one_model_the_samples_alone_decide():
    assert judged((0.7,)).word == judgement.NOT_FORGOTTEN
    assert judged((0.55,)).word == judgement.UNDECIDED


def test_a_split_that_was_not_drawn_here_is_a_condition():
    run = made((0.7, 0.72, 0.71))
    assert "not drawn here" not in judgement.judge(run, "set", ModelKey("ft", 2)).reason
    run.run["config"]["original"] = {"trained_on": "seen.txt"}
    assert "if training and test samples are of one kind: their split was not drawn here" in \
        judgement.judge(run, "set", ModelKey("ft", 2)).reason
    given = made((0.7, 0.72, 0.71))
    given.data["drawn_splits"] = ["validation"]
    assert "not drawn here" in judgement.judge(given, "set", ModelKey("ft", 2)).reason


def test_no_attack_and_failed_seeds():
    nan = math.nan
    assert judged((nan, nan)).reason == "no M_R: no attack was run (eval.audits lists them)"
    failed = judged((0.5, nan, 0.51), errors=[5.0, nan, 5.0])
    assert (failed.word, failed.seeds) == (judgement.DAMAGED, 2)
    assert failed.reason == "training failed in 1 of 3 seeds (1)"


def test_the_summary_shows_m_o_beside_the_model():
    run = made((0.70, 0.72, 0.71))
    judgements = judgement.judge_all(run)
    shown = summary.table(run, judgements)
    headers = [name for name, _ in shown.columns]
    assert "MIA AUC, M_O" in headers and not [h for h in headers if "M_R" in h]
    assert "without M_R it cannot be said that D_f is forgotten" in shown.caption
    lines = summary.lines(run, judgements, Path("store"))
    assert "M_FT, 2 epochs: not forgotten." in lines[0]
    assert any("(M_O 0.810)" in line for line in lines)
