"""Tables: what was timed once; SISA's rows and its speed-ups in a table of their own."""

import csv

import numpy as np
import pytest
from fake_workdir import change_results, write_workdir

from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import summarise

SPEEDUPS = {"measured_wall": (2, 3, 4), "measured_images": (5, 6, 7), "expected": (6.5, 6.5, 6.5),
            "nominal": (25, 25, 25)}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = write_workdir(tmp_path_factory.mktemp("sisa"), samples=12, budgets=(12,),
                         methods=("sisa_original", "sisa"), history=False)
    with (path / "results.csv").open("a", newline="") as file:
        csv.writer(file).writerows(
            ("sisa", "20-28", 12, seed, f"sisa_speedup_{name}", value, "key")
            for name, values in SPEEDUPS.items() for seed, value in enumerate(values))
    return markdown.render(build(read_run(path)))


def test_times_are_of_all_seeds_together_and_have_no_interval(tmp_path):
    path = write_workdir(tmp_path, samples=12)
    change_results(path, {("ft", "wall_seconds"): (17.2,) * 3,
                          ("ft", "wall_vs_retrain"): (0.25,) * 3})
    run = read_run(path)
    row = [line for line in markdown.render(build(run)).splitlines()
           if line.startswith("| fine-tuned M_FT | 2 |")]
    assert row[0].endswith("| 25.0 |") and any("| 17.2 |" in line for line in row[1:])
    times = summarise(run.results).set_index(["method", "metric"]).loc[("ft", "wall_seconds")]
    assert (times["mean"], times.n) == (17.2, 3)
    assert np.isnan([times["std"], times.ci95_low, times.ci95_high]).all()


def test_speedups_stand_in_one_table(text):
    # 6 ± t(0.975, 2) / sqrt(3); 3 was timed once for all seeds
    assert ("| SISA after deletion M_SISA | 12 | 3.00 | 6.00 ± 2.48 (3) | "
            "6.50 ± 0.00 (3) | 25.0 ± 0.0 (3) |") in text
    section = text[text.index("### Speed-up of the deletion"):]
    section = section[:section.index("###", 3)]
    assert "| model | epochs | measured, time | measured, images | expected | nominal |" in section
    assert "M_SISA_O |" not in section
    assert "sisa_speedup" not in text


def test_ensembles_are_not_said_to_come_from_the_original(text):
    introduction = text[:text.index("## Did it work?")]
    assert "M_SISA_O is an ensemble trained by SISA on everything" in introduction
    assert "unlearned" not in introduction
    assert "SISA before deletion M_SISA_O" in text
