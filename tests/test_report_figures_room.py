"""Pictures that can be read: titles within them, axes within what is possible, few lines, no bar
hidden by another."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_workdir import change_results, write_comparison, write_workdir

from unlearn_jax.report.figures import (
    classes,
    explanations,
    leaderboard,
    reference,
    results,
    samples,
    standing,
    style,
)
from unlearn_jax.report.render import hover
from unlearn_jax.report.sections import card, explained
from unlearn_jax.report.tables.inputs import read_run
from unlearn_jax.report.tables.judgement import judge_all
from unlearn_jax.report.tables.leaderboard import boards
from unlearn_jax.report.tables.names import Metric

LONG = ("gaussian_amnesiac_with_a_long_name", "rnd", "ft")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three methods of four budgets; the seeds are so far apart that intervals leave the range."""
    path = write_workdir(tmp_path_factory.mktemp("w"), methods=LONG, budgets=(1, 2, 4, 8),
                         samples=30)
    change_results(path, {("retrain", f"ceiling@{a}"): (0.02, 0.9, 0.1) for a in (2, 5, 15)})
    return read_run(path)


def drawn(maker, *args):
    with matplotlib.rc_context(style.RC):
        figure = maker(*args)[0]
        figure.canvas.draw()
    return figure


@pytest.mark.parametrize("maker", [reference.agreement, samples.predicted])
def test_titles_of_panels_lie_within_the_picture_and_apart(run, maker):
    figure = drawn(maker, run, "20-28")
    shown = [ax for ax in figure.axes if ax.get_title("left")]
    assert len(shown) >= 4
    boxes = [ax.title if ax.get_title() else ax._left_title for ax in shown]
    boxes = [t.get_window_extent() for t in boxes]
    for box in boxes:
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 and box.y1 <= figure.bbox.y1
    for a, b in zip(boxes, boxes[1:]):
        assert a.x1 < b.x0 or abs(a.y0 - b.y0) > 5
    assert not any("epoch" in ax.get_title("left") for ax in shown)
    limits = {(ax.get_xlim(), ax.get_ylim()) for ax in shown}
    assert len(limits) == 1


def test_axes_end_where_the_possible_values_end(run, tmp_path):
    ax = drawn(results.forgetting, run, "20-28").axes[0]
    assert ax.get_ylim()[0] >= 0 and ax.get_ylim()[1] <= 1
    ax = drawn(reference.plane, run, "20-28").axes[0]
    assert ax.get_ylim()[0] >= 0 and ax.get_ylim()[1] <= 1 and ax.get_xlim()[0] >= 0
    for ax in drawn(results.training, run, "20-28").axes:
        assert ax.get_ylim()[0] >= 0 and ax.get_xlim()[0] >= 0
    compared = read_run(write_comparison(tmp_path / "c", samples=12, seeds=(0, 1)))
    [board] = boards(compared)
    for ax in drawn(leaderboard.cost, compared, board).axes:
        assert ax.get_ylim()[0] >= 0 and ax.get_xlim()[0] >= 0
    ax = drawn(leaderboard.utility, compared, board).axes[0]
    assert ax.get_ylim()[0] >= 0 and ax.get_ylim()[1] <= 1 and ax.get_xlim()[0] >= 0
    of_classes = read_run(write_workdir(tmp_path / "k", task="classification", sets=("class-3",),
                                        samples=20))
    assert drawn(classes.accuracy_by_class, of_classes, "class-3").axes[0].get_ylim() == (0, 100)


def test_one_epoch_has_a_whole_number_on_its_axis(tmp_path):
    run = read_run(write_workdir(tmp_path, budgets=(1,), samples=5))
    for ax in drawn(results.training, run, "20-28").axes:
        low, high = ax.get_xlim()
        shown = [t for t in ax.get_xticks() if low <= t <= high]
        assert shown and all(t == int(t) for t in shown)


