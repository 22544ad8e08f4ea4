"""The leaderboard in the report: its tables, its pictures, and the commands that repeat it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from unlearn_jax.report.figures.style import INK, QUIET, canvas, look, plain
from unlearn_jax.report.render.document import Block, Cell, Code, Figure, Section, Table, Text
from unlearn_jax.report.sections import verdict
from unlearn_jax.report.sections.headline import NONE, ROUGH, number
from unlearn_jax.report.tables import leaderboard
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.report.tables.leaderboard import (
    BASELINE,
    CEILING,
    OVERALL,
    UNTOUCHED,
    Board,
    BoardRow,
)
from unlearn_jax.report.tables.names import Metric, describe, model_title
from unlearn_jax.report.tables.origins import linked, trace
from unlearn_jax.report.tables.stats import Estimate, estimate, pareto

PREFIX = "pareto-"  # of the figures' files
_COSTS = ("images_vs_retrain", "wall_vs_retrain", "flops_vs_retrain")
_P = Metric(name="p", header="p", definition="p")


def section(run: Run, figures: list[Figure]) -> Section:
    """The leaderboard of a comparison.

    Args:
      run: with trials.
      figures: those of `draw`.
    """
    found = leaderboard.boards(run)
    inner = [Section(_title(board), (
        _table(run, board), *(f for f in figures if f.file in _files(board)),
        *_commands(run, board))) for board in found]
    return Section("Leaderboard", (Text(_outcome(run, found[0]), strong=True),
                                   *_explanation(run)), (
        *inner, Section("What was chosen", (_chosen(run),)),
        Section("All trials", (_trials(run),))))


def _title(board: Board) -> str:
    return "All forget sets" if board.name == OVERALL else f"Leaderboard of {board.name}"


def _files(board: Board) -> tuple[str, str]:
    return f"{PREFIX}cost-{board.name}.png", f"{PREFIX}utility-{board.name}.png"


def _outcome(run: Run, board: Board) -> str:
    """In words: whether there is something to forget, and who does worse than doing nothing."""
    found = verdict.sets_with_gap(run)
    missing = [name for name in run.forget_sets if name not in found]
    gaps = []
    if found:
        gaps.append(f"That M_R errs more on D_f than M_O is established on {', '.join(found)}.")
    if missing:
        gaps.append(f"It is not established on {', '.join(missing)}" if found else
                    f"On no forget set ({', '.join(missing)}) is it established that M_R errs more "
                    "on D_f than M_O")
        gaps[-1] += ": there these numbers cannot show whether anything was forgotten."
    metric = describe(run, leaderboard.ranked_by(run))
    worse = [r for r in board.rows if r.gain is not None and r.gain.mean < 0]
    names = "; ".join(f"{r.method} by {metric.text(-r.gain.mean)}"
                      f"{verdict.interval(metric, _negative(r.gain))}" for r in worse)
    over = ", averaged over the forget sets" if len(board.forget_sets) > 1 else ""
    who = "every method lies" if len(worse) == len(board.rows) - 2 else "these methods lie"
    below = (f"In {metric.header}{over}, {who} below M_O, untouched: {names}." if worse else
             f"In {metric.header}{over}, no method lies below M_O, untouched.")
    return " ".join([*gaps, below])


def _negative(e: Estimate) -> Estimate:
    return dataclasses.replace(e, mean=-e.mean, low=-e.high, high=-e.low)


def _explanation(run: Run) -> tuple[Block, ...]:
    c = run.run["config"]["compare"]
    unit = {"images": "images", "wall": "seconds", "flops": "floating-point operations"}
    per_method = run.trials.groupby(["method", "forget_set"]).size()
    fewer = sorted({m for (m, _), n in per_method.items() if n < c["trials"]})
    budget = (
        f"Each method may spend {100 * c['fraction']:g} % of what retraining took, counted in "
        f"{unit[c['budget']]}, its preparation included, as nearly as whole epochs allow. Each has "
        f"up to {c['trials']} trials, from weak to strong, with all seeds"
        + (f" ({', '.join(fewer)}: fewer, as there is less to vary)" if fewer else "") + ".")
    error = "accuracy" if run.classification else "loss"
    change = "falls" if run.classification else "rises"
    choice = (
        "Taken is, for each forget set, the strongest trial whose "
        f"{error} on half of the validation samples of D_r, averaged over seeds, {change} by at "
        f"most {100 * c['tolerance']:g} % of M_O's; where there is none, the one of lowest "
        "validation error, marked with a star and ranked behind. No method trains on that half; "
        "one that trains on validation samples (reset) has the other. No forget or test sample "
        "takes part in the choice.")
    tests = (
        f"Ranks are by {leaderboard.ranked_by(run)}. Tests compare it with {BASELINE}'s in a "
        f"paired t-test over seeds (n = {len(run.seeds)}), each averaged over the forget sets "
        "first, as those of a seed share M_O; corrected by Holm for the number of methods. The "
        "test takes the differences for independent and normal.")
    if BASELINE not in leaderboard.methods(run):
        tests = (f"Ranks are by {leaderboard.ranked_by(run)}. Nothing is tested, as {BASELINE} is "
                 "not among the methods.")
    ends = (
        "The first row is the ceiling, M_R: its Forgetting, across seeds or not, and its F are "
        "those against the M_Rs of other seeds. Across seeds no method can be expected above it. "
        "Against the M_R of its own seed, which grew from the same initial weights, a model can: "
        "that Forgetting, and F made of it, compare methods with each other. The last row is "
        "M_O, untouched. F and utility credit what M_O still knows of the forget set where "
        "test samples are like it, so that they can exceed M_R's."
        + verdict.on_start(run, *(leaderboard.model(run, m, fs) for m in leaderboard.methods(run)
                                  for fs in run.forget_sets)))
    costs = (
        "Images count the samples that a method's passes, preparation included, show to the model "
        "that learns. What else a step computes is not in them: a teacher's prediction of the same "
        "image (scrub, reset, blindspot, bad_teacher) makes an image cost up to two thirds more. "
        "FLOPs count all of it; compare.budget=flops makes them the budget.")
    return Text(budget), Text(choice), Text(tests), Text(ends), Text(costs)


def _table(run: Run, board: Board) -> Table:
    metrics = leaderboard.metrics(run)
    ranked = describe(run, leaderboard.ranked_by(run))
    several = board.name == OVERALL
    rows = []
    for row in board.rows:
        epochs = "/".join(map(str, dict.fromkeys(row.epochs)))
        rows.append((
            NONE if row.rank is None else Cell(str(row.rank), sort=row.rank),
            Cell(_name(run, row)),
            NONE if row.method == UNTOUCHED else Cell(epochs, sort=max(row.epochs)),
            *(_traced(run, board, row, m) for m in metrics),
            NONE if np.isnan(row.mean_rank) else Cell(f"{row.mean_rank:.1f}", sort=row.mean_rank),
            number(ranked, row.difference), _p_cell(row.p), _p_cell(row.p_holm)))
    of = (f"All {len(board.forget_sets)} forget sets, over which each seed is averaged first"
          if several else f"Forget set {board.name}")
    return Table(f"{of}: {ROUGH}.", (
        ("rank", f"by the mean of {ranked.header}; 1 is best; starred methods come last"),
        ("method", "as in results.csv; a star: no trial kept the validation error within "
         "tolerance"),
        ("epochs", "what the budget came to" + (", by forget set" if several else "")),
        *((m.header, m.definition) for m in metrics),
        ("mean rank", "mean of the ranks in each pair of forget set and seed; equal values share"),
        (f"{ranked.header} − {BASELINE}'s", f"difference from {BASELINE} within a seed"
         + (", averaged over the forget sets" if several else "") + "; in brackets the number of "
         "seeds"),
        ("p", f"of the paired t-test against {BASELINE}, two-sided"),
        ("p (Holm)", "corrected for the number of methods tested")), tuple(rows), key=1)


def _traced(run: Run, board: Board, row: BoardRow, metric: Metric) -> Cell:
    """A value, with its stage where it is of one forget set and a row of results.csv."""
    values = row.values[metric.name]
    cell = number(metric, values if values.n else None)
    if board.name == OVERALL:
        return cell
    return trace(run, cell, leaderboard.model(run, row.method, board.name), board.name,
                 metric.name, 100 if metric.percent else 1)


def _name(run: Run, row: BoardRow) -> str:
    if row.method == UNTOUCHED:
        return "M_O, untouched"
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
    return (Text("Each row again, best first; with the store of this run nothing is computed "
                 "twice, with another --store all of it is. A file of a method of one's own must "
                 "be where it was."), Code("\n".join(lines)))


def _chosen(run: Run) -> Table:
    t = run.trials
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
        "The trial taken of each method and forget set, and what its whole search took.",
        (("method", "as in results.csv"), ("forget set", "which D_f"),
         ("trial", "its place among the trials, from weak to strong"),
         ("learning rate", "at its peak; “–”: nothing is trained"),
         ("strength", "the method's own option that was searched with it"),
         ("epochs", "of unlearning"),
         ("search (images)", "images per seed in all trials together, preparation included"),
         ("search (s)", "seconds per seed in all trials together, compilation excluded"),
         ("budget", "where it could not be used or had to be exceeded")), tuple(rows))


def _trials(run: Run) -> Table:
    error = "1 − accuracy" if run.classification else "mean loss"
    rows = tuple((
        linked(run, Cell(r.method), r.stage), Cell(r.forget_set), Cell(str(r.trial), sort=r.trial),
        _value(r.learning_rate), _option(r), Cell(str(r.epochs), sort=r.epochs),
        _value(r.validation_error, ".4g"), _value(r.limit, ".4g"),
        Cell("yes" if r.within else "no"), Cell("taken" if r.chosen else "–"),
        _value(r.images, ",.0f"), _value(r.seconds, ".1f")) for r in run.trials.itertuples())
    return Table(
        "Every trial; trials.csv also has FLOPs, the key of the stage and the command.",
        (("method", "as in results.csv"), ("forget set", "which D_f"),
         ("trial", "from weak to strong"), ("learning rate", "at its peak"),
         ("strength", "the method's own option that is searched"), ("epochs", "of unlearning"),
         ("validation error", f"{error} on the half of D_r's validation samples that no method "
          "trains on, mean over seeds; “–”: a member failed"),
         ("limit", "the largest that is allowed: M_O's and the tolerance"),
         ("within", "whether it keeps to the limit"), ("choice", "the strongest within the limit"),
         ("images", "per seed, preparation included"),
         ("time (s)", "per seed, compilation excluded")), rows)


def _value(value: float, form: str = "g") -> Cell:
    return Cell(f"{value:{form}}", sort=float(value)) if np.isfinite(value) else NONE


def _option(row) -> Cell:
    if not row.option:
        return NONE
    return Cell(f"{row.option} = {row.strength:g}", sort=float(row.strength))


def draw(run: Run, most_sets: int) -> Iterator[tuple[str, Canvas, str, str]]:
    """(file name, figure, alternative text, caption) of the pictures of the leaderboard."""
    for board in leaderboard.boards(run)[:most_sets + 1]:
        cost, utility = (file.removesuffix(".png") for file in _files(board))
        yield cost, *_draw_cost(run, board)
        yield utility, *_draw_utility(run, board)


def _draw_cost(run: Run, board: Board) -> tuple[Canvas, str, str]:
    """F against each kind of cost."""
    metric = describe(run, f"F@{run.alpha:g}")
    figure, axes = canvas(8.4, 4.6, 1, len(_COSTS), sharey=True)
    for ax, name in zip(axes[0], _COSTS):
        _points(run, ax, board, name, metric.name)
        _line(ax, _mean(board, CEILING, metric.name), "--", "ceiling: $M_\\mathrm{R}$")
        _line(ax, _mean(board, UNTOUCHED, metric.name), ":", "$M_\\mathrm{O}$, untouched")
        ax.set_xlabel(plain(describe(run, name).header.replace("M_R", "retraining")))
        ax.margins(x=0.15)
        ax.set_xlim(left=0)
    axes[0, 0].set_ylabel(metric.header)
    _shared_legend(axes[0, 0])
    return figure, f"F against cost, {_title(board).lower()}", (
        f"{metric.header} against what a method cost, in % of retraining: mean over seeds with "
        "95 % intervals, numbered by rank. The line joins the methods that no other beats at once "
        "in cost and in F.")


def _draw_utility(run: Run, board: Board) -> tuple[Canvas, str, str]:
    """Forgetting against utility."""
    metric = describe(run, f"forgetting@{run.alpha:g}")
    figure, axes = canvas(8.4, 5.4)
    ax = axes[0, 0]
    _points(run, ax, board, "utility", metric.name, cheap=False)
    for method in (CEILING, UNTOUCHED):
        row = next(r for r in board.rows if r.method == method)
        style = look(run, leaderboard.model(run, method, board.forget_sets[0]))
        x, y = row.values["utility"].mean, row.values[metric.name].mean
        if np.isfinite([x, y]).all():
            ax.plot(x, y, style.marker, color=style.color, ms=8, ls="", zorder=4, label=(
                "ceiling: $M_\\mathrm{R}$" if method == CEILING else "$M_\\mathrm{O}$, untouched"))
    ax.set_xlabel("utility (1: as good on the test set as $M_\\mathrm{R}$)")
    ax.set_ylabel(f"{metric.header} (1: errs as $M_\\mathrm{{R}}$)")
    _shared_legend(ax)
    return figure, f"Forgetting against utility, {_title(board).lower()}", (
        f"{metric.header} against utility: mean over seeds with 95 % intervals, numbered by rank. "
        "The line joins the methods that no other beats in both.")


def _points(run: Run, ax: Axes, board: Board, x_name: str, y_name: str, cheap: bool = True) -> None:
    """One point per method, and the front; `cheap`: less of x is better."""
    rows = [r for r in board.rows if r.rank is not None]
    scale = 100 if x_name in _COSTS else 1
    x = np.array([r.values[x_name].mean for r in rows]) * scale
    y = np.array([r.values[y_name].mean for r in rows])
    for row, at, height in zip(rows, x, y):
        if not np.isfinite([at, height]).all():
            continue
        style = look(run, leaderboard.model(run, row.method, board.forget_sets[0]))
        half_x, half_y = row.values[x_name].half * scale, row.values[y_name].half
        ax.errorbar(at, height, np.nan_to_num(half_y), np.nan_to_num(half_x), fmt=style.marker,
                    color=style.color, ms=5.5, elinewidth=0.8, alpha=0.9,
                    label=plain(f"{row.rank} {row.method}{'' if row.within else ' *'}"))
        ax.annotate(str(row.rank), (at, height), xytext=(4, 4), textcoords="offset points",
                    fontsize=7.5, color=INK)
    front = pareto(x if cheap else -x, y)
    order = np.argsort(x[front])
    ax.plot(x[front][order], y[front][order], "-", color=QUIET, lw=1, zorder=1)


def _line(ax: Axes, height: float, line: str, text: str) -> None:
    if np.isfinite(height):
        ax.axhline(height, color=INK, lw=1, ls=line, zorder=1, label=text)


def _mean(board: Board, method: str, metric: str) -> float:
    row = next(r for r in board.rows if r.method == method)
    return row.values.get(metric, estimate([])).mean


def _shared_legend(ax: Axes) -> None:
    """Below the figure, without the bars of the intervals."""
    handles, names = ax.get_legend_handles_labels()
    if handles:
        ax.figure.legend([h[0] if hasattr(h, "has_yerr") else h for h in handles], names,
                         loc="outside lower center", ncols=6)
