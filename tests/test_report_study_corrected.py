"""One correction over all claims of the study: hand-made p-values and a hand-made study."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from test_report_study import FIRST, A, B, changed, study_document

from unlearn_jax.report.output import Output
from unlearn_jax.report.render import markdown
from unlearn_jax.report.tables.stats import estimate, holm, paired_p
from unlearn_jax.report.thesis import section
from unlearn_jax.report.thesis.claims import Claim, Comparison, Term
from unlearn_jax.report.thesis.conclusions import conclusions
from unlearn_jax.report.thesis.verdicts import (
    ABSENT,
    FAILS,
    HOLDS,
    OPEN,
    Verdict,
    corrected,
    judge,
    one_sided,
    p_of_all,
    verdicts,
)


def verdict(p, toward, uncorrected=HOLDS):
    claim = Claim("x", "1", 0, "x.", (Comparison(A, B),))
    return Verdict(claim, "", None, 3, 3, estimate([]), "", uncorrected, p, toward)


@pytest.mark.parametrize("ps, p, toward", [
    ([0.01], 0.02, 1),
    ([0.01, 0.2, 0.03], 0.4, 1),  # all must hold: the largest
    ([0.01, 0.999], 2 * 2 * 0.001, -1),  # one is enough: the smallest, times their number
    ([0.5], 1.0, 1), ([0.6, 0.7], 1.0, -1),
    ([0.01, math.nan], 1.0, -1),  # not all were tested
    ([0.9999, math.nan], 2 * 2 * 0.0001, -1),
    ([0.0, 0.0], 0.0, 1), ([1.0], 0.0, -1),
])
def test_p_of_a_claim_by_hand(ps, p, toward):
    found = p_of_all(ps)
    assert found[0] == pytest.approx(p, abs=1e-12) and (found[1] == toward or p == 1.0)


def test_a_claim_without_a_test_has_no_p():
    assert math.isnan(p_of_all([math.nan])[0]) and math.isnan(p_of_all([])[0])


def test_one_sided_p_follows_the_sign():
    up = pd.Series([0.1, 0.2, 0.4])
    assert one_sided(up) == pytest.approx(paired_p(up) / 2)
    assert one_sided(-up) == pytest.approx(1 - paired_p(up) / 2)
    assert math.isnan(one_sided(pd.Series([0.1])))


def test_holm_is_over_all_verdicts_contradicted_ones_included():
    # 0.012 x 4 = 0.048; 0.013 x 3 is less than that; 0.04 x 2; not tested: NaN
    found = corrected([verdict(0.013, -1, FAILS), verdict(0.04, 1), verdict(0.012, 1),
                       verdict(math.nan, 0, ABSENT), verdict(0.5, 1, OPEN)])
    assert [v.p_holm for v in found[:3]] == pytest.approx([0.048, 0.08, 0.048])
    assert [v.status for v in found] == [FAILS, OPEN, HOLDS, ABSENT, OPEN]
    assert [v.uncorrected for v in found] == [FAILS, HOLDS, HOLDS, ABSENT, OPEN]
    # alone, the second would hold
    assert corrected([verdict(0.04, 1)])[0].status == HOLDS


def test_p_of_a_claim_of_a_run(tmp_path):
    values = {("ft", FIRST, 2, "F@15"): (0.80, 0.81, 0.85),
              ("ft", FIRST, 4, "F@15"): (0.90, 0.90, 0.95),
              ("original", FIRST, 0, "F@15"): (0.70, 0.71, 0.71)}
    run = changed(None, tmp_path / "w", values)
    other = Comparison(Term("ft", 4, FIRST, "F@15"), B)
    found = judge(run, Claim("x", "1", 0, "x.", (Comparison(A, B), other)))
    differences = [np.subtract(values["ft", FIRST, e, "F@15"],
                               values["original", FIRST, 0, "F@15"]) for e in (2, 4)]
    assert found.p == pytest.approx(max(map(paired_p, differences))) and found.toward == 1
    against = judge(run, Claim("x", "1", 0, "x.", (Comparison(B, A), Comparison(B, other.larger))))
    assert against.p == pytest.approx(2 * min(map(paired_p, differences)))
    assert against.toward == -1


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """M_FT is above M_O in Forgetting: that holds by itself, and not among all claims."""
    values = {("original", FIRST, 0, "forgetting@15"): (0.50, 0.51, 0.49)}
    for e in (2, 4, 8, 16):
        # differences 0.02, 0.03, 0.04: t = 5.2, p = 0.035
        values["ft", FIRST, e, "forgetting@15"] = (0.52, 0.54, 0.53)
    return changed(None, tmp_path_factory.mktemp("study") / "w", values)


def test_sentences_come_from_what_survives(study):
    found = verdicts(study)
    named = {v.claim.name: v for v in found}
    own = named["ft-above-original-every-budget"]
    assert own.uncorrected == HOLDS and own.p == pytest.approx(paired_p([0.02, 0.03, 0.04]))
    assert own.p_holm > 0.05 and own.status == OPEN
    assert [v.p_holm for v in found] == pytest.approx(list(holm([v.p for v in found])), nan_ok=True)
    said = " ".join(conclusions(study, found))
    assert "M_FT being above M_O in Forgetting whatever the epochs, is left open (in 3 of 3" in said
    assert f"after a correction for all {len(found)} tests" in said
    counts = [sum(v.status == s for v in found) for s in (HOLDS, FAILS)]
    uncorrected = [sum(v.uncorrected == s for v in found) for s in (HOLDS, FAILS)]
    assert counts[0] < uncorrected[0]
    text = markdown.render(study_document(study))
    assert (f"{counts[0]} holds, {counts[1]} contradicted" in text
            and f"{uncorrected[0]} holds, {uncorrected[1]} contradicted" in text)
    [row] = [line for line in text.splitlines() if line.startswith(f"| {own.claim.text}")]
    assert "| open | " in row and "| holds | 3 of 3 |" in row


def test_the_file_keeps_its_columns(study, monkeypatch):
    monkeypatch.setattr(Output, "draw", lambda *_, **__: ())
    section.section(study, Output(study.workdir))
    with open(study.workdir / "tables" / "claims.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "claim", "section", "table", "arm", "text", "in_print", "status", "seeds_held", "seeds",
        "comparisons", "weakest", "difference", "ci95_low", "ci95_high", "p", "p_holm",
        "status_corrected"]
    [own] = [r for r in rows if r["claim"] == "ft-above-original-every-budget"]
    assert (own["status"], own["status_corrected"]) == (HOLDS, OPEN)
    assert float(own["p"]) == pytest.approx(paired_p([0.02, 0.03, 0.04]))
    assert float(own["p_holm"]) > 0.05
