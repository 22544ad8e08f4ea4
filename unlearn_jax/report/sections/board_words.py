"""What a leaderboard says in sentences: which method is first, and which are worth their cost."""

import numpy as np

from unlearn_jax.report.render.document import Text
from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.inputs import SHORT, Run
from unlearn_jax.report.tables.judgement import LEVEL
from unlearn_jax.report.tables.leaderboard import OVERALL, Board, BoardRow


def first(run: Run, board: Board) -> str:
    """Which method comes first, and whether that is established."""
    metric = leaderboard.metric(run, board.ranked)
    where = ("Over all forget sets" if board.name == OVERALL else f"On {board.name}")
    best = [row for row in board.contenders if row.rank == 1]
    values = best[0].values[board.ranked]
    if not values.n:
        return f"{where} no method has a value of {metric.header}: the ranks mean nothing."
    if len(best) > 1:
        return (f"{where} {_listed(best)} share the first place by {metric.header} "
                f"({metric.text(values.mean)}).")
    name, alike = best[0].method, [r for r in board.contenders if r.within == best[0].within]
    others = [r for r in alike if r is not best[0]]
    if len(board.contenders) == 1:
        return f"{where} {name} is the only method ({metric.header} {metric.text(values.mean)})."
    end = "highest" if board.sign > 0 else "lowest"
    among = " of the methods that kept within the tolerance" * (len(alike) < len(board.contenders))
    text = (f"{where} {name} comes first: it has the {end} {metric.header}{among}, "
            f"{metric.text(values.mean)}.")
    if not best[0].within:
        text += " No method kept within the tolerance."
    if not others:
        return f"{text} No other method kept within the tolerance."
    open_ = [r for r in others if not r.p_first < LEVEL]
    tested = (f"paired t-tests over {values.n} seeds at {100 * LEVEL:g} %, corrected for the "
              f"{len(board.contenders)} methods of which it is the best")
    if values.n < 2:
        return f"{text} One seed establishes nothing."
    if not open_:
        return f"{text} That it is better than each other method is established ({tested})."
    if len(open_) == len(others):
        return (f"{text} That it is the best is not established: no other method is shown to be "
                f"worse ({tested}).")
    return (f"{text} That it is the best is not established: {_listed(open_)} "
            f"{'is' if len(open_) == 1 else 'are'} not shown to be worse ({tested}).")


def on_short(run: Run, board: Board) -> tuple[Text, ...]:
    """Which methods are better than short retraining; () for a comparison without it."""
    reference = board.row(SHORT)
    if reference is None:
        return ()
    metric = leaderboard.metric(run, board.ranked)
    reached = reference.values[board.ranked]
    if not reached.n:
        return (Text(f"Short retraining has no value of {metric.header}."),)
    groups: dict[str, list[BoardRow]] = {"better": [], "worse": [], "no different": []}
    for row in board.contenders:
        clear = np.isfinite(row.p_short) and row.p_short < LEVEL
        groups["better" if board.beats_short(row) else "worse" if clear else
               "no different"].append(row)
    said = []
    if groups["better"]:
        said.append(f"Better than it: {_listed(groups['better'])}.")
    else:
        said.append("No method is shown to be better.")
    if groups["no different"]:
        said.append(f"Not shown to differ from it: {_listed(groups['no different'])}.")
    if groups["worse"]:
        said.append(f"Worse than it: {_listed(groups['worse'])}.")
    return (Text(
        f"Short retraining, M_R's own training for the budget of the methods, reaches a "
        f"{metric.header} of {metric.text(reached.mean)} (paired t-tests over {reached.n} seeds, "
        f"corrected after Holm for the {len(board.contenders)} methods). {' '.join(said)} A method "
        "that is not better than short retraining saves nothing."),)


def _listed(rows: list[BoardRow]) -> str:
    names = [row.method for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
