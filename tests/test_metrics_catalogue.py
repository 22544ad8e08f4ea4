"""Results, audits, summary and report show each metric as its record in the catalogue says."""

import re
import string
import subprocess
import sys

import numpy as np
import pytest
import test_audits
import test_results
from fake_workdir import change_json, text_report, write_workdir

from unlearn_jax import audits, config
from unlearn_jax.data.inject import InjectedGroup, Injection
from unlearn_jax.metrics import catalogue, errors
from unlearn_jax.metrics.catalogue import MetricRecord
from unlearn_jax.report.tables import leaderboard, names
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import estimate_metric, summarise
from unlearn_jax.results import COLUMNS

EXAMPLES = {"SPLIT": "test", "ALPHA": "2.5", "WITHIN": "5", "RATE": "0.01", "END": "low"}


def example(record):
    return re.sub("|".join(EXAMPLES), lambda found: EXAMPLES[found[0]], record.name)


@pytest.fixture
def add(monkeypatch):
    """Adds records for the time of a test."""
    def put(*records):
        monkeypatch.setattr(catalogue, "RECORDS", (*catalogue.RECORDS, *records))
        catalogue.find.cache_clear()
    yield put
    monkeypatch.undo()
    catalogue.find.cache_clear()


def append(path, rows):
    with (path / "results.csv").open("a", newline="") as file:
        file.writelines(",".join(str(row[c]) for c in COLUMNS) + "\n" for row in rows)


def renamed(rows, **changes):
    """Rows of 'ft' and 'retrain' as the models of the fake work directory have them."""
    budgets = {"ft": 2, "retrain": 12}
    return [{**r, "epochs": budgets[r["method"]], "stage": "key", **changes} for r in rows]


def test_a_metric_is_a_function_and_a_record(tmp_path, add, monkeypatch):
    monkeypatch.setattr(errors, "PER_SPLIT", dict(errors.PER_SPLIT))
    add(MetricRecord(name="fog_SPLIT", title="fog {SPLIT}", unit="dB", better="lower", decimals=2,
                     definition="how dim the model is on {split}"),
        MetricRecord(name="mist_forget", title="mist", definition="on D_f alone"))

    @errors.per_split("fog_SPLIT", "regression")
    def fog(outputs, labels):
        assert outputs.shape[1:] == labels.shape
        return 1 + np.arange(len(outputs))

    @errors.per_split("mist_forget", "regression")
    def mist(outputs, labels):
        return outputs.max(1) - labels.max()

    @errors.per_split("haze_SPLIT", "classification")
    def haze(logits, labels):
        raise AssertionError("this run is a regression")

    found = test_results.rows_of((test_results.TUNED,))
    assert {f"fog_{split}" for split in test_results.TUNED.outputs} | {"mist_forget"} == {
        r["metric"] for r in found if r["metric"].startswith(("fog", "mist"))}
    assert "averaged:fog_test" in {r["metric"] for r in found}
    rows = [r for r in found if r["metric"] == "fog_test" and r["method"] == "ft"]
    assert [(r["seed"], r["value"]) for r in rows] == [(7, 1), (8, 2)]

    path = write_workdir(tmp_path, samples=12, seeds=(7, 8), history=False)
    append(path, renamed(rows))
    summary = summarise(read_run(path).results).set_index(["method", "metric"])
    assert summary.loc[("ft", "fog_test"), ["mean", "n"]].tolist() == [1.5, 2]
    text = text_report(path)
    further = text[text.index("Further measures"):]
    assert "| fog test (dB) |" in further and "1.50 ± 6.35 (2)" in further
    assert "how dim the model is on the test set" in text
    assert "fog_test" not in text


# t(0.975, 2) / sqrt(3); over pairs the jackknife's is 2 (n - 1) / (n - 2) = 4 times wider
@pytest.mark.parametrize("over, half", [("seeds", 2.48414), ("pairs", 9.93655), ("clock", np.nan)])
def test_the_record_says_how_the_interval_is_made(add, over, half):
    add(MetricRecord(name="fog", title="fog", definition="", over=over))
    assert estimate_metric("fog", [1, 2, 3]).half == pytest.approx(half, nan_ok=True, abs=1e-4)


