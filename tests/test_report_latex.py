"""Every table of a report as LaTeX: structure, columns, escapes, files."""

import re

import pytest
from fake_workdir import write_comparison, write_thesis, write_workdir

from unlearn_jax.report import write_report
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import latex
from unlearn_jax.report.render.document import Cell, Document, Links, Section, Table
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables.inputs import read_run

SETS = ("20-28", "28-36")


def table(*rows, columns=("name", "value"), **options):
    return Table("A caption.", tuple((c, "what it is") for c in columns), rows, **options)


def lines_of(text):
    """The rows between the first rule and the last, and the titles before them."""
    titles, _, *rows = text.split("\\toprule\n")[1].split("\n\\bottomrule")[0].split("\n")
    return titles, rows


@pytest.mark.parametrize("cell, shown", [
    (Cell("1,234.5", "± 0.31 (3)", 1234.5), r"$1{,}234.5 \pm 0.31$ (3)"),
    (Cell("−0.50", "± 1.20 (3) *", -0.5), r"$-0.50 \pm 1.20$ (3) *"),
    (Cell("0.7", "(n=1, no interval)", 0.7), "$0.7$ (n=1, no interval)"),
    (Cell("–", sort=float("nan")), "--"),
    (Cell("∞", "in 2 of 3", float("inf")), r"$\infty$ in 2 of 3"),
    (Cell("4.4"), "4.4"),  # the number of a section, which no column of numbers holds
    (Cell("a_b & 50 % of #1"), r"a\_b \& 50 \% of \#1"),
    (Cell("M_O of D_f"), r"$M_{\mathrm{O}}$ of $D_{\mathrm{f}}$"),
    (Links((("data", "x"), ("eval", "y"))), "data, eval"),
])
def test_cells(cell, shown):
    _, [row] = lines_of(latex.render(table((Cell("x"), cell))))
    assert row == rf"x & {shown} \\"


def test_a_row_that_begins_with_a_bracket_is_no_argument_of_the_row_before():
    _, rows = lines_of(latex.render(table((Cell("x"), Cell("1")), (Cell("[2] *"), Cell("1")))))
    assert rows[1].startswith("{}[2]")


def test_columns_follow_their_cells():
    text = latex.render(table((Cell("x"), Cell("1", sort=1.0)), (Cell("y"), Cell("–"))))
    assert r"\begin{tabular}{lr}" in text and "resizebox" not in text and "graphicx" not in text
    wide = latex.render(table((Cell("x " * 40), Cell("1", sort=1.0)), name="long"))
    assert r"\begin{tabular}{p{0.4\textwidth}r}" in wide and r"\label{tab:long}" in wide
    assert wide.startswith(r"% Needs \usepackage{booktabs} and \usepackage{graphicx};")


def test_definitions_are_comments_of_one_line_each():
    text = latex.render(Table("c", (("a (%)", "of\nall"), ("b", "50 %")), ()))
    assert "% a (%): of all\n% b: 50 %\n" in text and r"a (\%) & b \\" in text


def test_two_tables_of_one_name_are_refused():
    one = table((Cell("x"), Cell("1")), name="data")
    with pytest.raises(ValueError, match="called 'data'"):
        latex.tables(Document("t", (), (Section("a", (one,)), Section("b", (one,)))))


def tables_of(sections):
    for section in sections:
        yield from (b for b in section.blocks if isinstance(b, Table))
        yield from tables_of(section.sections)


@pytest.mark.parametrize("write, options", [
    (write_workdir, {"sets": SETS, "budgets": (2, 4)}),
    (write_workdir, {"task": "classification", "sets": ("class-3",), "failed": (("ft", 1),)}),
    (write_comparison, {"sets": SETS}),
    (write_thesis, {"sets": SETS, "budgets": (2, 16)}),
])
def test_every_table_of_a_report_is_well_formed(tmp_path, write, options):
    document = build(read_run(write(tmp_path, samples=12, **options)), Output())
    found = list(tables_of(document.sections))
    texts = latex.tables(document)
    # those without a name are tables 3 to 8 of the study, which are written on their own
    assert len(texts) == sum(bool(t.name) for t in found)
    assert sum(not t.name for t in found) == (6 if write is write_thesis else 0)
    for name, text in texts.items():
        assert re.fullmatch(r"[A-Za-z0-9._=+-]+", name)
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        for part in ("table", "tabular"):
            assert body.count(rf"\begin{{{part}}}") == body.count(rf"\end{{{part}}}") == 1
        titles, rows = lines_of(body)
        assert {line.count(" & ") for line in rows} <= {titles.count(" & ")}, name
        assert not re.search(r"(?<!\\)[%#]", body) and "±" not in body and "−" not in body
        assert body.count("{") == body.count("}")
        assert body.replace(r"\$", "").count("$") % 2 == 0, name


def test_the_files_stand_beside_the_report(tmp_path):
    path = write_comparison(tmp_path, samples=12)
    write_report(path)
    names = {p.name for p in (path / "tables").iterdir()}
    assert names >= {"comparison-20-28.tex", "results-20-28.tex", "differences.tex", "trials.tex"}
    assert (path / "leaderboard.tex").exists()
    assert r"\label{tab:results-20-28}" in (path / "tables" / "results-20-28.tex").read_text()
