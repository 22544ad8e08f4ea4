"""Tables as LaTeX, to be read by \\input; the first line of a file names the packages."""

import re
from collections.abc import Iterator

from unlearn_jax.report.render.document import Cell, Document, Links, Section, Table
from unlearn_jax.report.tables.names import SYMBOL

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
            "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
            '"': r"\textquotedbl{}", **{c: "\\" + c for c in "&%$#_{}"}}
# Beyond ASCII, what headers of the report hold.
_MATHS = {"α": r"$\alpha$", "−": "$-$", "±": r"$\pm$", "·": r"$\cdot$", "×": r"$\times$",
          "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$", "Δ": r"$\Delta$", "→": r"$\to$",
          "–": "--"}
_NUMBER = re.compile(r"−?\d[\d,]*(\.\d+)?")
_HALF = re.compile(rf"± ({_NUMBER.pattern})")
_LONG = 60  # letters of a cell that is broken into lines
_FEW = 5  # columns of a table that is not scaled


def escape(text: str) -> str:
    """Text with LaTeX's special characters taken literally, M_O and D_f as in the report.

    Letters beyond ASCII stay: LaTeX reads UTF-8.
    """
    parts, at = [], 0
    for found in SYMBOL.finditer(text):
        # within braces + and - get no spaces around them
        below = re.sub("[+-]", r"{\g<0>}", found[2]).replace("_", r"\_")
        parts += [_plain(text[at:found.start()]),
                  rf"${found[1]}_{{\mathrm{{{below}}}}}${found[3]}"]
        at = found.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    return "".join(_SPECIAL.get(c) or _MATHS.get(c, c) for c in text)


def needs(*packages: str) -> str:
    """Returns a LaTeX comment that names the packages a file needs; it is the file's first line."""
    return "% Needs " + " and ".join(rf"\usepackage{{{p}}}" for p in packages) + (
        "; the file is UTF-8.")


def number(text: str) -> str:
    """A number as the report shows it, such as `−1,234.5`, as a formula."""
    # Within $...$ a comma would get a space behind it.
    return f"${text.replace('−', '-').replace(',', '{,}')}$"


def frame(caption: str, columns: str, head: list[str], lines: list[str], label: str = "",
          wide: bool = False) -> str:
    """A floating table between the rules of booktabs.

    Args:
      caption, label: as LaTeX; '': no label.
      columns: the argument of `tabular`.
      head: the titles of the columns.
      lines: a row of cells as `row` gives it, or a rule.
      wide: whether the table is scaled to the width of the text.
    """
    opening, closing = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    if wide:
        opening, closing = rf"\resizebox{{\textwidth}}{{!}}{{{opening}", closing + "}"
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}",
        *([rf"\label{{{label}}}"] if label else []), opening, r"\toprule", row(head), r"\midrule",
        *lines, r"\bottomrule", closing, r"\end{table}", ""])


def row(cells: list[str]) -> str:
    """A row of cells that are LaTeX."""
    line = " & ".join(cells) + r" \\"
    # Behind the end of a row, LaTeX takes a bracket or a star for an argument of that end.
    return "{}" + line if line.startswith(("[", "*")) else line


def render(table: Table) -> str:
    """A table of the report, with the definitions of its columns as comments."""
    columns = []
    for i in range(len(table.columns)):
        cells = [r[i] for r in table.rows]
        long = any(len(c.text) > _LONG for c in cells)
        numeric = any(c.sort is not None for c in cells)
        columns.append(r"p{0.4\textwidth}" if long else "r" if numeric and i else "l")
    wide = len(columns) > _FEW or any(c.startswith("p") for c in columns)
    lines = [row([_cell(c) for c in cells]) for cells in table.rows]
    definitions = [f"% {' '.join(f'{title}: {definition}'.split())}"
                   for title, definition in table.columns]
    return "\n".join([
        needs("booktabs", *(["graphicx"] if wide else [])), *definitions,
        frame(escape(table.caption), "".join(columns), [escape(t) for t, _ in table.columns],
              lines, f"tab:{table.name}" if table.name else "", wide)])


def tables(document: Document) -> dict[str, str]:
    """Every named table of a document, by its name.

    Raises:
      ValueError: two tables have one name.
    """
    found: dict[str, str] = {}
    for table in _tables(document.sections):
        if table.name in found:
            raise ValueError(f"two tables of the report are called {table.name!r}")
        found[table.name] = render(table)
    return found


def _tables(sections: tuple[Section, ...]) -> Iterator[Table]:
    for section in sections:
        yield from (b for b in section.blocks if isinstance(b, Table) and b.name)
        yield from _tables(section.sections)


def _cell(cell: Cell | Links) -> str:
    if isinstance(cell, Links) or cell.sort is None or not _NUMBER.fullmatch(cell.text):
        return escape(f"{cell.text} {cell.note}".strip())
    half = _HALF.match(cell.note)
    if half is None:
        return f"{number(cell.text)} {escape(cell.note)}".strip()
    return number(rf"{cell.text} \pm {half[1]}") + escape(cell.note[half.end():])
