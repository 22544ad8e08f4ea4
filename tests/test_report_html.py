"""Documents as pages: how text and tables are set."""

import re

import pytest

from unlearn_jax.report.render import html
from unlearn_jax.report.render.document import Cell, Document, Section, Table, Text


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


def test_definitions_are_unfolded_once(tmp_path):
    table = Table("caption", (("a", "what"),), ((Cell("1", sort=1.0),),))
    page = html.render(Document("t", (Text("x"),), (Section("s", (table, table)),)), tmp_path)
    assert re.findall(r'<details class="columns"( open)?>', page) == [" open", ""]
