"""The leaderboard in the report: its tables, its pictures, and the commands that repeat it."""

import dataclasses

import numpy as np

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.figures import leaderboard as figures
from unlearn_jax.report.figures import style
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Cell, Code, Figure, Section, Table, Text
from unlearn_jax.report.sections import board_words, leaderboard_latex, verdict
from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.baselines import CONSTANT, SHIFTED
from unlearn_jax.report.tables.cells import NONE, ROUGH, number
from unlearn_jax.report.tables.gap import sets_with_gap
from unlearn_jax.report.tables.inputs import REFERENCES, SHORT, Run
from unlearn_jax.report.tables.judgement import LEVEL
from unlearn_jax.report.tables.leaderboard import (
    BASELINE,
    CEILING,
    OVERALL,
    SLACK,
    UNTOUCHED,
    Board,
    BoardRow,
)
from unlearn_jax.report.tables.names import Metric, model_title
from unlearn_jax.report.tables.origins import linked, trace
from unlearn_jax.report.tables.stats import Estimate

_P = Metric(name="p", header="p", definition="p")
_NAMES = {SHORT: "short retraining M_SHORT", SHIFTED: "M_O, shifted", CONSTANT: "best constant"}
_NO_EPOCHS = (UNTOUCHED, SHIFTED, CONSTANT)


def section(run: Run, output: Output) -> Section | None:
    """The leaderboard of a comparison, also as leaderboard.csv and leaderboard.tex.

    None for another run.
    """
    if run.trials is None:
        return None
    found = leaderboard.boards(run)
    output.write("leaderboard.csv", leaderboard.table(run, found))
    output.write("leaderboard.tex", leaderboard_latex.render(run, found))
    inner = [Section(board.title, (_table(run, board), *_pictures(run, board, output, i),
                                   *_commands(run, board))) for i, board in enumerate(found)]
    return Section("Leaderboard", (Text(_outcome(run, found[0]), strong=True),
                                   *(Text(board_words.first(run, board)) for board in found),
                                   *board_words.on_short(run, found[0]), *_explanation(run)), (
        *inner, Section("What was chosen", (_chosen(run),)),
        Section("All trials", (_trials(run),))))


def _pictures(run: Run, board: Board, output: Output, index: int) -> tuple[Figure, ...]:
    """The two pictures of a board; of many boards only the first have any."""
    if index > style.MOST_SETS:  # the board of all sets is not counted
        return ()
    return (*output.draw(f"pareto-cost-{board.name}", figures.cost, run, board),
            *output.draw(f"pareto-utility-{board.name}", figures.utility, run, board))


def _outcome(run: Run, board: Board) -> str:
    """In words: whether there is something to forget, and which methods make M_O worse."""
    found = sets_with_gap(run)
    missing = [name for name in run.forget_sets if name not in found]
    gaps = []
    if found:
        gaps.append(f"That M_R errs more on D_f than M_O is established on {', '.join(found)}.")
    if missing:
        gaps.append(f"It is not established on {', '.join(missing)}" if found else
                    f"On no forget set ({', '.join(missing)}) is it established that M_R errs more "
                    "on D_f than M_O")
        gaps[-1] += ": there these numbers cannot show whether anything was forgotten."
    metric = leaderboard.metric(run, leaderboard.ranked_by(run))
    worse = [(r.method, _negative(r.gain)) for r in board.rows
             if r.gain is not None and r.gain.mean < 0]
    names = "; ".join(f"{method} by {metric.text(loss.mean)}{verdict.interval(metric, loss)}"
                      for method, loss in worse)
    over = ", averaged over the forget sets" if len(board.forget_sets) > 1 else ""
    which = "every method lies" if len(worse) == len(board.contenders) else "these methods lie"
    side = "below" if board.sign > 0 else "above"
    below = (f"In {metric.header}{over}, {which} {side} M_O, untouched: {names}." if worse else
             f"In {metric.header}{over}, no method lies {side} M_O, untouched.")
    return " ".join([*gaps, below])


