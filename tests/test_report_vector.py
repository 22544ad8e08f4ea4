"""Drawings for the page: small, unique names, themed colours, formulas as text, points in place."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from unlearn_jax.report.figures.style import canvas
from unlearn_jax.report.render import hover, vector

pytestmark = pytest.mark.usefixtures("drawn_figures")

FORMULA = r"$M_\mathrm{RND{-}X}$, 2 epochs"


@pytest.fixture
def figure():
    figure, axes = canvas(4.0, 3.0, 1, 2, sharey=True)
    left, right = axes[0]
    [line] = left.plot([0, 1, 2], [1.0, np.nan, 3.0], "o-", color="#0072b2", label=FORMULA)
    hover.note(line, texts=hover.interval([0.5, 1, 2.5], [1.5, 2, np.nan]))
    left.plot([0, 2], [0, 2], color="#222222")  # has no name
    left.set_xlabel("epoch")
    left.set_ylabel("error ($)".replace("$", r"\$"))
    left.set_title("<left> & more")
    hover.note(right.bar([0, 1], [2, 4], color="#7d7d7d"), "images", ["first", "second"])
    right.set_xticks([0, 1], ["a", "b"])
    figure.supxlabel("group")
    left.legend()
    figure.canvas.draw()
    return figure


def test_points_have_the_names_of_their_axes_and_values(figure):
    left, right = hover.panels(figure)
    assert (left.title, left.x, left.y) == ("<left> & more", "epoch", r"error (\$)")
    [line] = left.series
    assert (line.name, line.color) == (FORMULA, "#0072b2")
    assert [(p.x, p.y, p.text) for p in line.points] == [("0", "1", "0.5 to 1.5"), ("2", "3", "")]
    # the right panel takes its y label from the left, with which it shares the axis
    assert (right.x, right.y) == ("group", r"error (\$)")
    [bars] = right.series
    assert [(p.x, p.y, p.text) for p in bars.points] == [("a", "2", "first"), ("b", "4", "second")]


def test_points_lie_on_the_drawing(figure):
    [line] = hover.panels(figure)[0].series
    root = ET.fromstring(vector.render(figure, "name"))
    assert root.get("viewBox") == "0 0 288 216"
    marks = {(round(float(u.get("x")), 1), round(float(u.get("y")), 1))
             for u in root.iter("use") if u.get("x")}
    assert {(p.across, p.down) for p in line.points} <= marks


def test_the_drawing_is_fit_for_a_page(figure):
    svg, other = vector.render(figure, "name"), vector.render(figure, "other")
    assert svg == vector.render(figure, "name")
    names = set(re.findall(r' id="([^"]+)"', svg))
    assert names and not names & set(re.findall(r' id="([^"]+)"', other))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    assert {a or b for a, b in used} == names
    assert not re.search(r"#[0-9a-f]{6}|xlink|DejaVu|<metadata|rdf:", svg)
    assert 'M<tspan class="sub" dy="2">RND-X</tspan><tspan dy="-2">, 2 epochs</tspan>' in svg
    assert "&lt;left&gt; &amp; more" in svg and "error ($)" in svg
    css = vector.themes([svg])
    assert css.count("--0072b2:light-dark(#0072b2,#") == 1
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == set(re.findall(r"--(\w+):", css))


def test_drawing_for_the_page_leaves_the_figure_as_it_is(figure):
    before = np.asarray(figure.canvas.buffer_rgba()).copy()
    vector.render(figure, "name")
    figure.canvas.draw()
    np.testing.assert_array_equal(np.asarray(figure.canvas.buffer_rgba()), before)


def test_dark_colours():
    assert vector.dark("#ffffff") == vector.PAPER["dark"]
    greys = [vector.dark(c) for c in ("#000000", "#777777", "#e4e4e4", "#ffffff")]
    assert greys == sorted(greys, reverse=True)  # greys change places
    for color in ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#332288", "#661100", "#e69f00"):
        paper, ink = (vector._luminance([int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)])
                      for c in (vector.PAPER["dark"], vector.dark(color)))
        assert (ink + 0.05) / (paper + 0.05) > 4.4, color
    assert vector.dark("#e69f00") == "#e69f00"  # bright enough as it is


def test_a_long_line_is_pointed_at_in_places_only():
    figure, axes = canvas(3, 2)
    axes[0, 0].plot(np.arange(2000), np.arange(2000), label="long")
    figure.canvas.draw()
    [series] = hover.panels(figure)[0].series
    assert 100 < len(series.points) <= hover.MOST_POINTS
    assert series.points[0].x == "0"


def test_cells_and_dots():
    figure, axes = canvas(4, 2, 1, 2)
    cells = axes[0, 0].pcolormesh([0, 1, 2], [0, 1], [[10.0, np.nan]])
    hover.note(cells, "matrix")
    hover.note(axes[0, 1].scatter([1], [2]), "dots", ["one"])
    figure.canvas.draw()
    [[matrix], [dots]] = [p.series for p in hover.panels(figure)]
    assert [(p.x, p.text) for p in matrix.points] == [("0.5", "10"), ("1.5", "none")]
    assert [(p.x, p.y, p.text) for p in dots.points] == [("1", "2", "one")]


def test_markup():
    assert vector.markup(FORMULA) == "M<sub>RND-X</sub>, 2 epochs"
    assert vector.markup("<b> $D_f$ at 5 \\$") == "&lt;b&gt; D<sub>f</sub> at 5 $"
