"""The sections of a report, in their order."""

import dataclasses

from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Document, Section
from unlearn_jax.report.sections import (
    card,
    comparison,
    data,
    forget_set,
    introduction,
    record,
    verdict,
    warnings,
)
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.judgement import judge_all
from unlearn_jax.report.thesis import section as thesis

_NOWHERE = Output()


def build(run: Run, output: Output = _NOWHERE) -> Document:
    """The whole report, which Markdown and HTML render.

    A section is a function that returns a `Section`, or None where the run has nothing for it.

    Args:
      run: the work directory.
      output: where sections draw their pictures and write files of their own.
    """
    judgements = judge_all(run)
    sections = (
        _with_first(comparison.section(run, output)),
        _unfolded(thesis.section(run, output)),
        verdict.section(run, output),
        *(_headed(forget_set.section(run, name, output),
                  card.others(run, judgements, name, output)) for name in run.forget_sets),
        warnings.section(run),
        data.section(run, output),
        record.stages(run),
        record.reproduce(run),
        record.configuration(run),
    )
    return Document(f"{run.run['config_name']}: machine unlearning report",
                    (*introduction.blocks(run), *card.blocks(run, judgements, output)),
                    tuple(s for s in sections if s is not None), card.TERMS)


def _unfolded(section: Section | None) -> Section | None:
    """The section, shown as the page opens."""
    return section and dataclasses.replace(section, unfolded=True)


def _with_first(section: Section | None) -> Section | None:
    """The section and the first one in it, shown as the page opens."""
    if section is None:
        return None
    first, *others = section.sections
    return dataclasses.replace(section, unfolded=True, sections=(
        dataclasses.replace(first, unfolded=True), *others))


def _headed(section: Section, blocks: tuple[Block, ...]) -> Section:
    """The section with further blocks at its start."""
    return dataclasses.replace(section, blocks=(*blocks, *section.blocks))
