"""The leaderboard as LaTeX tables, to be read by \\input; its first line names the packages."""

import re

from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.leaderboard import Board, BoardRow
from unlearn_jax.report.tables.names import SYMBOL, Metric
from unlearn_jax.report.tables.stats import Estimate

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
            "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
            '"': r"\textquotedbl{}", **{c: "\\" + c for c in "&%$#_{}"}}
# Beyond ASCII, what headers of the report hold.
_MATHS = {"α": r"$\alpha$", "−": "$-$", "±": r"$\pm$", "·": r"$\cdot$", "×": r"$\times$",
          "≤": r"$\leq$", "–": "--"}

# The tables have a dozen columns: they are made as wide as the text.
_PACKAGES = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}; the file is UTF-8.\n"


def escape(text: str) -> str:
    """Text with LaTeX's special characters taken literally, M_O and D_f as in the report.

    Letters beyond ASCII stay: LaTeX reads UTF-8.
    """
    parts, at = [], 0
    for found in SYMBOL.finditer(text):
        # within braces + and - get no spaces around them
        below = re.sub("[+-]", r"{\g<0>}", found[2]).replace("_", r"\_")
        parts += [_plain(text[at:found.start()]),
                  rf"${found[1]}_{{\mathrm{{{below}}}}}${found[3]}"]
        at = found.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    return "".join(_SPECIAL.get(c) or _MATHS.get(c, c) for c in text)


def render(run: Run, boards: tuple[Board, ...]) -> str:
    """One table for each board, the best method of the ranked metric in bold."""
    return "\n".join([_PACKAGES, *(_table(run, board) for board in boards)])


def _table(run: Run, board: Board) -> str:
    metrics = leaderboard.metrics(run)
    head = ["", "method", *(_header(m) for m in metrics), "$p$"]
    lines = [r"\begin{table}", r"\centering",
             rf"\caption{{{_caption(run, board)}}}", rf"\label{{tab:leaderboard-{board.name}}}",
             r"\resizebox{\textwidth}{!}{\begin{tabular}{rl" + "r" * (len(metrics) + 1) + "}",
             r"\toprule",
             " & ".join(head) + r" \\", r"\midrule"]
    for row in board.rows:
        cells = [str(row.rank or ""), _name(row), *(
            _number(m, row.values[m.name], row.rank == 1 and m.name == leaderboard.ranked_by(run))
            for m in metrics), _p(row.p_holm)]
        lines.append(" & ".join(cells) + r" \\")
        if row.method == leaderboard.CEILING or row is board.rows[-2]:
            lines.append(r"\midrule")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _caption(run: Run, board: Board) -> str:
    of = (f"all {len(board.forget_sets)} forget sets" if board.name == leaderboard.OVERALL
          else f"forget set {board.name}")
    return escape(
        f"Comparison on {of}: mean ± half the 95 % interval over {len(run.seeds)} seeds; p is of "
        f"the paired t-test against {leaderboard.BASELINE} on "
        f"{leaderboard.ranked_by(run)}, corrected by Holm. A star marks a method of which no trial "
        "kept the validation error within tolerance; it is ranked behind the others. First row: "
        "the ceiling, M_R against the M_R of other seeds, which bounds Forgetting across seeds "
        "alone; last row: M_O, untouched.")


def _header(metric: Metric) -> str:
    return escape(metric.header)


def _name(row: BoardRow) -> str:
    titles = {leaderboard.CEILING: "retrain (ceiling)", leaderboard.UNTOUCHED: "M_O, untouched"}
    return escape(titles.get(row.method, row.method)) + ("" if row.within else "*")


def _number(metric: Metric, e: Estimate, bold: bool) -> str:
    if e.n == 0:
        return "--"
    text = metric.text(e.mean)
    if e.has_interval:
        text += f" \\pm {metric.text(e.half)}"
    # Within $...$ a comma would get a space behind it.
    text = text.replace("−", "-").replace(",", "{,}")
    return rf"$\mathbf{{{text}}}$" if bold else f"${text}$"


def _p(p: float) -> str:
    return "" if p != p else "$<0.001$" if p < 0.001 else f"${p:.3f}$"
