"""Where pictures and files of a report go."""

import ast
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from unlearn_jax import report
from unlearn_jax.report.figures.style import canvas
from unlearn_jax.report.output import Output

pytestmark = pytest.mark.usefixtures("drawn_figures")


def maker(text):
    if not text:
        return None
    figure, axes = canvas(2.0, 1.5)
    axes[0, 0].plot([0, 1], [1, 2], label="line")
    axes[0, 0].set_title(f"{text}, {matplotlib.rcParams['axes.titlelocation']}")
    return figure, "what it shows", "how to read it"


def test_a_picture_is_drawn_where_it_is_asked_for(tmp_path):
    before = dict(matplotlib.rcParams)
    [figure] = Output(tmp_path).draw("one", maker, "a")
    assert (figure.file, figure.alt, figure.caption) == ("one.png", "what it shows",
                                                         "how to read it")
    assert (tmp_path / "figures" / "one.png").stat().st_size > 0
    assert [p.title for p in figure.plot.panels] == ["a, left"]  # the report's own settings
    assert dict(matplotlib.rcParams) == before
    [figure] = Output(tmp_path).draw("two", maker, "a", values=False)
    assert figure.plot is None and (tmp_path / "figures" / "two.png").exists()


def test_nothing_is_drawn_of_nothing_or_to_nowhere(tmp_path):
    assert Output(tmp_path).draw("one", maker, "") == ()
    assert Output().draw("one", maker, "a") == ()
    Output().write("a.txt", "text")
    assert list(tmp_path.rglob("*.*")) == []


def test_settings_are_put_back_where_a_maker_fails(tmp_path):
    def fails():
        raise ValueError("no data")

    before = dict(matplotlib.rcParams)
    with pytest.raises(ValueError, match="no data"):
        Output(tmp_path).draw("one", fails)
    assert dict(matplotlib.rcParams) == before and list(tmp_path.rglob("*.png")) == []


def test_texts_and_tables_are_written(tmp_path):
    output = Output(tmp_path)
    output.write("tables/a.tex", "text\n")
    output.write("b.csv", pd.DataFrame({"x": [0.5]}))
    assert (tmp_path / "tables" / "a.tex").read_text() == "text\n"
    assert (tmp_path / "b.csv").read_text() == "x\n0.5\n"


# What each folder of the report may import of the others.
BELOW = {"tables": {"render"}, "render": {"tables"}, "figures": {"tables", "render"},
         "thesis": {"tables", "render", "figures", "output"},
         "sections": {"tables", "render", "figures", "output", "thesis"}}


@pytest.mark.parametrize("folder", BELOW)
def test_numbers_and_pictures_know_no_sections(folder):
    for path in (Path(report.__file__).parent / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                names = parts[2:3] or [a.name for a in node.names]
                if parts[:2] == ["unlearn_jax", "report"]:
                    assert set(names) <= BELOW[folder] | {folder}, f"{path}: {node.module}"


def test_the_study_has_one_door():
    root = Path(report.__file__).parent
    doors = {path.relative_to(root).as_posix() for path in root.rglob("*.py")
             if path.parent.name != "thesis" and "report.thesis" in path.read_text("utf-8")}
    assert doors == {"sections/page.py"}
