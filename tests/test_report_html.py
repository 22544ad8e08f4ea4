"""Documents as pages: how text and tables are set."""

import re

import pytest

from unlearn_jax.report.render import html, markdown
from unlearn_jax.report.render.document import (
    Cell,
    Document,
    Facts,
    Section,
    Table,
    Text,
    glossary,
)


@pytest.mark.parametrize("text, shown", [
    ("M_O, D_f: M_R's", "M<sub>O</sub>, D<sub>f</sub>: M<sub>R</sub>&#x27;s"),
    ("M_Rs of M_RND_OFFSET.", "M<sub>R</sub>s of M<sub>RND_OFFSET</sub>."),
    ("M_KGLTOP1 M_L1_SPARSE", "M<sub>KGLTOP1</sub> M<sub>L1_SPARSE</sub>"),
    ("M_ANCHORED-METHOD, M_FT+B", "M<sub>ANCHORED-METHOD</sub>, M<sub>FT+B</sub>"),
    ("M_SSDs - M_O-", "M<sub>SSD</sub>s - M<sub>O</sub>-"), ("RAM_O M_", "RAM_O M_"),
])
def test_names_of_models_have_what_is_below_them(tmp_path, text, shown):
    page = html.render(Document("t", (Text(text),), ()), tmp_path)
    assert f"<p>{shown}</p>" in page


def section(title, *blocks, **options):
    return Section(title, blocks, **options)


def test_a_column_is_explained_once_in_the_glossary(tmp_path):
    one = Table("caption", (("M_R", "what"), ("b", "that")), ((Cell("1", sort=1.0), Cell("2")),))
    two = Table("caption", (("M_R", "else"),), ((Cell("1"),),))
    document = Document("t", (), (section("s", one, one), section("u", two)), (("D_f", "set"),))
    assert glossary(document) == {"b": ("that",), "D_f": ("set",), "M_R": ("what", "else")}
    page = html.render(document, tmp_path)
    entries = dict(re.findall('<dd id="(g[0-9]+)">(.*?)</dd>', page))
    assert sorted(entries.values()) == ["else", "set", "that", "what"]
    shown = re.findall('aria-describedby="(g[0-9]+)">(.*?)</button>', page)
    assert [(entries[name], title) for name, title in shown] == [
        *(2 * [("what", "M<sub>R</sub>"), ("that", "b")]), ("else", "M<sub>R</sub>")]
    text = markdown.render(document)
    assert text.endswith("## Glossary\n\n- **b**: that\n- **D_f**: set\n"
                         "- **M_R**: what\n- **M_R**: else\n")


def test_a_document_without_terms_has_no_glossary(tmp_path):
    document = Document("t", (Text("x"),), (section("s", Text("y")),))
    assert "Glossary" not in html.render(document, tmp_path) + markdown.render(document)


def test_sections_are_folded_and_listed_the_introduction_is_neither(tmp_path):
    inner = section("inner", Text("deep"), anchor="deep")
    page = html.render(Document("t", (Text("first"),), (
        section("a", Text("x"), sections=(inner,)), section("b", unfolded=True))), tmp_path)
    head, _, rest = page.partition('<section id="s0">')
    assert "<p>first</p>" in head and "<details" not in head
    assert '<a href="#s0">a</a>' in head and '<a href="#s1">b</a>' in head
    assert rest.startswith('<details class="fold"><summary><h2>a</h2></summary>')
    assert '<section id="s0-0"><details class="fold" id="deep"><summary><h3>inner</h3>' in rest
    assert '<section id="s1"><details class="fold" open><summary><h2>b</h2>' in rest


def test_facts_and_marked_words(tmp_path):
    document = Document("t", (Facts((("Data", "M_O & x"),)), Table(
        "c", (("a", "b"),), ((Cell("not forgotten", mark="bad"),),))), ())
    page = html.render(document, tmp_path)
    assert '<dl class="facts"><dt>Data</dt><dd>M<sub>O</sub> &amp; x</dd></dl>' in page
    assert '<span class="mark bad">not forgotten</span>' in page
    assert "- **Data**: M_O \\& x" in markdown.render(document)
