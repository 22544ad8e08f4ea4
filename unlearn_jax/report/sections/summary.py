"""The answer first: each unlearned model's verdict with the three numbers that it weighs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from unlearn_jax.report.render.document import Cell, Table
from unlearn_jax.report.tables.cells import number
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.judgement import (
    DAMAGED,
    FORGOTTEN,
    LEVEL,
    NOT_FORGOTTEN,
    OF_AUC,
    OF_ERROR,
    OF_THE_GAP,
    UNDECIDED,
    Judgement,
)
from unlearn_jax.report.tables.names import describe, model_symbol, symbol
from unlearn_jax.report.tables.origins import trace
from unlearn_jax.report.tables.stats import estimate

MOST_LINES = 12  # of the terminal
_WIDTH = 100
MEANS = (
    (FORGOTTEN, "no check tells it from M_R, and all intervals are narrow enough to say so"),
    (NOT_FORGOTTEN, "a check finds a memory of D_f"),
    (DAMAGED, "it differs from M_R otherwise: further from the data, or less useful"),
    (UNDECIDED, "the intervals are too wide, or a check is missing"))


_WITHOUT_RETRAINED = (
    f"without M_R it cannot be said that D_f is forgotten, nor that a model is damaged. "
    f"“{NOT_FORGOTTEN}”: a membership attack finds D_f in M_e, its AUC being above what the draw "
    f"of the samples and the seeds explain at {LEVEL:.0%}; “{DAMAGED}”: training failed in a seed; "
    f"“{UNDECIDED}”: everything else. An attack that finds nothing shows no forgetting.")


def table(run: Run, judgements: Sequence[Judgement]) -> Table | None:
    """One row per forget set and model; None where nothing was unlearned."""
    if not judgements:
        return None
    metrics = [describe(run, name) for name in _numbers(run)]
    beside = _beside(run)
    rows = []
    for j in judgements:
        cells = []
        for metric in metrics:
            for model in (j.model, run.only(j.forget_set, beside)):
                values = run.values(model, j.forget_set, metric.name)
                cell = number(metric, estimate(values) if len(values) else None)
                cells.append(trace(run, cell, model, j.forget_set, metric.name,
                                   100 if metric.percent else 1))
        rows.append((Cell(j.forget_set), Cell(model_symbol(j.model)), Cell(j.word), *cells,
                     Cell(because(j))))
    caption = "Verdict: " + (
        "; ".join(f"“{word}”: {meaning}" for word, meaning in MEANS) + ". "
        f"Each check compares M_e with M_R seed by seed. It passes where the 90 % interval of the "
        f"difference is within a margin: {OF_THE_GAP:.0%} of what M_O and M_R differ by (error on "
        f"D_f), {OF_AUC} (attack, Forgetting), {OF_ERROR:.0%} of M_R's error (test and retain "
        "set), or M_R's standard deviation over seeds where that is larger. It fails where the "
        f"difference is not 0 at {LEVEL:.0%}, corrected after Holm for the model's checks. "
        "verdict.csv has all checks." if beside == "retrain" else _WITHOUT_RETRAINED)
    return Table(
        caption,
        (("forget set", "which D_f"), ("M_e", "the unlearned model and its budget"),
         ("verdict", "the word"),
         *((f"{m.header}, {of}", f"{m.definition}; of {of}") for m in metrics
           for of in ("M_e", symbol(beside))),
         ("because", "the checks that decided, or how many seeds would")), tuple(rows), key=1,
        name="verdict")


def lines(run: Run, judgements: Sequence[Judgement], store: Path | None = None) -> list[str]:
    """What the terminal says at the end: at most `MOST_LINES` lines.

    Args:
      run: the work directory.
      judgements: of all its models.
      store: where the models are; None: not said.
    """
    where = [f"Report:  {run.workdir / 'report.html'}",
             f"Results: {run.workdir / 'results.csv'}, verdict.csv"
             + (f"     Models: {store}" if store else "")]
    receipt = run.workdir / "receipt" / "receipt.html"
    if receipt.exists():
        where.insert(1, f"Receipt: {receipt}")
    room = MOST_LINES - len(where)
    short = [textwrap.shorten(_said(run, j), _WIDTH, placeholder=" ...") for j in judgements]
    numbers = [_number_line(run, j) for j in judgements]
    full = [[*_wrapped(_said(run, j)), *found] for j, found in zip(judgements, numbers)]
    if sum(map(len, full)) > room:
        full = [[line, *found] for line, found in zip(short, numbers)]
        for i, j in enumerate(judgements):  # whole reasons, as far as there is room
            wrapped = [*_wrapped(_said(run, j)), *numbers[i]]
            if sum(map(len, full)) - len(full[i]) + len(wrapped) <= room:
                full[i] = wrapped
    if sum(map(len, full)) > room:
        full = [[line] for line in short]
    if len(full) > room:
        left = len(full) - (room - 1)
        full = [*full[:room - 1], [f"... and {left} more models: verdict.csv"]]
    found = [line for entry in full for line in entry]
    return (found or ["Nothing was unlearned."]) + where


def _said(run: Run, j: Judgement) -> str:
    several = f"{j.forget_set}, " if len(run.forget_sets) > 1 else ""
    return f"{several}{model_symbol(j.model)}: {j.word}. {because(j)}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False,
                         break_on_hyphens=False)


def _number_line(run: Run, j: Judgement) -> list[str]:
    numbers = []
    for metric in (describe(run, name) for name in _numbers(run)):
        mine, theirs = (run.values(m, j.forget_set, metric.name)
                        for m in (j.model, run.only(j.forget_set, _beside(run))))
        if mine.notna().any() and theirs.notna().any():
            numbers.append(f"{metric.header} {metric.text(mine.mean())} "
                           f"({symbol(_beside(run))} {metric.text(theirs.mean())})")
    return ["    " + "; ".join(numbers)] if numbers else []


def because(j: Judgement) -> str:
    """The reason of a verdict as a sentence, and how many seeds would decide an open one."""
    text = f"{j.reason[:1].upper()}{j.reason[1:]}."
    if j.word == UNDECIDED and j.seeds_needed > j.seeds:
        text += f" About {j.seeds_needed} seeds would decide, there are {j.seeds}."
    return text


def _beside(run: Run) -> str:
    """The models beside which M_e is shown: M_R, or M_O where no forget set has an M_R."""
    return "retrain" if any(run.only(fs, "retrain") for fs in run.forget_sets) else "original"


def _numbers(run: Run) -> tuple[str, str, str]:
    """One metric for each question: error, attack, utility."""
    kind = "accuracy" if run.classification else "mae"
    return f"{kind}_forget", "mia_auc", f"{kind}_test"