def _negative(e: Estimate) -> Estimate:
    return dataclasses.replace(e, mean=-e.mean, low=-e.high, high=-e.low)


def _explanation(run: Run) -> tuple[Block, ...]:
    c = run.run["config"]["compare"]
    unit = {"images": "images", "wall": "seconds", "flops": "floating-point operations"}
    per_method = leaderboard.trials(run).groupby(["method", "forget_set"]).size()
    fewer = sorted({m for (m, _), n in per_method.items() if n < c["trials"]})
    budget = (
        f"Each method may spend {100 * c['fraction']:g} % of what retraining took, counted in "
        f"{unit[c['budget']]}, its preparation included, as nearly as whole epochs allow. Each has "
        f"up to {c['trials']} trials, from weak to strong, with all seeds"
        + (f" ({', '.join(fewer)}: fewer, because it has less to vary)" if fewer else "") + ".")
    error = "accuracy" if run.classification else "loss"
    change = "falls" if run.classification else "rises"
    choice = (
        "Each forget set and method is shown with one trial: the strongest one whose "
        f"{error} on half of the validation samples of D_r, averaged over seeds, {change} by at "
        f"most {100 * c['tolerance']:g} % of M_O's. If no trial keeps within that, the one of "
        "lowest validation error is shown, marked with a star and ranked behind the others. No "
        "method trains on that half; a method that trains on validation samples (reset) uses the "
        "other half. The choice uses no forget or test sample.")
    tests = (
        f"Ranks are by {leaderboard.ranked_by(run)}. Tests compare it with {BASELINE}'s in a "
        f"paired t-test over seeds (n = {len(run.seeds)}). Each seed is averaged over the forget "
        "sets first, because they share its M_O. The p-values are corrected by Holm for the number "
        "of methods. The test assumes that differences are independent and normally distributed.")
    if BASELINE not in leaderboard.methods(run):
        tests = (f"Ranks are by {leaderboard.ranked_by(run)}. Nothing is tested, as {BASELINE} is "
                 "not among the methods.")
    honest = (
        "The rows without a rank are there for comparison. Short retraining (M_SHORT) repeats "
        "M_R's training for the budget of the methods: a method that is not better saves nothing. "
        "“M_O, shifted” answers on D_f as M_O does, shifted until it errs on average as "
        "M_R does; “best constant” gives one and the same answer to all of D_f. They forget "
        "nothing, so a Forgetting that they reach is no evidence of forgetting. Both are computed "
        "from M_R's predictions on D_f, and answer like M_O elsewhere.")
    ends = (
        "The first row is the ceiling, M_R. Its Forgetting, across seeds or not, and its F are "
        "measured against the M_Rs of other seeds. Across seeds no method can be expected above "
        "the ceiling. Against the M_R of its own seed, which started from the same initial "
        "weights, a model can lie above it: that Forgetting, and the F computed from it, compare "
        "methods with each other. The last row is M_O, untouched. Where test samples resemble the "
        "forget set, F and utility count what M_O still knows of it, so they can exceed M_R's."
        + verdict.on_start(run, *(leaderboard.model(run, m, fs) for m in leaderboard.methods(run)
                                  for fs in run.forget_sets)))
    costs = (
        "Images count the samples on which the trained model is run in a method's passes, "
        "preparation included. They leave out other work of a step: a teacher's prediction of the "
        "same image (scrub, reset, blindspot, bad_teacher) makes an image cost up to two thirds "
        "more. FLOPs count all work; compare.budget=flops makes them the budget.")
    return Text(budget), Text(choice), Text(tests), Text(honest), Text(ends), Text(costs)


