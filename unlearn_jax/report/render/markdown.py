"""A document as Markdown (GitHub's flavour)."""

import re
from collections.abc import Iterable

from unlearn_jax.report.render.document import (
    Block,
    Code,
    Document,
    Facts,
    Figure,
    Items,
    Row,
    Section,
    Table,
    Text,
    glossary,
)

_SPECIAL = re.compile(r"([\\`*<>\[\]|~&#$])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(document: Document) -> str:
    """The whole document; text is escaped, so that no file's content acts as markup."""
    parts = [f"# {escape(document.title)}"]
    parts += [_block(b) for b in document.introduction]
    for section in document.sections:
        parts += _section(section, 2)
    terms = glossary(document)
    if terms:
        parts += ["## Glossary", _facts([(term, meaning) for term, meanings in terms.items()
                                         for meaning in meanings])]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """One line of text with Markdown's special characters taken literally."""
    line = " ".join(text.split())
    line = _SPECIAL.sub(lambda m: "\\" + m[0], line)
    line = re.sub(r"^([-+=])(?=[-=\s]|$)", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)


def _section(section: Section, level: int) -> list[str]:
    parts = [f"{'#' * level} {escape(section.title)}"]
    parts += [_block(b) for b in section.blocks]
    for inner in section.sections:
        parts += _section(inner, level + 1)
    return parts


def _block(block: Block) -> str:
    match block:
        case Text():
            return f"**{escape(block.text)}**" if block.strong else escape(block.text)
        case Items():
            return "\n".join(f"- {escape(item if isinstance(item, str) else item.text)}"
                             for item in block.items)
        case Facts():
            return _facts(block.facts)
        case Row():
            return "\n\n".join([*map(_block, block.figures), escape(block.caption)])
        case Code():
            runs = [len(run) for run in re.findall("`+", block.text)]
            fence = "`" * max([3, *(n + 1 for n in runs)])
            return f"{fence}text\n{block.text}\n{fence}"
        case Figure():
            return f"![{escape(block.alt)}](figures/{block.file})\n\n{escape(block.caption)}"
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    columns = [escape(title) for title, _ in table.columns]
    lines = [escape(table.caption), "",
             "| " + " | ".join(columns) + " |",
             "|" + "---|" * len(columns)]
    for row in table.rows:
        lines.append("| " + " | ".join(escape(f"{c.text} {c.note}") for c in row) + " |")
    return "\n".join(lines)


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- **{escape(name)}**: {escape(text)}" for name, text in facts)