@pytest.mark.parametrize("maker", [results.forgetting, samples.sorted_errors])
def test_a_picture_of_curves_has_few_and_says_what_it_leaves_out(run, tmp_path, maker):
    _, _, caption = made = maker(run, "20-28")
    assert len(run.models("20-28")) > 12
    assert all(len(p.series) <= style.MOST_LINES + 1 for p in hover.panels(made[0]))
    assert caption.endswith("Each method at its largest budget; the tables show all.")
    few = read_run(write_workdir(tmp_path, budgets=(2, 4), samples=12))
    figure, _, caption = maker(few, "20-28")
    names = {s.name.partition(",")[2] for s in hover.panels(figure)[0].series}
    assert {" 2 epochs", " 4 epochs"} <= names and "largest budget" not in caption


def test_no_bar_hides_another(run):
    figure = drawn(samples.balance, run, "20-28")
    [ax] = figure.axes
    *filled, outlined = ax.containers
    assert len(filled) == 2 and not any(p.get_fill() for p in outlined) and len(outlined) > 3


def test_each_question_has_a_line_for_each_model_beside_the_margin_of_m_r(run):
    judgements = judge_all(run)
    questions = card._questions(run, "20-28", judgements)
    assert list(questions) == ["error", "attack", "utility"]
    figure = drawn(standing.standing, run, "20-28", questions["error"])
    [panel] = hover.panels(figure)
    models = standing.shown(run, "20-28")
    # each method at its largest budget, M_O first and M_R last
    assert [s.name for s in panel.series] == [style.label(m) for m in models]
    assert [(m.method, m.epochs) for m in models] == [
        ("original", 0), *((m, 8) for m in LONG), ("retrain", 12)]
    for model, series in zip(models, panel.series):
        [point] = series.points
        mean = run.values(model, "20-28", "mae_forget").mean()
        assert float(point.x) == pytest.approx(mean, rel=1e-3) and " to " in point.text
    [ax] = figure.axes
    [check] = {c.margin for j in judgements for c in j.checks if c.metric == "mae_forget"}
    middle = run.values(models[-1], "20-28", "mae_forget").mean()
    [shade] = [p for p in ax.patches]
    np.testing.assert_allclose([shade.get_x(), shade.get_x() + shade.get_width()],
                               [middle - check, middle + check])
    # better than M_R is never too far: the shade reaches the left end
    utility = drawn(standing.standing, run, "20-28", questions["utility"]).axes[0]
    assert utility.patches[0].get_x() == pytest.approx(utility.get_xlim()[0])
    assert standing.standing(run, "20-28", questions["attack"]) is None  # none was run


def test_numbers_stay_within_what_they_can_be(tmp_path):
    path = write_workdir(tmp_path, task="classification", sets=("class-3",), samples=12)
    change_results(path, {("ft", "accuracy_test"): (0.99, 1.0, 0.4)})
    run = read_run(path)
    question = card._questions(run, "class-3", judge_all(run))["utility"]
    [ax] = drawn(standing.standing, run, "class-3", question).axes
    assert ax.get_xlim()[0] >= 0 and ax.get_xlim()[1] <= 100
    assert ax.patches[0].get_x() + ax.patches[0].get_width() == pytest.approx(ax.get_xlim()[1])


@pytest.mark.parametrize("side, way", [(2, "nearest"), (4, "bilinear"), (16, "nearest")])
def test_a_map_of_few_places_is_blocks_and_says_so(side, way):
    figure, axes = style.canvas(2, 2)
    maps = np.random.default_rng(0).normal(size=(side, side))
    explanations._overlay(axes[0, 0], np.zeros((16, 16, 3)), maps, 1.0)
    assert axes[0, 0].images[-1].get_interpolation() == way
    assert ("2 × 2 places, each shown as one block" in explanations._coarse(maps)) == (side == 2)


def test_a_likeness_that_no_map_has_is_a_dash():
    rows = pd.DataFrame({"against": ["retrain"] * 3, "seeds": ["same"] * 3, "set": ["forget"] * 3,
                         "value": [np.nan, np.nan, np.nan]})
    metric, pair = Metric(decimals=2), ("retrain", "same")
    assert explained._cell(metric, rows, pair, "forget").text == "–"
    rows.loc[0, "value"] = 0.5
    assert explained._cell(metric, rows, pair, "forget").text == "0.50"
