"""What was touched: the table of layers from touched.csv."""

import numpy as np
import pytest
from fake_workdir import write_csv, write_workdir

from unlearn_jax.report import ReportError
from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.sections.touched import section
from unlearn_jax.report.tables.inputs import read_run

COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", "touched", "of", "which")
T2 = 4.302652729911275  # Student's t, 97.5 %, two degrees of freedom


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("touched") / "run", methods=("ssd", "fisher"),
                         sets=("20-28", "gender-1"), budgets=(0, 2), history=False)


def rows(workdir, *entries):
    write_csv(workdir / "touched.csv", COLUMNS, [(*entry, "0 1") for entry in entries])
    return {name: section(read_run(workdir), name) for name in ("20-28", "gender-1")}


def texts(found):
    (table,) = found.blocks
    return [tuple(f"{c.text} {c.note}".strip() for c in row) for row in table.rows]


def test_the_most_touched_layers_by_hand(workdir):
    found = rows(workdir, *(("ssd", "20-28", epochs, seed, layer, n, of)
                            for epochs in (0, 2) for seed, numbers in enumerate(
                                ((2, 5, 0, 1), (3, 5, 0, 1), (4, 5, 0, 1)))
                            for layer, n, of in zip("abcd", numbers, (10, 50, 7, 10))))
    assert found["gender-1"] is None
    # a: 20, 30 and 40 %: a standard deviation of 10 %
    half = T2 * 10 / np.sqrt(3)
    assert texts(found["20-28"]) == [
        ("ssd M_SSD", "a", f"30.0 ± {half:.1f} (3)", f"3.0 ± {half / 10:.1f} (3)", "10"),
        ("ssd M_SSD", "b", "10.0 ± 0.0 (3)", "5.0 ± 0.0 (3)", "50"),
        ("ssd M_SSD", "d", "10.0 ± 0.0 (3)", "1.0 ± 0.0 (3)", "10")]


def test_a_method_that_touches_everything_has_one_row_and_none_has_six(workdir):
    found = rows(workdir, *(("fisher", "20-28", 2, seed, layer, 8, 8)
                            for seed in (0, 1) for layer in "abc"),
                 *(("ssd", "20-28", 0, 0, f"layer{i}", i, 1000) for i in range(8)),
                 ("ssd", "gender-1", 0, 0, "a", 0, 8))
    assert [row[:3] for row in texts(found["20-28"])] == [
        ("fisher M_FISHER", "all", "100.0 ± 0.0 (2)"),
        *(("ssd M_SSD", f"layer{i}", f"0.{i} (n=1, no interval)") for i in (7, 6, 5, 4, 3))]
    assert texts(found["20-28"])[0][3:] == ("24.0 ± 0.0 (2)", "24")
    assert texts(found["20-28"])[1][4] == "1,000"
    assert found["gender-1"] is None


def test_it_stands_in_the_report_where_there_is_something(workdir):
    rows(workdir, ("ssd", "20-28", 0, 0, "stem_conv/kernel", 3, 9))
    text = markdown.render(build(read_run(workdir)))
    assert text.count("What was touched") == 1 and "stem_conv/kernel" in text
    (workdir / "touched.csv").unlink()
    assert "What was touched" not in markdown.render(build(read_run(workdir)))


@pytest.mark.parametrize("touched, of, words", [
    ("9", "8", "'touched' holds '9'; allowed: from 0 to the column 'of'"),
    ("0", "0", "'of' holds '0'; allowed: at least 1"),
    ("x", "8", "'touched' holds 'x'; allowed: a whole number")])
def test_malformed_numbers_are_named(workdir, touched, of, words):
    with pytest.raises(ReportError, match=f"touched.csv, line 2: the column {words}"):
        rows(workdir, ("ssd", "20-28", 0, 0, "a", touched, of))
