"""A document as one self-contained HTML file: pictures, style and script are all inside."""

import base64
import dataclasses
import re
from html import escape
from pathlib import Path

from unlearn_jax.report.document import (
    Block,
    Cell,
    Code,
    Document,
    Figure,
    Items,
    Section,
    Table,
    Text,
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1f23; --quiet: #5f6670; --line: #d9dce1;
  --paper: #ffffff; --band: #f4f5f7; --link: #0b5cad; --mark: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --quiet: #a0a7b1;
  --line: #3a3f47; --paper: #16181c; --band: #1f2227; --link: #7fb8f0; --mark: #3d3414; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 84rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 0.75rem; padding-top: 0.75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 0.5rem; }
p, li { max-width: 46rem; }
li { margin: 0.4rem 0; }
a { color: var(--link); }
sub { line-height: 0; font-size: 0.72em; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; list-style: none; padding: 0;
  margin: 1.25rem 0; font-size: 0.93rem; }
nav li { margin: 0; }
.strong { background: var(--mark); padding: 0.6rem 0.8rem; border-radius: 4px;
  font-weight: 600; }
.quiet, figcaption, .columns { color: var(--quiet); font-size: 0.88rem; }
figure { margin: 1.25rem 0 1.75rem; }
figcaption { margin: 0.5rem 0; max-width: 46rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px;
  border: 1px solid var(--line); }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%;
  border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; font-size: 0.86rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.55rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th.text, td.text { text-align: left; }
td.wrap { white-space: normal; min-width: 14rem; }
thead th { background: var(--band); padding: 0; vertical-align: bottom; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
thead th:first-child { background: var(--band); }
th button { all: unset; box-sizing: border-box; width: 100%; padding: 0.45rem 0.55rem;
  font-weight: 600; line-height: 1.3; cursor: pointer; white-space: normal; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; }
th button::after { content: "\\2195"; color: var(--quiet); margin-left: 0.3em;
  font-weight: 400; }
th[aria-sort=ascending] button::after { content: "\\2191"; }
th[aria-sort=descending] button::after { content: "\\2193"; }
td .note { color: var(--quiet); font-size: 0.93em; }
.columns { margin: 0.4rem 0 0; max-width: none; }
.columns summary { cursor: pointer; }
.columns dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem;
  margin: 0.4rem 0; }
.columns dt { font-weight: 600; }
.columns dd { margin: 0; }
pre { background: var(--band); padding: 0.75rem 0.9rem; overflow-x: auto; border-radius: 4px;
  font: 0.82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 40rem) { body { padding: 1rem 0.9rem 3rem; }
  .columns dl { display: block; } .columns dd { margin: 0 0 0.5rem; }
  td:first-child { white-space: normal; min-width: 7rem; } }
@media print { body { max-width: none; } .scroll { overflow: visible; }
  th button::after { content: ""; } figure, tr { break-inside: avoid; } }
"""

# Sorts a table by the column whose title is pressed; values that are no number stay last.
_SCRIPT = """
document.querySelectorAll("th button").forEach(function (button) {
  button.addEventListener("click", function () {
    var th = button.parentNode, body = th.closest("table").tBodies[0];
    var at = th.cellIndex, down = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    th.parentNode.querySelectorAll("th").forEach(function (other) {
      other.removeAttribute("aria-sort"); });
    th.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    Array.from(body.rows).map(function (row) {
      var cell = row.cells[at], key = cell.dataset.sort;
      return { row: row, text: cell.textContent,
               value: key === undefined ? null : parseFloat(key) };
    }).sort(function (a, b) {
      if (a.value === null || b.value === null) {
        return down * a.text.localeCompare(b.text, undefined, { numeric: true }); }
      if (isNaN(a.value) || isNaN(b.value)) { return isNaN(a.value) - isNaN(b.value); }
      return down * (a.value - b.value);
    }).forEach(function (item) { body.appendChild(item.row); });
  });
});
"""


@dataclasses.dataclass(frozen=True)
class _Page:
    """What rendering carries along: the folder, and the column definitions shown so far."""

    workdir: Path
    defined: set[tuple[str, str]]


def render(document: Document, workdir: Path) -> str:
    """The whole document.

    Args:
      document: what to render; its text is escaped, so that no file's content acts as markup.
      workdir: holds `figures/`.

    Raises:
      OSError: a picture cannot be read.
    """
    page = _Page(workdir, set())
    title = escape(document.title)
    links = "".join(f'<li><a href="#s{i}">{_text(s.title)}</a></li>'
                    for i, s in enumerate(document.sections))
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(document.title)}</h1>"]
    parts += [_block(b, page) for b in document.introduction]
    parts.append(f'<nav aria-label="Sections"><ul>{links}</ul></nav>')
    for i, section in enumerate(document.sections):
        parts.append(_section(section, page, 2, f"s{i}"))
    parts.append(f"</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n")
    return "\n".join(parts)


def _section(section: Section, page: _Page, level: int, anchor: str) -> str:
    parts = [f'<section id="{anchor}">', f"<h{level}>{_text(section.title)}</h{level}>"]
    parts += [_block(b, page) for b in section.blocks]
    parts += [_section(inner, page, level + 1, f"{anchor}-{i}")
              for i, inner in enumerate(section.sections)]
    return "\n".join([*parts, "</section>"])


def _text(text: str) -> str:
    """Escaped text, with the subscripts of M_O, D_f and their like; no line ends before a %."""
    text = re.sub(r"(?<=\d) %", "\u00a0%", escape(text))
    return re.sub(r"\b([MD])_([A-Za-z]+)\b", r"\1<sub>\2</sub>", text)


def _block(block: Block, page: _Page) -> str:
    match block:
        case Text():
            mark = ' class="strong"' if block.strong else ""
            return f"<p{mark}>{_text(block.text)}</p>"
        case Items():
            return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in block.items) + "</ul>"
        case Code():
            return f"<pre>{escape(block.text)}</pre>"
        case Figure():
            data = base64.b64encode((page.workdir / "figures" / block.file).read_bytes()).decode()
            return (f'<figure><img src="data:image/png;base64,{data}" alt="{escape(block.alt)}">'
                    f"<figcaption>{_text(block.caption)}</figcaption></figure>")
        case Table():
            return _table(block, page)


def _table(table: Table, page: _Page) -> str:
    # a column of numbers is set flush right, a column of text flush left
    kinds = ["" if any(row[i].sort is not None for row in table.rows) and i else "text"
             for i in range(len(table.columns))]
    head = "".join(f'<th scope="col" class="{kind}"><button type="button">{_text(title)}'
                   "</button></th>" for kind, (title, _) in zip(kinds, table.columns))
    rows = "".join("<tr>" + "".join(map(_cell, row, kinds)) + "</tr>\n" for row in table.rows)
    terms = "".join(f"<dt>{_text(title)}</dt><dd>{_text(definition)}</dd>"
                    for title, definition in table.columns)
    # the tables of a second forget set have the same columns: their definitions start folded
    unfolded = "" if page.defined.issuperset(table.columns) else " open"
    page.defined.update(table.columns)
    return (f'<figure><figcaption>{_text(table.caption)}</figcaption><div class="scroll" '
            f'tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            f'</div><details class="columns"{unfolded}><summary>What the columns are</summary>'
            f"<dl>{terms}</dl></details></figure>")


def _cell(cell: Cell, kind: str) -> str:
    classes = [kind] if kind else []
    if len(cell.text) > 60:
        classes.append("wrap")
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    if cell.sort is not None:
        attribute += f' data-sort="{cell.sort!r}"'
    note = f' <span class="note">{_text(cell.note)}</span>' if cell.note else ""
    return f"<td{attribute}>{_text(cell.text)}{note}</td>"