def _table(run: Run, board: Board) -> Table:
    spent = leaderboard.spent_metric(run)
    shown = {m.name: m for m in leaderboard.metrics(run)}
    ranked = shown.pop(board.ranked)
    attacks = [m for name in (catalogue.ATTACK_GAP.name, "mia_auc") if (m := shown.pop(name, None))]
    cost = shown.pop(spent)
    several, short = board.name == OVERALL, board.row(SHORT) is not None
    rows = []
    for row in board.rows:
        epochs = "/".join(map(str, dict.fromkeys(row.epochs)))
        rows.append((
            NONE if row.rank is None else Cell(str(row.rank), sort=row.rank),
            Cell(_name(run, row)), *(_traced(run, board, row, m) for m in (ranked, *attacks)),
            Cell(row.verdict) if row.verdict else NONE,
            _traced(run, board, row, cost), _budget(run, row),
            NONE if row.method in _NO_EPOCHS else Cell(epochs, sort=max(row.epochs)),
            *(_traced(run, board, row, m) for m in shown.values()),
            NONE if np.isnan(row.mean_rank) else Cell(f"{row.mean_rank:.1f}", sort=row.mean_rank),
            number(ranked, row.difference), _p_cell(row.p), _p_cell(row.p_holm),
            _p_cell(row.p_first), *((number(ranked, row.short), _p_cell(row.p_short),
                                     _yes(board, row)) if short else ())))
    of = (f"All {len(board.forget_sets)} forget sets, over which each seed is averaged first"
          if several else f"Forget set {board.name}")
    on_short = (
        (f"{ranked.header} − short retraining's", "difference from short retraining within a seed"),
        ("p against it (Holm)", "of the paired t-test against short retraining, two-sided, "
         "corrected for the number of methods"),
        ("beats it", f"whether it is better with a corrected p below {LEVEL}")) if short else ()
    return Table(f"{of}: {ROUGH}.", (
        ("rank", f"by the mean of {ranked.header}; 1 is best; starred methods come last"),
        ("method", "as in results.csv; a star: no trial kept the validation error within "
         "tolerance"),
        *((m.header, m.definition) for m in (ranked, *attacks)),
        ("verdict", "whether D_f is forgotten, from error, attacks and utility together"
         + ("; the worst of the forget sets" if several else "")),
        (cost.header, f"spent: {cost.definition}"),
        ("budget (% of M_R)", "what a method may spend; “over”: it spent more, by at least "
         f"{100 * SLACK:g} %" + (" on some forget set" if several else "")),
        ("epochs", "the budget in epochs" + (", by forget set" if several else "")),
        *((m.header, m.definition) for m in shown.values()),
        ("mean rank", "mean of the ranks in each pair of forget set and seed; equal values share "
         "a rank"),
        (f"{ranked.header} − {BASELINE}'s", f"difference from {BASELINE} within a seed"
         + (", averaged over the forget sets" if several else "") + "; in brackets the number of "
         "seeds"),
        ("p", f"of the paired t-test against {BASELINE}, two-sided"),
        ("p (Holm)", "corrected for the number of methods tested"),
        ("p, first better", "of the paired t-test that the first method is better, two-sided, "
         "times the number of other methods"), *on_short), tuple(rows), key=1,
        name="comparison" if several else f"comparison-{board.name}")


def _budget(run: Run, row: BoardRow) -> Cell:
    if row.method in (*REFERENCES, SHIFTED, CONSTANT):
        return NONE
    allowed = 100 * leaderboard.budget(run)
    return Cell(f"{allowed:g}" + (", over" if row.over else ""), sort=allowed)


def _yes(board: Board, row: BoardRow) -> Cell:
    return NONE if row.short is None else Cell("yes" if board.beats_short(row) else "no")


def _traced(run: Run, board: Board, row: BoardRow, metric: Metric) -> Cell:
    """A value; on the board of one forget set with a link to its stage."""
    values = row.values[metric.name]
    cell = number(metric, values if values.n else None)
    if board.name == OVERALL or row.method in (SHIFTED, CONSTANT):
        return cell
    return trace(run, cell, leaderboard.model(run, row.method, board.name), board.name,
                 metric.name, 100 if metric.percent else 1)