def test_an_audit_is_a_function_and_its_records(tmp_path, add, monkeypatch):
    monkeypatch.setattr(audits, "AUDITS", dict(audits.AUDITS))
    add(MetricRecord(name="smell_RATE", title="smell@{RATE}", unit="%", decimals=1, percent=True,
                     table="audits", audit="nose", definition="what a nose says at {RATE}"),
        MetricRecord(name="population:smell", title="smell of all", unit="nats", table="audits",
                     audit="nose", definition="what it says of all"))

    @audits._audit("nose")
    def nose(audit):
        yield "smell_0.1", np.arange(len(audit.outcome.seeds)) / 100
        yield "population:smell", 0.625

    o = test_audits.some(test_audits.outcome("ft", 0.5), 3)
    reference = test_audits.some(test_audits.outcome("retrain", 0), 3)
    rows, refused = audits.audit_rows(test_audits.audit(o, reference), ("nose",))
    assert not refused
    assert [(r["metric"], r["seed"], r["value"]) for r in rows] == [
        ("smell_0.1", 0, 0), ("smell_0.1", 1, 0.01), ("smell_0.1", 2, 0.02),
        ("population:smell", -1, 0.625)]

    path = write_workdir(tmp_path, samples=12, history=False)
    append(path, renamed(rows))
    assert read_run(path).seeds == (0, 1, 2)
    text = text_report(path)
    own = text[text.index("Audits, forget set"):]
    assert "| model | epochs | smell@0.1 (%) |" in own and "1.0 ± 2.5 (3)" in own
    whole = text[text.index("Audits over all seeds together"):]
    assert "| model | epochs | smell of all (nats) |" in whole and "| 0.625 |" in whole
    assert "what a nose says at 0.1" in text and "what it says of all" in text


def test_each_name_is_of_one_record():
    for record in catalogue.RECORDS:
        name = example(record)
        found = [r.name for r in catalogue.RECORDS if catalogue._pattern(r.name).fullmatch(name)]
        assert found == [record.name]
        assert catalogue.find(name) is record
    assert catalogue.find("averaged:utility") is None


def test_parameters_are_read_from_the_name():
    record = catalogue.find("accuracy_forget@2.5")
    assert catalogue.parameters(record, "accuracy_forget@2.5") == {"SPLIT": "forget",
                                                                   "WITHIN": "2.5"}


def test_records_use_words_that_the_report_has():
    for record in catalogue.RECORDS:
        known = {*re.findall("|".join(EXAMPLES), record.name), *names._WORDS}
        for text in (record.title, record.unit, record.definition, record.infinite):
            used = {word for _, word, _, _ in string.Formatter().parse(text) if word}
            assert used <= known, (record.name, used - known)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_every_record_can_be_shown(tmp_path, task):
    path = write_workdir(tmp_path, samples=12, history=False, task=task)
    change_json(path / "run.json", lambda run: run["config"]["eval"].update(relearn_epochs=7))
    run = read_run(path)
    for record in catalogue.RECORDS:
        shown = names.describe(run, example(record))
        assert shown.header and shown.definition and not re.search("[{}]", repr(shown))
        assert (shown.decimals, shown.percent) == (record.decimals, record.percent)
    assert names.describe(run, "relearn_epochs").infinite == "> 7"


def test_every_function_of_a_split_has_a_record():
    for name in errors.PER_SPLIT:
        assert name in {record.name for record in catalogue.RECORDS}


def test_every_metric_of_the_results_has_a_record():
    found = {r["metric"].removeprefix("averaged:") for r in test_results.rows_of()}
    assert len(found) > 20
    assert [name for name in found if catalogue.find(name) is None] == []


@pytest.mark.parametrize("labels, kind", [
    (labels, kind) for labels in (test_audits.LABELS, test_audits.CLASS_LABELS)
    for kind in ("confusion", "patch")])
def test_every_metric_of_an_audit_has_a_record_that_names_the_audit(labels, kind):
    o, reference = (test_audits.outcome(*args, labels=labels)
                    for args in (("ft", 0.5), ("retrain", 0, 1)))
    groups = [(20, 30), (31, 40)] if labels is test_audits.LABELS else [(0, 0), (1, 1)]
    injection = Injection(kind, tuple(InjectedGroup(*g) for g in groups), np.zeros(0, np.int32),
                          np.zeros(0))
    for name in catalogue.AUDITS:
        for judged in (o, reference):
            rows, refused = audits.audit_rows(
                test_audits.audit(judged, reference, labels, injection), (name,))
            assert bool(rows) != bool(refused)
            assert {catalogue.find(r["metric"]).audit for r in rows} <= {name}


def test_the_configs_audits_are_those_that_have_a_function():
    allowed = config.KEYS["eval.audits"].allowed.choices
    assert set(allowed) == set(audits.AUDITS) == set(catalogue.AUDITS)


def test_boards_rank_by_what_is_better_when_higher(tmp_path):
    *others, attack = config.KEYS["compare.rank_by"].allowed
    for name in others:
        assert catalogue.find(f"{name}@15").better == "higher"
    assert attack == "attack" and catalogue.ATTACK_GAP.better == "lower"
    assert catalogue.ATTACK_GAP.name in catalogue.LEADERBOARD
    assert catalogue.GAP_CLOSED.name in catalogue.LEADERBOARD
    assert leaderboard.measured("retrain", "F@15") == "ceiling@15"
    assert leaderboard.measured("ft", "F@15") == "F@15"


def test_a_record_is_written_with_names():
    with pytest.raises(TypeError, match="positional"):
        MetricRecord("fog", "fog", "", "")
    with pytest.raises(TypeError, match="positional"):
        names.Metric("", "", "", 1, True)


def test_the_catalogue_needs_no_jax():
    program = "import sys, unlearn_jax.metrics.catalogue; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
