"""A document as one self-contained HTML file: pictures, style and script are all inside.

The introduction is always in view. Each section is folded behind its title, beside a list of all of
them that stays in view; links, a search and printing unfold what they need. The style is
`page.css`; `page.js` folds sections, sorts tables and shows the values of pictures. The drawings of
sections are packed, to a fifth of their size: the script unpacks them as the page opens.
"""

import base64
import dataclasses
import json
import re
import zlib
from html import escape
from pathlib import Path

from unlearn_jax.report.render.document import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Figure,
    Items,
    Links,
    Panel,
    Plot,
    Row,
    Section,
    Table,
    Text,
    glossary,
)
from unlearn_jax.report.render.vector import markup, themes
from unlearn_jax.report.tables.names import SYMBOL

_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8")
                   for name in ("page.css", "page.js"))
_HINT = ('<p class="quiet">A number with a dotted line leads to the stage that made it, and a '
         "stage to the part of the config that decides it.</p>")


@dataclasses.dataclass(frozen=True)
class _Page:
    """State of rendering.

    Attributes:
      workdir: the folder.
      terms: (term, meaning) of the glossary, with the anchor of its entry.
      svgs: the pictures so far.
      tails: the last lines of tips so far, which many tips share, with their numbers.
    """

    workdir: Path
    terms: dict[tuple[str, str], str]
    svgs: list[str]
    tails: dict[str, int]


def render(document: Document, workdir: Path) -> str:
    """The whole document.

    Args:
      document: what to render; its text is escaped, so that no file's content acts as markup.
      workdir: holds `figures/`.

    Raises:
      OSError: a picture cannot be read.
    """
    meanings = glossary(document)
    pairs = [(term, meaning) for term, found in meanings.items() for meaning in found]
    page = _Page(workdir, {pair: f"g{i}" for i, pair in enumerate(pairs)}, [], {})
    title = escape(document.title)
    names = {f"s{i}": s.title for i, s in enumerate(document.sections)}
    names |= {"glossary": "Glossary"} if meanings else {}
    links = "".join(f"<li>{_link(name, anchor)}</li>" for anchor, name in names.items())
    card = [_block(b, page) for b in document.introduction]
    body = [_section(section, page, 2, f"s{i}") for i, section in enumerate(document.sections)]
    if meanings:
        body.append(_fold("glossary", "<h2>Glossary</h2>", _glossary(meanings, page)))
    if any('class="number"' in part for part in body):
        body.insert(0, _HINT)
    colors = f":root {{{themes(page.svgs)}}}"
    return "\n".join([
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}{colors}</style>\n</head>\n<body>\n"
        f'<header id="top"><h1>{_text(document.title)}</h1><span class="buttons">'
        '<button type="button" id="fold">Unfold all</button>'
        '<button type="button" id="theme">Theme</button></span></header>\n<div class="page">\n'
        '<nav aria-label="Sections"><ul><li><a href="#top">Summary</a></li>'
        f"{links}</ul></nav>\n<main>\n" + '<div class="card">', *card, "</div>", *body,
        f'</main>\n</div>\n<div id="tip" role="status"></div>\n<script type="application/json" '
        f'id="tails">{_json(list(page.tails))}</script>\n<script>{_SCRIPT}</script>\n'
        "</body>\n</html>\n"])


def _section(section: Section, page: _Page, level: int, anchor: str) -> str:
    title = f"<h{level}>{_text(section.title)}</h{level}>"
    parts = [_block(b, page) for b in section.blocks]
    parts += [_section(inner, page, level + 1, f"{anchor}-{i}")
              for i, inner in enumerate(section.sections)]
    return _fold(anchor, title, "\n".join(parts), section.anchor, section.unfolded)


def _fold(anchor: str, title: str, content: str, second: str = "", unfolded: bool = False) -> str:
    """A section behind its title; `second` is a further anchor of it."""
    name = f' id="{escape(second)}"' if second else ""
    return (f'<section id="{anchor}"><details class="fold"{name}{" open" * unfolded}>'
            f"<summary>{title}</summary>\n{content}\n</details></section>")


def _glossary(meanings: dict[str, tuple[str, ...]], page: _Page) -> str:
    entries = "".join(
        f"<dt>{_text(term)}</dt>" + "".join(
            f'<dd id="{page.terms[term, meaning]}">{_text(meaning)}</dd>' for meaning in found)
        for term, found in meanings.items())
    return f'<dl class="terms">{entries}</dl>'


def _text(text: str) -> str:
    """Escaped text, with the subscripts of M_O, D_f and their like; no line ends before a %."""
    text = re.sub(r"(?<=\d) %", "\u00a0%", escape(text))
    return SYMBOL.sub(r"\1<sub>\2</sub>\3", text)


def _block(block: Block, page: _Page) -> str:
    match block:
        case Text():
            mark = ' class="strong"' if block.strong else ""
            return f"<p{mark}>{_linked(block)}</p>"
        case Items():
            return "<ul>" + "".join(f"<li>{_linked(item)}</li>" for item in block.items) + "</ul>"
        case Facts():
            facts = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>"
                            for name, text in block.facts)
            return f'<dl class="facts">{facts}</dl>'
        case Row():
            figures = "".join(_figure(f, page, packed=False) for f in block.figures)
            return (f'<div class="row"><div>{figures}</div><p class="quiet">{_text(block.caption)}'
                    "</p></div>")
        case Code():
            anchor = f' id="{escape(block.anchor)}"' if block.anchor else ""
            return f"<pre{anchor}>{escape(block.text)}</pre>"
        case Figure():
            return _figure(block, page)
        case Table():
            return _table(block, page)


