"""The answer to the reference study: printed numbers, tables, claims, findings, conclusions."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from fake_workdir import write_thesis, write_workdir
from scipy.stats import t

from unlearn_jax.metrics.errors import forgetting
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import html, markdown
from unlearn_jax.report.tables.inputs import ModelKey, read_run
from unlearn_jax.report.thesis import findings, section, tables
from unlearn_jax.report.thesis.claims import CLAIMS, Claim, Comparison, Term
from unlearn_jax.report.thesis.conclusions import conclusions
from unlearn_jax.report.thesis.published import PRINTED, printed
from unlearn_jax.report.thesis.verdicts import ABSENT, FAILS, HOLDS, OPEN, judge, verdicts

FIRST = "20-28"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_thesis(tmp_path_factory.mktemp("study") / "w", samples=20)


@pytest.fixture(scope="module")
def run(workdir):
    return read_run(workdir)


def changed(workdir, target, values):
    """A copy with other results: {(method, forget set, epochs, metric): by seed}."""
    copy = write_thesis(target, samples=20)
    rows = pd.read_csv(copy / "results.csv", keep_default_na=False, dtype=str)
    for (method, name, epochs, metric), by_seed in values.items():
        at = (rows.method == method) & (rows.forget_set == name) & (
            rows.epochs == str(epochs)) & (rows.metric == metric)
        assert at.sum() == len(by_seed), (method, name, epochs, metric)
        rows.loc[at, "value"] = [str(v) for v in by_seed]
    rows.to_csv(copy / "results.csv", index=False)
    return read_run(copy)


def test_printed_numbers_as_the_study_has_them():
    counts = pd.Series([p.table for p in PRINTED]).value_counts().to_dict()
    assert counts == {3: 24, 4: 9, 5: 10, 6: 9, 7: 9, 8: 45}
    assert printed(3, "ft", 8, FIRST, "forgetting@15") == 0.78
    assert printed(5, "retrain", 0, FIRST, "mae_test") == 6.17
    assert printed(8, "rnd", 2, "52-60", "utility") == 1.16
    assert printed(8, "rnd", 4, "52-60", "utility") is None
    # its equations, to the digits that it prints
    mae = {(p.model, p.epochs): p.value for p in PRINTED if p.table == 5}
    for p in PRINTED:
        if p.table == 4:
            assert mae["retrain", 0] / mae[p.model, p.epochs] == pytest.approx(p.value, abs=0.006)


def test_what_is_averaged_is_the_seeds_of_the_run(tmp_path):
    run = read_run(write_thesis(tmp_path, samples=5, seeds=(0, 1)))
    [mean] = [s for s in section.section(run, Output()).sections if "mean prediction" in s.title]
    text, *made = mean.blocks
    assert "those of all seeds (2)" in text.text and "three M_R" not in text.text
    assert len(made) == 6 and not any("three" in table.caption for table in made)


def test_a_run_of_arms_is_known(run, tmp_path):
    assert run.arms == ("ft", "rnd", "rnd_offset", "rnd_units")
    assert run.arm_setting("rnd_units")["label_units"] == "as_published"
    assert run.arm_setting("ft")["offset"] == [3, 6]  # of the shared section
    assert read_run(write_workdir(tmp_path / "ft", samples=20)).arms == ()


def test_tables_have_the_studys_rows_and_columns(run):
    found = {t.number: t for t in tables.study_tables(run)}
    assert sorted(found) == [3, 4, 5, 6, 7, 8]
    assert [names for names, _ in found[3].rows] == [
        (a,) for a in ("2", "5", "10", "15", "20", "25", "30", "35")]
    assert [names for names, _ in found[4].rows] == [("2",), ("4",), ("8",), ("16",), ("–",)]
    assert len(found[8].rows) == 15 and found[8].rows[5][0] == ("Forgetting", FIRST)
    assert "retrain" in found[5].models and "retrain" not in found[4].models


def test_an_entry_is_the_value_beside_the_printed_one(run):
    e = tables.entry(run, 7, "rnd_units", 2, FIRST, "F@15")
    own = run.values(ModelKey("rnd_units", 2), FIRST, "F@15")
    assert (e.printed, e.here.n, e.here.mean) == (0.49, 3, pytest.approx(own.mean()))
    # uniform ages are in none of the study's tables
    assert tables.entry(run, 7, "rnd", 2, FIRST, "F@15").printed is None
    assert tables.entry(run, 7, "rnd_offset", 2, FIRST, "F@15").printed == 0.49
    averaged = run.values(ModelKey("ft", 8), FIRST, "averaged:forgetting@15").item()
    assert tables.entry(run, 6, "ft", 8, FIRST, "forgetting@15").mean_prediction == averaged


def test_every_number_of_the_tables_leads_to_its_stage(run):
    stages = {f"stage-{s['key']}" for s in run.run["stages"]}
    for table in tables.study_tables(run):
        for row in tables.as_block(run, table).rows:
            for cell in row[len(table.stub):]:
                assert cell.text == "–" or (cell.link in stages and cell.tip), cell


@pytest.fixture
def no_pictures(monkeypatch):
    """Sections write their files and draw nothing."""
    monkeypatch.setattr(Output, "draw", lambda *_, **__: ())


def test_files_of_the_tables(run, workdir, no_pictures):
    section.section(run, Output(run.workdir))
    with open(workdir / "tables" / "table6.csv", newline="") as file:
        rows = {(r["method"], r["epochs"], r["metric"]): r for r in csv.DictReader(file)}
    assert rows["ft", "16", "forgetting@15"]["printed"] == "0.79"
    assert rows["retrain", "12", "ceiling@15"]["printed"] == ""
    assert len(rows) == 4 * 4 + 2
    tex = (workdir / "tables" / "table6.tex").read_text()
    assert tex.count(r"\\") == 1 + 5 + 5 and "(0.249)" in tex and r"\pm" in tex
    with open(workdir / "tables" / "claims.csv", newline="") as file:
        claims = list(csv.DictReader(file))
    assert {c["claim"] for c in claims} == {c.name for c in CLAIMS}


A, B = Term("ft", 2, FIRST, "F@15"), Term("original", 0, FIRST, "F@15")


@pytest.mark.parametrize("values, status, held", [
    ((0.80, 0.81, 0.82), HOLDS, 3), ((0.60, 0.61, 0.62), FAILS, 0), ((0.60, 0.80, 0.72), OPEN, 2),
])
def test_a_claim_is_tested_within_seeds(workdir, tmp_path, values, status, held):
    run = changed(workdir, tmp_path / "w", {
        ("ft", FIRST, 2, "F@15"): values, ("original", FIRST, 0, "F@15"): (0.70, 0.71, 0.71)})
    verdict = judge(run, Claim("x", "1", 7, "x", (Comparison(A, B),)))
    assert (verdict.uncorrected, verdict.held, verdict.n, verdict.in_print) == (
        status, held, 3, True)
    assert verdict.weakest.mean == pytest.approx(np.mean(values) - 2.12 / 3)
    assert verdict.where == f"F@15 on {FIRST}: M_FT (2) − M_O"


def test_one_comparison_that_fails_contradicts_a_claim(workdir, tmp_path):
    run = changed(workdir, tmp_path / "w", {
        ("ft", FIRST, 2, "F@15"): (0.8, 0.81, 0.82), ("ft", FIRST, 4, "F@15"): (0.6, 0.61, 0.62),
        ("original", FIRST, 0, "F@15"): (0.70, 0.71, 0.71)})
    both = (Comparison(A, B), Comparison(Term("ft", 4, FIRST, "F@15"), B))
    verdict = judge(run, Claim("x", "1", 0, "x", both))
    assert (verdict.uncorrected, verdict.held, verdict.in_print) == (FAILS, 0, None)
    assert "M_FT (4)" in verdict.where


def test_what_was_not_run_is_not_measured(tmp_path):
    run = read_run(write_thesis(tmp_path / "w", sets=(FIRST,), samples=20))
    found = {v.claim.name: v for v in verdicts(run)}
    assert found["oldest-hardest"].status == ABSENT
    assert found["ft-above-original-every-alpha"].status in (HOLDS, FAILS, OPEN)
    markdown.render(study_document(run))


def test_a_study_without_the_first_set_is_reported(tmp_path, no_pictures):
    run = read_run(write_thesis(tmp_path / "w", sets=("28-36",), samples=20, budgets=(2, 8)))
    section.section(run, Output(run.workdir))
    text = markdown.render(study_document(run))
    assert text.count(f"the run has no forget set {FIRST}") == 2 and "28-36" in text


def study_document(run):
    from unlearn_jax.report.render.document import Document

    return Document("x", (), (section.section(run, Output()),))


def test_the_studys_own_numbers_satisfy_most_of_its_claims(run):
    found = {v.claim.name: v.in_print for v in verdicts(run) if v.arm in ("", "rnd_units")}
    # its text says that M_RND forgets least on 52-60; its table has 0.54 against 0.53 of M_O
    assert [name for name, held in found.items() if held is False] == [
        "rnd-forgets-least-on-oldest"]
    assert sum(held is True for held in found.values()) >= 18


def test_every_claim_names_its_place_and_is_tested_once_for_each_arm(run):
    assert len({c.name for c in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.section and claim.text.endswith(".") and claim.comparisons
        found = [v for v in verdicts(run) if v.claim is claim]
        assert len(found) == (3 if claim.of_random_labels else 1)


def test_all_pairs_is_what_broadcasting_gives():
    rng = np.random.default_rng(0)
    labels = rng.integers(20, 29, 50).astype(float)
    r, e = rng.uniform(20, 60, (2, 50))
    pairs_r, pairs_e = (np.abs(labels - x[:, None]) for x in (r, e))
    expected = np.exp(-np.abs(pairs_r - pairs_e) / 15).mean()
    assert findings.all_pairs_forgetting(r, e, labels, 15.0) == pytest.approx(expected)
    by_sample = forgetting(np.abs(labels - r)[None], np.abs(labels - e)[None], np.array([15.0]))
    assert abs(float(by_sample[0, 0]) - expected) > 1e-3
    with pytest.raises(ValueError, match=r"all must be \[N\]"):
        findings.all_pairs_forgetting(r[:, None], e, labels, 15.0)


def over_pairs(evaluated, reference, left=()):
    """By seed the mean over its pairs with other seeds."""
    evaluated, reference = (np.delete(x, left, 0) for x in (evaluated, reference))
    pairs = np.exp(-np.abs(evaluated[:, None] - reference[None]) / 15).mean(-1)
    np.fill_diagonal(pairs, np.nan)
    return pd.Series(np.nanmean([*zip(pairs, pairs.T)], axis=(1, 2)))


def test_the_share_of_the_way_is_a_ratio_of_means_with_the_jackknifes_interval():
    rng = np.random.default_rng(0)
    reference = 12 + rng.normal(0, 4, (5, 30))
    models = [m + rng.normal(0, 4, (5, 30)) for m in (6, 0)] + [reference]
    found = findings.share_of_way(*[over_pairs(m, reference) for m in models])

    def share(*left):
        own, floor, top = (over_pairs(m, reference, left).mean() for m in models)
        return (own - floor) / (top - floor)

    without = np.array([share(i) for i in range(5)])
    error = np.sqrt(4 / 5 * np.sum((without - without.mean())**2))
    assert (found.mean, found.n) == (pytest.approx(share()), 5)
    assert found.half == pytest.approx(t.ppf(0.975, 4) * error)


@pytest.mark.parametrize("floor, top, shown", [
    ((0.5, 0.5, 0.5), (0.8, 0.81, 0.82), True),
    ((0.5, 0.5, 0.5), (0.8, 0.81, 0.49), False),  # not in every seed
    ((0.5, 0.5, 0.5), (0.51, 0.9, 0.6), False),   # not established
    ((0.5, 0.5), (0.8, 0.8), True), ((0.8, 0.8), (0.5, 0.5), False)])
def test_there_is_no_share_of_a_gap_that_may_be_none(floor, top, shown):
    own = [0.6] * len(top)
    found = findings.share_of_way(*map(pd.Series, (own, floor, top)))
    assert (found is not None) == shown
    if len(top) == 2 and shown:
        assert found.mean == pytest.approx(1 / 3) and not found.has_interval


def status_of(found, name, arm):
    return next(v.status for v in found if (v.claim.name, v.arm) == (name, arm))


def test_conclusions_follow_from_the_verdicts(workdir, tmp_path):
    low, high = (0.1, 0.11, 0.12), (0.95, 0.96, 0.97)
    values = {("original", FIRST, 0, "F@15"): (0.8, 0.81, 0.82)}
    values |= {("rnd_units", FIRST, e, "F@15"): low for e in (2, 4, 8, 16)}
    bad = changed(workdir, tmp_path / "bad", values | {
        (a, FIRST, e, "F@15"): low for a in ("rnd", "rnd_offset") for e in (2, 4, 8, 16)})
    good = changed(workdir, tmp_path / "good", values | {
        (a, FIRST, e, "F@15"): high for a in ("rnd", "rnd_offset") for e in (2, 4, 8, 16)})
    for run, status, words in ((bad, HOLDS, "does not depend on the units"),
                               (good, FAILS, "is about its units, and not about random labels")):
        found = verdicts(run)
        assert status_of(found, "rnd-f-below-original", "rnd_units") == HOLDS
        assert status_of(found, "rnd-f-below-original", "rnd_offset") == status
        assert words in " ".join(conclusions(run, found))


def test_the_study_is_cited_where_it_is_named(run):
    from unlearn_jax.report.render.document import Document

    document = Document("x", (section._explanation(run),), ())
    for part in ("Pablo Noriega Vázquez", "Machine Unlearning: el arte de olvidar en la era de la "
                 "Inteligencia Artificial", "2024", "https://github.com/pablonoriega/TFG"):
        assert part in markdown.render(document)
    page = html.render(document, run.workdir)
    assert '<a href="https://github.com/pablonoriega/TFG">the study</a>' in page


def test_the_section_says_it_all(run):
    text = markdown.render(study_document(run))
    for number in range(3, 9):
        assert text.count(f"Table {number} of the study") == 2
    assert len(re.findall(r"^\| .* \| (holds|contradicted|open) \| ", text, re.M)) >= len(CLAIMS)
    assert "that would select 0" in text  # nobody is 20 to 28 years old divided by 60
