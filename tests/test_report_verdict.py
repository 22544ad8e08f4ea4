"""What the report says of models, in words: from numbers by hand."""

import pytest
from fake_workdir import change_json, change_results, text_report, write_workdir

from unlearn_jax.report.sections import verdict
from unlearn_jax.report.tables import gap
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import estimate


@pytest.mark.parametrize("original, retrain, unlearned, said", [
    # gaps 5, 6, 7: 6 ± T2 / sqrt(3) = 6 ± 2.48; shifts are half of them
    ((5, 6, 7), (10, 12, 14), (7.5, 9, 10.5),
     ["6.00 years above that of M_O (95 % interval 3.52 to 8.48, 3 seeds). The interval excludes",
      "M_FT, 2 epochs lies between M_O and M_R: on D_f it errs 3.00 years more than M_O",
      "50 % of the gap (95 % interval 50 to 50 %, 3 seeds)"]),
    ((5, 6, 7), (10, 12, 14), (5.1, 5.9, 7.1), ["M_FT, 2 epochs is not shown to have forgotten"]),
    ((5, 6, 7), (10, 12, 14), (4, 5.1, 6), ["M_FT, 2 epochs moved away from M_R", "less than M_O"]),
    ((5, 6, 7), (10, 12, 14), (20, 22, 24), ["M_FT, 2 epochs lies beyond M_R"]),
    ((5, 6, 7), (10, 12, 14), (10.1, 11.9, 14.1),
     ["M_FT, 2 epochs is not shown to differ from M_R"]),
    ((5, 6, 7), (5.5, 5, 8), (5, 6, 8), ["The interval includes 0: no difference between M_R and",
                                         "M_FT, 2 epochs cannot be judged without",
                                         # gaps 0.5, -1, 1; shifts 0, 0, 1; rests 0.5, -1, 0
                                         "| 20-28 | M_FT, 2 epochs | 0.17 ± 2.59 (3) | "
                                         "0.33 ± 1.43 (3) | −0.17 ± 1.90 (3) | – |"]),
    ((10, 12, 14), (5, 6, 7), (9, 9, 9), ["on the wrong side", "6.00 years below that of M_O"]),
    # a failed M_e leaves the gap alone; two shifts 2.5 and 3.5 remain: 3 ± 12.706 * 0.5
    ((5, 6, 7), (10, 12, 14), (7.5, "nan", 10.5),
     ["6.00 years above that of M_O (95 % interval 3.52 to 8.48, 3 seeds)",
      "3.00 years more than M_O (95 % interval −3.35 to 9.35, 2 seeds)"]),
    (("nan",) * 3, (10, 12, 14), (7, 8, 9), ["nothing to compare", "cannot be judged: no seed"]),
])
def test_verdict(tmp_path, original, retrain, unlearned, said):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, {("original", "mae_forget"): original,
                          ("retrain", "mae_forget"): retrain, ("ft", "mae_forget"): unlearned})
    text = text_report(path)
    for sentence in said:
        assert sentence in text


def test_models_of_one_original_are_compared_with_that_one(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, {("original", "mae_forget"): (5, 6, 7),
                          ("retrain", "mae_forget"): (10, 12, 14),
                          ("ft", "mae_forget"): (8, 9, 10)})
    change_json(path / "run.json", lambda run: [s.update(from_seed=1) for s in run["stages"]
                                                if s["stage"] == "ft"])
    run = read_run(path)
    ft, original = run.only("20-28", "ft"), run.only("20-28", "original")
    found = gap.error_gap(run, "20-28", ft)
    # M_O of seed 1 errs 6 years: gaps 4, 6, 8 and shifts 2, 3, 4
    assert (found.gap, found.shift) == (estimate([4, 6, 8]), estimate([2, 3, 4]))
    assert gap.share_closed(run, "20-28", ft).tolist() == [0.5, 0.5, 0.5]
    assert gap.error_gap(run, "20-28", original).gap == estimate([5, 6, 7])
    said = "started from the M_O of seed 1"
    assert said in verdict.on_model(run, "20-28", ft) and said in verdict.table(run).caption
    assert said not in text_report(write_workdir(tmp_path / "usual", samples=12))


def test_verdict_of_a_classification(tmp_path):
    path = write_workdir(tmp_path, task="classification", sets=("class-3",), samples=12)
    change_results(path, {("original", "accuracy_forget"): (0.9, 0.9, 0.9),
                          ("retrain", "accuracy_forget"): (0.0, 0.1, 0.2),
                          ("ft", "accuracy_forget"): (0.45, 0.5, 0.55),
                          ("original", "accuracy_test"): (0.21, 0.2, 0.19),
                          ("median", "accuracy_test"): (0.2, 0.2, 0.2)})
    text = text_report(path)
    assert "share of wrong answers of M_R is 80.0 points above that of M_O" in text
    assert "errs 40.0 points more than M_O" in text and "which is 50 % of the gap" in text
    assert "M_O is not clearly better than that baseline" in text
    assert "accuracy forget (%)" in text and "MAE" not in text


def test_established_differences_are_marked_where_rounding_hides_them(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, {("original", "mae_forget"): (5.000, 5.000, 5.000),
                          ("retrain", "mae_forget"): (5.039, 5.066, 5.096),  # 0.067 ± 0.071
                          ("ft", "mae_forget"): (5.042, 5.067, 5.096)})  # 0.068 ± 0.067
    table = verdict.table(read_run(path))
    row = table.rows[0]
    assert [(c.text, c.note) for c in row[2:5]] == [
        ("0.07", "± 0.07 (3)"), ("0.07", "± 0.07 (3) *"), ("−0.00", "± 0.00 (3)")]
    assert "excludes 0, whatever the digits shown: marked *" in table.caption


@pytest.mark.parametrize("removed, said", [
    ((), "Against M_Rs of other seeds it is"),
    # A run of an older version knows the ceiling alone.
    (("forgetting_across@15",), "; the ceiling of Forgetting across seeds is 0.5"),
    (("forgetting_across@15", "ceiling@15"), "; the ceiling is unknown."),
])
def test_forgetting_and_what_bounds_it(tmp_path, removed, said):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, {("retrain", "ceiling@15"): (0.5, 0.5, 0.5)})
    rows = (path / "results.csv").read_text().splitlines(keepends=True)
    left = [r for r in rows if not any(f",{metric}," in r for metric in removed)]
    (path / "results.csv").write_text("".join(left))
    run = read_run(path)
    assert said in verdict.on_model(run, "20-28", run.only("20-28", "ft"))
