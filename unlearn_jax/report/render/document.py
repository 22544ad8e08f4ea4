"""The parts of a report. Markdown and HTML are two renderings of the same document."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
      text: its content.
      note: an addition that is shown in grey, such as `± 0.31 (3)`.
      sort: the number by which the column is sorted; None sorts by the text.
      link: the anchor in the page that the text leads to, such as the `stage-KEY` that made a
        number; '' for none.
      tip: lines that the page shows when the text is pointed at.
      anchor: the anchor by which links reach the cell; '' for none.
      mark: how the page marks the text: 'good', 'bad' or 'open'; '' for not at all.
    """

    text: str
    note: str = ""
    sort: float | None = None
    link: str = ""
    tip: tuple[str, ...] = ()
    anchor: str = ""
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Links:
    """A cell of several links: (text, anchor) of each."""

    links: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return ", ".join(text for text, _ in self.links)

    note = ""
    sort = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a definition of each column.

    Attributes:
      caption: the meaning of a row and of the numbers.
      columns: (title, definition) of each column, the definition with unit and formula.
      rows: one cell per column.
      key: the column that names a row: it stays in view where the table is wider than the window.
      name: NAME in its file `tables/NAME.tex`; '': it has no file.

    Raises:
      ValueError: a column without a definition, or a row of another length.
    """

    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell | Links, ...], ...]
    key: int = 0
    name: str = ""

    def __post_init__(self):
        for title, definition in self.columns:
            if not title or not definition:
                raise ValueError(f"the column {title!r} has no title or no definition")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} "
                                 "columns")


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph of plain text.

    Attributes:
      strong: for a sentence that a reader must not miss.
      links: (text, anchor) that the page shows after the text, such as its stages; or an address
        of the web, `https://...`, in place of the anchor.
    """

    text: str
    strong: bool = False
    links: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Items:
    """A list. A plain string is an item without links."""

    items: tuple[str | Text, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What something is, one fact a line: (its name, a text) of each."""

    facts: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, kept as it is; `anchor` is the target of links."""

    text: str
    anchor: str = ""


@dataclasses.dataclass(frozen=True)
class Point:
    """A value in a picture.

    Attributes:
      across, down: position in points of 1/72 inch from the upper left corner.
      x, y: the values as text.
      text: a further line, such as an interval.
    """

    across: float
    down: float
    x: str
    y: str
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Series:
    """The points of one name: a line, bars, dots."""

    name: str
    color: str
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes with their labels."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture as lines and text, with the values that can be pointed at.

    Attributes:
      svg: an `<svg>` element, whose colours are `var(--RRGGBB)`.
      panels: its values.
    """

    svg: str
    panels: tuple[Panel, ...]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      file: name within `figures/`.
      alt: a text in place of the picture.
      caption: how to read it.
      plot: the same picture as a vector drawing for the page; None: the page shows the file.
    """

    file: str
    alt: str
    caption: str
    plot: Plot | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """Small pictures that are read together: side by side, or below each other on a phone.

    Attributes:
      figures: the pictures, whose own captions are short.
      caption: how to read them all.
    """

    figures: tuple[Figure, ...]
    caption: str


Block = Table | Text | Items | Facts | Code | Figure | Row


@dataclasses.dataclass(frozen=True)
class Section:
    """A title with its blocks; `sections` are one level down.

    Attributes:
      anchor: by which links reach it; '': it has none of its own.
      unfolded: whether the page shows its blocks as it opens.
    """

    title: str
    blocks: tuple[Block, ...]
    sections: tuple["Section", ...] = ()
    anchor: str = ""
    unfolded: bool = False


@dataclasses.dataclass(frozen=True)
class Document:
    """A report: a title, an introduction, sections and a glossary.

    Attributes:
      introduction: what stands above all sections, always in view.
      terms: (term, meaning) of the glossary, before those of the tables' columns.
    """

    title: str
    introduction: tuple[Block, ...]
    sections: tuple[Section, ...]
    terms: tuple[tuple[str, str], ...] = ()


def glossary(document: Document) -> dict[str, tuple[str, ...]]:
    """The terms of a document and the titles of its columns, each with all of its meanings.

    Returns:
      In the order of the alphabet, whatever the case.
    """
    found: dict[str, dict[str, None]] = {}
    for term, meaning in (*document.terms, *_columns(document.introduction, document.sections)):
        found.setdefault(term, {})[meaning] = None
    return {term: tuple(found[term]) for term in sorted(found, key=lambda t: (t.casefold(), t))}


def _columns(blocks: tuple[Block, ...], sections: tuple[Section, ...],
             ) -> Iterator[tuple[str, str]]:
    for block in blocks:
        if isinstance(block, Table):
            yield from block.columns
    for section in sections:
        yield from _columns(section.blocks, section.sections)
