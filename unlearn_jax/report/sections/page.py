"""The sections of a report, in their order."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Document, Section
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
from unlearn_jax.report.tables.judgement import Judgement, judge_all
from unlearn_jax.report.thesis import section as thesis
from unlearn_jax.system.bars import MakeBar, tracked

_NOWHERE = Output()


def build(run: Run, output: Output = _NOWHERE, bar: MakeBar = None) -> Document:
    """The whole report, which Markdown and HTML render.

    A section is a function that returns a `Section`, or None where the run has nothing for it.

    Args:
      run: the work directory.
      output: where sections draw their pictures and write files of their own.
      bar: makes a progress bar, one step for each section.

    Returns:
      The report, with its summary card first.
    """
    judgements = judge_all(run)
    makers: tuple[Callable[[], Section | None], ...] = (
        lambda: _with_first(comparison.section(run, output)),
        lambda: _unfolded(thesis.section(run, output)),
        lambda: verdict.section(run, output),
        *(functools.partial(_of_forget_set, run, judgements, name, output)
          for name in run.forget_sets),
        lambda: warnings.section(run),
        lambda: data.section(run, output),
        lambda: record.stages(run),
        lambda: record.reproduce(run),
        lambda: record.configuration(run),
    )
    sections = [make() for make in tracked(bar, makers, "report", "sections")]
    return Document(f"{run.run['config_name']}: machine unlearning report",
                    (*introduction.blocks(run), *card.blocks(run, judgements, output)),
                    tuple(s for s in sections if s is not None), card.TERMS)


def _of_forget_set(run: Run, judgements: Sequence[Judgement], name: str, output: Output) -> Section:
    """A forget set's section; at its start the picture that the card shows of the first alone."""
    section = forget_set.section(run, name, output)
    return dataclasses.replace(section, blocks=(*card.others(run, judgements, name, output),
                                                *section.blocks))


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
