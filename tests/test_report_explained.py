"""Likeness of maps: whose interval is which."""

import pytest
from fake_workdir import write_csv, write_workdir

from unlearn_jax.report.sections import explained
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import estimate, estimate_pairs

VALUES = (0.1, 0.2, 0.6)


@pytest.mark.parametrize("pair, expected", [
    (("retrain", "other"), estimate_pairs(VALUES)), (("retrain", "same"), estimate(VALUES))])
def test_means_over_pairs_of_seeds_have_the_jackknifes_interval(tmp_path, pair, expected):
    path = write_workdir(tmp_path / "run", history=False, samples=12)
    write_csv(path / "explain.csv", explained._COLUMNS, [
        ("ft", "20-28", 2, seed, "forget", "ig", "rank_correlation", *pair, value, 4)
        for seed, value in enumerate(VALUES)])
    run = read_run(path)
    table = explained._likeness(run, "20-28", explained.read(run, "20-28"))
    assert table.rows[0][-1].note == f"± {expected.half:.2f} (3)"
