"""The sections of a report, in their order."""

from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Document
from unlearn_jax.report.sections import (
    comparison,
    data,
    forget_set,
    introduction,
    record,
    verdict,
    warnings,
)
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.thesis import section as thesis

_NOWHERE = Output()


def build(run: Run, output: Output = _NOWHERE) -> Document:
    """The whole report, which Markdown and HTML render.

    A section is a function that returns a `Section`, or None where the run has nothing for it.

    Args:
      run: the work directory.
      output: where sections draw their pictures and write files of their own.
    """
    sections = (
        comparison.section(run, output),
        thesis.section(run, output),
        verdict.section(run, output),
        *(forget_set.section(run, name, output) for name in run.forget_sets),
        warnings.section(run),
        data.section(run, output),
        record.stages(run),
        record.reproduce(run),
        record.configuration(run),
    )
    return Document(f"{run.run['config_name']}: machine unlearning report",
                    introduction.blocks(run), tuple(s for s in sections if s is not None))
