"""The parts of a report. Markdown and HTML are two renderings of the same document."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
      text: what stands in it.
      note: an addition in a quieter voice, such as `± 0.31 (3)`.
      sort: what the column is sorted by; None sorts by the text.
    """

    text: str
    note: str = ""
    sort: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that explains itself.

    Attributes:
      caption: what a row is and what the numbers are.
      columns: (title, definition) of each column, the definition with unit and formula.
      rows: one cell per column.

    Raises:
      ValueError: a column without a definition, or a row of another length.
    """

    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]

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
    """A paragraph of plain text; `strong` for the sentence one must not miss."""

    text: str
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of plain texts."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text in a fixed-width face, kept as it is."""

    text: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      file: name within `figures/`.
      alt: what a reader who cannot see it is told.
      caption: how to read it.
    """

    file: str
    alt: str
    caption: str


Block = Table | Text | Items | Code | Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """A title and what stands below it; `sections` are one level down."""

    title: str
    blocks: tuple[Block, ...]
    sections: tuple["Section", ...] = ()


@dataclasses.dataclass(frozen=True)
class Document:
    """A report: a title, an introduction and sections."""

    title: str
    introduction: tuple[Block, ...]
    sections: tuple[Section, ...]
