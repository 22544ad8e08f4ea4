"""Reports: from the files of a work directory to tables, pictures and two documents. No JAX."""

from pathlib import Path

from unlearn_jax.report.figures.results import draw_all
from unlearn_jax.report.render import html, latex, markdown
from unlearn_jax.report.sections.page import build
from unlearn_jax.report.tables import judgement, leaderboard
from unlearn_jax.report.tables.files import ReportError, write_table
from unlearn_jax.report.tables.inputs import Run, read_run
from unlearn_jax.report.tables.stats import summarise
from unlearn_jax.report.thesis import section
from unlearn_jax.storage import manifest
from unlearn_jax.system import disk

__all__ = ["ReportError", "write_report"]


def write_report(workdir: Path) -> Run:
    """Writes summary.csv, verdict.csv, report.md, report.html, figures/*.png into a folder.

    Of a comparison also leaderboard.csv and leaderboard.tex; of a run of the reference study also
    tables/. Reads results.csv, data.json, run.json, predictions/*.npz and, where there are any,
    history.csv, trials.csv, touched.csv, layers.csv, explain.csv, channels.csv and
    explanations/*.npz; the same files give the same report, byte for byte on the same versions.

    Args:
      workdir: the work directory of a finished run; of another one the report says so.

    Returns:
      The run, as read.

    Raises:
      ReportError: a file is missing or malformed; the message names the file and the column
        or field.
      OSError: the folder cannot be written.
    """
    workdir = Path(workdir)
    run = read_run(workdir)
    manifest.begin_report(workdir)
    write_table(workdir / "summary.csv", summarise(run.results))
    write_table(workdir / "verdict.csv", judgement.table(judgement.judge_all(run)))
    if run.trials is not None:
        boards = leaderboard.boards(run)
        write_table(workdir / "leaderboard.csv", leaderboard.table(run, boards))
        disk.write_file(workdir / "leaderboard.tex", latex.render(run, boards))
    if run.arms:
        section.write_tables(run)
    document = build(run, list(draw_all(run)))
    disk.write_file(workdir / "report.md", markdown.render(document))
    disk.write_file(workdir / "report.html", html.render(document, workdir))
    manifest.end_report(workdir)
    return run
