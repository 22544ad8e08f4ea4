"""One record a metric: found by name, shown in the report, complete."""

import csv

import pytest
from fake_workdir import write_workdir

from unlearn_jax import audits
from unlearn_jax.metrics import catalogue
from unlearn_jax.report import write_report
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.names import describe

NEW = catalogue.MetricRecord(name="bias_SPLIT", title="bias {SPLIT}", unit="{unit}", decimals=2,
                             definition="mean of predicted − true over {split}")


@pytest.fixture
def with_a_new_metric(monkeypatch):
    monkeypatch.setattr(catalogue, "RECORDS", (NEW, *catalogue.RECORDS))
    catalogue.find.cache_clear()
    yield
    catalogue.find.cache_clear()


def test_names_stand_once_and_audits_are_those_that_run():
    names = [record.name for record in catalogue.RECORDS]
    assert len(names) == len(set(names))
    assert set(catalogue.AUDITS) == set(audits.AUDITS)
    for record in catalogue.RECORDS:
        assert record.title and record.definition, record.name
        assert (record.table == "audits") >= bool(record.audit), record.name


@pytest.mark.parametrize("name, title", [
    ("mae_forget", "MAE forget (years)"), ("forgetting@15", "Forgetting@15"),
    ("accuracy_test@5", None), ("flops_vs_retrain", None)])
def test_a_name_with_its_parameters_finds_its_record(name, title, tmp_path):
    record = catalogue.find(name)
    assert record is not None and set(catalogue.parameters(record, name)) == {
        part for part in ("SPLIT", "ALPHA", "WITHIN") if part in record.name}
    if title:
        assert describe(read_run(write_workdir(tmp_path)), name).header == title


def test_of_averaged_and_population_values_no_seed_is_named():
    assert catalogue.has_no_seed("averaged:mae_test") and not catalogue.has_no_seed("mae_test")
    assert catalogue.find("averaged:mae_test") is None and catalogue.find("nonsense") is None


def test_a_function_and_a_record_bring_a_metric_into_the_report(with_a_new_metric, tmp_path):
    directory = write_workdir(tmp_path)
    with open(directory / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    added = [{**row, "metric": "bias_test", "value": "1.25"} for row in rows
             if row["metric"] == "mae_test"]
    assert added
    with open(directory / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows + added)
    write_report(directory)
    text = (directory / "report.md").read_text(encoding="utf-8")
    assert "bias test (years)" in text and "mean of predicted − true over" in text
    assert "bias_test" in (directory / "summary.csv").read_text(encoding="utf-8")
