"""The receipt as one HTML file for the screen and for paper: no script, no picture, no link out."""

from html import escape

from unlearn_jax.report.render.document import (
    Block,
    Cell,
    Code,
    Document,
    Items,
    Links,
    Table,
    Text,
)
from unlearn_jax.report.tables.names import SYMBOL

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 1.4rem 0 0.4rem; }
p, ul { margin: 0.4rem 0; } ul { padding-left: 1.2rem; } li { margin: 0.15rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.25rem 0.6rem 0.25rem 0; border-bottom: 1px solid #8886;
  vertical-align: top; }
small { color: GrayText; display: block; font-weight: normal; }
pre { background: #8882; padding: 0.5rem 0.7rem; white-space: pre-wrap; font-size: 0.85rem; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } tr { break-inside: avoid; } }
"""


def render(document: Document) -> str:
    """The whole page; its text is escaped, so that no file's content acts as markup."""
    body = [f"<h1>{_text(document.title)}</h1>", *map(_block, document.introduction)]
    for section in document.sections:
        body += [f"<section><h2>{_text(section.title)}</h2>", *map(_block, section.blocks),
                 "</section>"]
    return "\n".join([
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        *body, "</body>\n</html>\n"])


def _block(block: Block) -> str:
    match block:
        case Text(text=text, strong=strong):
            return f"<p><strong>{_text(text)}</strong></p>" if strong else f"<p>{_text(text)}</p>"
        case Items(items=items):
            return "<ul>" + "".join(f"<li>{_text(i if isinstance(i, str) else i.text)}</li>"
                                    for i in items) + "</ul>"
        case Code(text=text):
            return f"<pre>{escape(text)}</pre>"
        case Table():
            return _table(block)
    raise TypeError(f"a receipt has no block of {type(block).__name__}")


def _table(table: Table) -> str:
    """A table; the definition of a column stands below its title."""
    head = "".join(f'<th scope="col">{_text(title)}<small>{_text(definition)}</small></th>'
                   for title, definition in table.columns)
    rows = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    return (f"<p>{_text(table.caption)}</p><table><thead><tr>{head}</tr></thead>\n"
            f"<tbody>{rows}</tbody></table>")


def _cell(cell: Cell | Links) -> str:
    return f"<td>{_text(cell.text)}</td>"


def _text(text: str) -> str:
    """Escaped text with the subscripts of M_O, D_f and their like."""
    return SYMBOL.sub(r"\1<sub>\2</sub>\3", escape(text))
