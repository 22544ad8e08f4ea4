"""SISA in the report: rows with names of their own, and the speed-ups in a table of their own."""

import csv

import pytest
from fake_workdir import write_workdir

from unlearn_jax.report import markdown
from unlearn_jax.report.inputs import read_run
from unlearn_jax.report.sections import build

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
    return markdown.render(build(read_run(path), []))


def test_speedups_stand_in_one_table(text):
    # 3 ± t(0.975, 2) / sqrt(3), and 6 likewise
    assert ("| SISA after deletion M_SISA | 12 | 3.00 ± 2.48 (3) | 6.00 ± 2.48 (3) | "
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