def _linked(text: Text | str) -> str:
    """A text with its links behind it."""
    if isinstance(text, str) or not text.links:
        return _text(text if isinstance(text, str) else text.text)
    links = ", ".join(_link(*link) for link in text.links)
    return f'{_text(text.text)} <span class="from">[{links}]</span>'


def _link(text: str, anchor: str) -> str:
    """A link to an anchor in the page, or to an address of the web."""
    place = anchor if anchor.startswith("https://") else f"#{anchor}"
    return f'<a href="{escape(place)}">{_text(text)}</a>'


def _figure(figure: Figure, page: _Page, packed: bool = True) -> str:
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>"
    if figure.plot is None:
        data = base64.b64encode((page.workdir / "figures" / figure.file).read_bytes()).decode()
        return (f'<figure><img src="data:image/png;base64,{data}" alt="{escape(figure.alt)}">'
                f"{caption}</figure>")
    page.svgs.append(figure.plot.svg)
    role = f'<svg role="img" tabindex="0" aria-label="{escape(figure.alt)}"'
    svg = figure.plot.svg.replace("<svg", role, 1)
    plotted = bool(figure.plot.panels)
    if plotted:
        svg += f'<script type="application/json">{_values(figure.plot)}</script>'
    picture = f'<div class="picture">{svg}</div>'
    if packed:
        data = base64.b64encode(zlib.compress(svg.encode(), 9)).decode()
        picture = (f'<div class="picture" data-packed="{data}"><p>{escape(figure.alt)}: '
                   f"figures/{escape(figure.file)}</p></div>")
    if not plotted:
        return f"<figure>{picture}{caption}</figure>"
    return (f'<figure class="plotted">{picture}{caption}<p class="keys">'
            '<button type="button" class="enlarge">Enlarge</button> '
            '<span class="with-keys">Point at the picture, or focus it and press the arrow keys, '
            'to read values.</span><span class="with-touch">Touch the picture to read values.'
            "</span></p>"
            '<details class="values"><summary>The values as a table</summary></details></figure>')


def _values(plot: Plot) -> str:
    """The values of a picture for the script; their texts are markup, escaped already."""
    def panel(p: Panel) -> list:
        series = [[markup(s.name), s.color, [
            [t.across, t.down, markup(t.x), markup(t.y), *([escape(t.text)] if t.text else [])]
            for t in s.points]] for s in p.series]
        return [markup(p.title), markup(p.x), markup(p.y), series]

    return _json([panel(p) for p in plot.panels])


def _json(value: list) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("</", "<\\/")  # no text may close the script


def _table(table: Table, page: _Page) -> str:
    # a column of numbers is set flush right, a column of text flush left
    kinds = ["" if any(row[i].sort is not None for row in table.rows) and i else "text"
             for i in range(len(table.columns))]
    kinds[table.key] = f"{kinds[table.key]} key".strip()
    # a title that is pointed at shows its entry in the glossary
    head = "".join(
        f'<th scope="col" class="{kind}"><button type="button" aria-describedby="'
        f'{page.terms[column]}">{_text(column[0])}</button></th>'
        for kind, column in zip(kinds, table.columns))
    rows = "".join("<tr>" + "".join(_cell(cell, kind, page) for cell, kind in zip(row, kinds))
                   + "</tr>\n" for row in table.rows)
    name = re.split(r"[:.;](?:\s|$)", table.caption)[0]
    return (f'<figure><figcaption>{_text(table.caption)}</figcaption><div class="scroll" '
            f'tabindex="0" role="region" aria-label="{escape(name)}"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></figure>")


def _cell(cell: Cell | Links, kind: str, page: _Page) -> str:
    if isinstance(cell, Links):
        return f'<td class="text">{", ".join(_link(*link) for link in cell.links)}</td>'
    classes = [kind] if kind else []
    if len(cell.text) > 60:
        classes.append("wrap")
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    if cell.sort is not None:
        # As JavaScript reads it, and a number of NumPy as one of Python.
        attribute += f' data-sort="{float(cell.sort)!r}"'.replace("inf", "Infinity")
    if cell.anchor:
        attribute += f' id="{escape(cell.anchor)}"'
    text = _text(cell.text)
    if cell.mark:
        text = f'<span class="mark {cell.mark}">{text}</span>'
    if cell.link:
        tip = _tip(cell.tip, page) if cell.tip else ""
        text = f'<a class="number" href="#{escape(cell.link)}"{tip}>{text}</a>'
    note = f' <span class="note">{_text(cell.note)}</span>' if cell.note else ""
    return f"<td{attribute}>{text}{note}</td>"


def _tip(lines: tuple[str, ...], page: _Page) -> str:
    """The attributes of a tip: its own lines, and the number of the last two."""
    tail = page.tails.setdefault("\n".join(lines[-2:]), len(page.tails))
    return f' data-tip="{escape(chr(10).join(lines[:-2]))}" data-tail="{tail}"'