def _name(run: Run, row: BoardRow) -> str:
    if row.method == UNTOUCHED:
        return "M_O, untouched"
    if row.method in _NAMES:
        return _NAMES[row.method]
    if row.method == CEILING:
        return model_title(run, leaderboard.model(run, row.method, run.forget_sets[0]))
    return row.method + ("" if row.within else " *")


def _p_cell(p: float) -> Cell:
    if np.isnan(p):
        return NONE
    return Cell("< 0.001" if p < 0.001 else _P.text(p), sort=p)


def _commands(run: Run, board: Board) -> tuple[Block, ...]:
    if board.name == OVERALL:
        return ()
    lines = [leaderboard.command(run, row.method, board.name) for row in board.rows
             if row.rank is not None]
    return (Text("The command of each row, best first. With the store of this run nothing is "
                 "computed twice; with another --store everything is computed. The file of your "
                 "own method must be where it was."), Code("\n".join(lines)))


def _chosen(run: Run) -> Table:
    t = leaderboard.trials(run)
    rows = []
    for method in leaderboard.methods(run):
        for forget_set in run.forget_sets:
            row = leaderboard.chosen(run, method, forget_set)
            own = t[(t.method == method) & (t.forget_set == forget_set)]
            rows.append((
                Cell(method), Cell(forget_set), Cell(f"{row.trial} of {len(own)}", sort=row.trial),
                _value(row.learning_rate), _option(row), Cell(str(row.epochs), sort=row.epochs),
                _value(own.images.sum(), ",.0f"), _value(own.seconds.sum(), ".1f"),
                Cell(row.note or "–")))
    return Table(
        "The trial chosen for each method and forget set, and the cost of the whole search.",
        (("method", "as in results.csv"), ("forget set", "which D_f"),
         ("trial", "its place among the trials, from weak to strong"),
         ("learning rate", "at its peak; “–”: nothing is trained"),
         ("strength", "the method's own option that was varied with it"),
         ("epochs", "of unlearning"),
         ("search (images)", "images per seed in all trials together, preparation included"),
         ("search (s)", "seconds per seed in all trials together, compilation excluded"),
         ("budget", "a note where the budget could not be used up or had to be exceeded")),
        tuple(rows),
        name="chosen")


def _trials(run: Run) -> Table:
    error = "1 − accuracy" if run.classification else "mean loss"
    trials = leaderboard.trials(run)
    rows = tuple((
        linked(run, Cell(r.method), r.stage), Cell(r.forget_set), Cell(str(r.trial), sort=r.trial),
        _value(r.learning_rate), _option(r), Cell(str(r.epochs), sort=r.epochs),
        _value(r.validation_error, ".4g"), _value(r.limit, ".4g"),
        Cell("yes" if r.within else "no"), Cell("taken" if r.chosen else "–"),
        _value(r.images, ",.0f"), _value(r.seconds, ".1f")) for r in trials.itertuples())
    return Table(
        "Every trial; trials.csv also has FLOPs, the key of the stage and the command.",
        (("method", "as in results.csv"), ("forget set", "which D_f"),
         ("trial", "from weak to strong"), ("learning rate", "at its peak"),
         ("strength", "the method's own option that is varied"), ("epochs", "of unlearning"),
         ("validation error", f"{error} on the half of D_r's validation samples that no method "
          "trains on, mean over seeds; “–”: a member failed"),
         ("limit", "the largest validation error that is allowed: M_O's plus the tolerance"),
         ("within", "whether the validation error is within the limit"),
         ("choice", "“taken”: the strongest within the limit"),
         ("images", "per seed, preparation included"),
         ("time (s)", "per seed, compilation excluded")), rows, name="trials")


def _value(value: float, form: str = "g") -> Cell:
    return Cell(f"{value:{form}}", sort=float(value)) if np.isfinite(value) else NONE


def _option(row) -> Cell:
    if not row.option:
        return NONE
    return Cell(f"{row.option} = {row.strength:g}", sort=float(row.strength))
