"""The parts of a report. Markdown and HTML are two renderings of the same document."""

import dataclasses


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
    """

    text: str
    note: str = ""
    sort: float | None = None
    link: str = ""
    tip: tuple[str, ...] = ()
    anchor: str = ""


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


Block = Table | Text | Items | Code | Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """A title with its blocks; `sections` are one level down."""

    title: str
    blocks: tuple[Block, ...]
    sections: tuple["Section", ...] = ()


@dataclasses.dataclass(frozen=True)
class Document:
    """A report: a title, an introduction and sections."""

    title: str
    introduction: tuple[Block, ...]
    sections: tuple[Section, ...]
