"""Distances of weights: the table and the picture from layers.csv."""

import numpy as np
import pytest
from fake_workdir import write_csv, write_workdir

from unlearn_jax.report import ReportError
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import markdown
from unlearn_jax.report.sections.layers import section
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.stats import estimate_pairs

pytestmark = pytest.mark.usefixtures("drawn_figures")

COLUMNS = ("method", "forget_set", "epochs", "seed", "layer", "to_original", "to_retrain", "norm",
           "floor")
MODELS = (("original", 0), ("retrain", 12), ("ft", 2))


@pytest.fixture
def workdir(tmp_path):
    return write_workdir(tmp_path / "run", seeds=(0, 1), history=False)


def write(workdir, failed=()):
    """Two layers: 3 and 4 from the others, of norm 6 and 8."""
    write_csv(workdir / "layers.csv", COLUMNS, [
        (m, "20-28", e, s, layer, *[np.nan if (m, s) in failed else d * (1 + s) for d in (
            0 if m == "original" else far, 0 if m == "retrain" else far, 2 * far)], 4 * far)
        for m, e in MODELS for s in (0, 1) for layer, far in (("stem_conv", 3), ("output", 4))])


def cells(workdir):
    found = section(read_run(workdir), "20-28", Output())
    return {row[0].text: [c.text for c in row[2:]] for row in found.blocks[0].rows}


def test_distances_of_whole_models_by_hand(workdir):
    write(workdir)
    # Of seed 0: distances 5, norms 10, and 20 from the other; of seed 1 the norm is twice that.
    assert cells(workdir) == {"original M_O": ["–", "50.0", "150.0"],
                              "retrained M_R": ["50.0", "–", "150.0"],
                              "fine-tuned M_FT": ["50.0", "50.0", "150.0"]}


def test_the_original_was_given_no_epochs(workdir):
    write(workdir)
    found = section(read_run(workdir), "20-28", Output())
    assert [row[1].text for row in found.blocks[0].rows] == ["–", "12", "2"]


def test_the_interval_between_independent_models_is_the_jackknifes(tmp_path):
    workdir = write_workdir(tmp_path / "three", seeds=(0, 1, 2), history=False, samples=12)
    far = (30, 31, 32)
    write_csv(workdir / "layers.csv", COLUMNS, [
        (m, "20-28", e, s, "head", 5, 5, 100, far[s]) for m, e in MODELS for s in (0, 1, 2)])
    found = section(read_run(workdir), "20-28", Output())
    e = estimate_pairs([0.30, 0.31, 0.32])
    assert found.blocks[0].rows[0][-1].note == f"± {100 * e.half:.1f} (3)" != "± 2.5 (3)"


def test_a_failed_member_does_not_count(workdir):
    write(workdir, failed={("ft", 1)})
    run = read_run(workdir)
    row = section(run, "20-28", Output()).blocks[0].rows[-1]
    assert (row[2].text, row[2].note) == ("50.0", "(n=1, no interval)")


def test_it_stands_in_the_report_with_its_picture(workdir):
    run = read_run(workdir)
    assert "Distances of weights" not in markdown.render(build(run))
    write(workdir)
    assert "Distances of weights" in markdown.render(build(run))
    _, figure = section(run, "20-28", Output(workdir)).blocks
    assert figure.file == "layers-20-28.png"
    assert (workdir / "figures" / "layers-20-28.png").stat().st_size > 0
    upper, lower = figure.plot.panels
    points = {s.name: [(p.x, p.y) for p in s.points] for s in lower.series}
    # norms of M_R are twice the distance, and in the second seed both are twice as large
    assert points["$M_\\mathrm{FT}$, 2 epochs"] == [("stem_conv", "50"), ("output", "50")]
    assert len(upper.series) == 3  # M_R, M_FT, and M_R from other M_Rs


def test_two_rows_of_one_layer_are_refused(workdir):
    row = ("ft", "20-28", 2, 0, "a", 1, 1, 1, 1)
    write_csv(workdir / "layers.csv", COLUMNS, [row, row[:4] + ("b",) + row[5:], row])
    with pytest.raises(ReportError, match="layers.csv, line 4: a second row for method=ft, "
                                          "forget_set=20-28, epochs=2, seed=0, layer=a"):
        section(read_run(workdir), "20-28", Output())


def test_a_malformed_file_is_refused(workdir):
    write_csv(workdir / "layers.csv", COLUMNS, [("ft", "20-28", 2, 0, "a", "x", 1, 1, 1)])
    with pytest.raises(ReportError, match="line 2: the column 'to_original' holds 'x'"):
        section(read_run(workdir), "20-28", Output())
