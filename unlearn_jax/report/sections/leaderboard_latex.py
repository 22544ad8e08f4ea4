"""leaderboard.tex: the leaderboard in fewer columns, the best value in bold."""

from unlearn_jax.report.render import latex
from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.baselines import CONSTANT, SHIFTED
from unlearn_jax.report.tables.inputs import SHORT, Run
from unlearn_jax.report.tables.leaderboard import Board, BoardRow
from unlearn_jax.report.tables.names import Metric
from unlearn_jax.report.tables.stats import Estimate

_OVER = r"$^\dagger$"


def render(run: Run, boards: tuple[Board, ...]) -> str:
    """One table for each board, the best method of the ranked metric in bold."""
    # The tables have a dozen columns: they are made as wide as the text.
    return "\n".join([latex.needs("booktabs", "graphicx") + "\n",
                      *(_table(run, board) for board in boards)])


def _table(run: Run, board: Board) -> str:
    metrics = leaderboard.metrics(run)
    head = ["", "method", *(latex.escape(m.header) for m in metrics), "verdict", "$p$"]
    lines = []
    for row in board.rows:
        cells = [str(row.rank or ""), _name(row), *(
            _number(m, row.values[m.name], row.rank == 1 and m.name == board.ranked)
            + (_OVER if row.over and m.name == leaderboard.spent_metric(run) else "")
            for m in metrics), row.verdict, _p(row.p_holm)]
        lines.append(latex.row(cells))
        if row.method == leaderboard.CEILING or row is board.contenders[-1]:
            lines.append(r"\midrule")
    return latex.frame(_caption(run, board), "rl" + "r" * (len(metrics) + 2), head, lines,
                       f"tab:leaderboard-{board.name}", wide=True)


def _caption(run: Run, board: Board) -> str:
    of = (f"all {len(board.forget_sets)} forget sets" if board.name == leaderboard.OVERALL
          else f"forget set {board.name}")
    return latex.escape(
        f"Comparison on {of}: mean ± half the 95 % interval over {len(run.seeds)} seeds; p is "
        f"that of the paired t-test against {leaderboard.BASELINE} on "
        f"{leaderboard.ranked_by(run)}, corrected by Holm. A star marks a method without a trial "
        "whose validation error is within tolerance; it is ranked behind the others. First row: "
        "the ceiling, M_R against the M_R of other seeds, which bounds Forgetting across seeds "
        "alone. Below the methods: answers that need no unlearning, and M_O, untouched. A cross "
        "marks a cost above the budget.")


def _name(row: BoardRow) -> str:
    titles = {leaderboard.CEILING: "retrain (ceiling)", leaderboard.UNTOUCHED: "M_O, untouched",
              SHORT: "short retraining", SHIFTED: "M_O, shifted", CONSTANT: "best constant"}
    return latex.escape(titles.get(row.method, row.method)) + ("" if row.within else "*")


def _number(metric: Metric, e: Estimate, bold: bool) -> str:
    if e.n == 0:
        return "--"
    text = metric.text(e.mean)
    if e.has_interval:
        text += f" \\pm {metric.text(e.half)}"
    text = latex.number(text)
    return rf"$\mathbf{{{text[1:-1]}}}$" if bold else text


def _p(p: float) -> str:
    return "" if p != p else "$<0.001$" if p < 0.001 else f"${p:.3f}$"
