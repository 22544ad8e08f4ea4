"""Reports: tables, pictures and two documents from the files of a work directory. No JAX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_jax.errors import ReportError
from unlearn_jax.storage import manifest
from unlearn_jax.system.bars import MakeBar

if TYPE_CHECKING:
    from unlearn_jax.report.tables.inputs import Run

__all__ = ["ReportError", "write_report"]


def write_report(workdir: Path, bar: MakeBar = None) -> Run:
    """Writes summary.csv, verdict.csv, report.md, report.html, figures/*.png and tables/*.tex.

    A comparison also gets leaderboard.csv and leaderboard.tex, a run of the reference study
    tables/table3.csv to table8.csv and tables/claims.csv, a run with a file of ids the folder
    receipt/, for which the store is read as well. Reads results.csv, data.json, run.json,
    predictions/*.npz and, where there are any, history.csv, trials.csv, touched.csv, layers.csv,
    requests.csv, explain.csv, channels.csv and explanations/*.npz; the same files give the same
    report, byte for byte on the same versions.

    Args:
      workdir: the work directory of a run. The report of an unfinished run has a warning.
      bar: makes a progress bar, one step for each section.

    Returns:
      The run, as read.

    Raises:
      ReportError: a file is missing or malformed; the message names the file and the column
        or field.
      OSError: the folder cannot be written.
    """
    # They import Matplotlib and pandas. So a study, which reports at its end, starts without them.
    from unlearn_jax.report.output import Output
    from unlearn_jax.report.receipt import write_receipt
    from unlearn_jax.report.render import html, latex, markdown
    from unlearn_jax.report.sections.page import build
    from unlearn_jax.report.tables.inputs import read_run
    from unlearn_jax.report.tables.stats import summarise

    workdir = Path(workdir)
    run = read_run(workdir)
    manifest.begin_report(workdir)
    output = Output(workdir)
    output.write("summary.csv", summarise(run.results))
    document = build(run, output, bar)
    for name, text in latex.tables(document).items():
        output.write(f"tables/{name}.tex", text)
    output.write("report.md", markdown.render(document))
    output.write("report.html", html.render(document, workdir))
    write_receipt(run, output)
    manifest.end_report(workdir)
    return run
