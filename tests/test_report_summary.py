"""The answer first: verdicts in the terminal and above the report."""

import dataclasses
from pathlib import Path

from fake_workdir import change_results, write_workdir

from unlearn_jax.report.sections import summary
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.judgement import judge_all

KNOWN = {("original", "mae_forget"): (5, 5.1, 5.2), ("retrain", "mae_forget"): (10, 10.1, 10.2),
         ("ft", "mae_forget"): (5.1, 5.1, 5.1)}


def said(path, **options):
    run = read_run(write_workdir(path, samples=12, **options))
    return run, judge_all(run)


def test_the_terminal_says_verdict_numbers_and_places(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, KNOWN)
    run = read_run(path)
    lines = summary.lines(run, judge_all(run), Path("runs/store"))
    assert lines[0] == "M_FT, 2 epochs: not forgotten. It errs less on D_f than M_R."
    assert "MAE forget (years) 5.10 (M_R 10.10)" in lines[1] and "MAE test (years)" in lines[1]
    assert str(path / "report.html") in lines[-2] and "runs/store" in lines[-1]
    assert len(lines) == 4


def test_many_models_take_twelve_lines_and_none_is_dropped_in_silence(tmp_path):
    sets = ("20-28", "28-36", "36-44")
    run, found = said(tmp_path, sets=sets, methods=("ft", "rnd"), budgets=(2, 4))
    lines = summary.lines(run, found, Path("store"))
    assert len(found) == 12 and len(lines) == summary.MOST_LINES
    assert "... and 3 more models: verdict.csv" in lines
    run, found = said(tmp_path / "few", methods=("ft", "rnd"), budgets=(2, 4))
    assert len(summary.lines(run, found, Path("store"))) == 10  # each with its numbers


def test_the_table_shows_each_number_beside_that_of_m_r(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, KNOWN)
    run = read_run(path)
    table = summary.table(run, judge_all(run))
    row = {title: cell.text for (title, _), cell in zip(table.columns, table.rows[0])}
    assert row["verdict"] == "not forgotten" and "errs less" in row["because"]
    assert row["MAE forget (years), M_e"] == "5.10" and row["MAE forget (years), M_R"] == "10.10"
    assert row["MIA AUC, M_e"] == "–"
    assert summary.table(run, []) is None


def test_too_few_seeds_name_the_number_that_would_decide(tmp_path):
    run, found = said(tmp_path, seeds=(0,))
    assert "one seed gives no interval" in summary.lines(run, found, Path("s"))[0].lower()


def test_a_long_reason_is_wrapped_where_there_is_room_and_cut_where_there_is_not(tmp_path):
    run, found = said(tmp_path)
    long = " ".join(["reason"] * 40)
    one = [dataclasses.replace(j, reason=long) for j in found]
    lines = summary.lines(run, one, Path("store"))
    assert max(map(len, lines[:-2])) <= 100 and len(lines) > 5
    assert " ".join(" ".join(lines[:-3]).split()).endswith(f"{long[1:]}.")
    many = summary.lines(run, one * 5, Path("store"))
    assert len(many) == summary.MOST_LINES and sum(line.endswith("...") for line in many) == 5
    assert sum("(M_R" in line for line in many) == 5  # the numbers stay
