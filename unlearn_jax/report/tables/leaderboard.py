"""The leaderboard of a comparison: methods ranked, tested against ft, between M_R and M_O.

The replicates are the seeds. Forget sets of one seed share M_O, so a value is averaged over the
forget sets within a seed before it is tested or gets an interval.
"""

import dataclasses
import functools
import itertools
import shlex

import numpy as np
import pandas as pd

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables import stats
from unlearn_jax.report.tables.files import ReportError
from unlearn_jax.report.tables.gap import share_closed
from unlearn_jax.report.tables.inputs import REFERENCES, ModelKey, Run
from unlearn_jax.report.tables.names import Metric, describe, shown
from unlearn_jax.report.tables.stats import Estimate, estimate, estimate_metric

BASELINE = "ft"  # every method is tested against it
OVERALL = "all"
CEILING, UNTOUCHED = "retrain", "original"


@dataclasses.dataclass(frozen=True)
class BoardRow:
    """A method on a forget set, or on all of them.

    Attributes:
      method: `retrain` is the ceiling, `original` is M_O, untouched.
      epochs: the budget, by forget set.
      values: by metric; over seeds, each seed first averaged over the forget sets.
      rank: 1 is best, equal methods share the better rank, and those whose trials did not keep
        to the tolerance come behind the others; None for the references.
      mean_rank: the mean of its ranks in each (forget set, seed); NaN for the references.
      difference: of the ranked metric from ft's, over seeds, each averaged over the forget sets.
      gain: the same difference from M_O's value; below 0 the method makes M_O worse.
      p, p_holm: of the paired t-test, alone and corrected for the number of methods tested.
      within: whether its trials kept to the tolerance on every forget set.
    """

    method: str
    epochs: tuple[int, ...]
    values: dict[str, Estimate]
    rank: int | None = None
    mean_rank: float = np.nan
    difference: Estimate | None = None
    gain: Estimate | None = None
    p: float = np.nan
    p_holm: float = np.nan
    within: bool = True


@dataclasses.dataclass(frozen=True)
class Board:
    """The rows of a forget set, or of all of them: ceiling, methods by rank, M_O."""

    forget_sets: tuple[str, ...]
    name: str
    rows: tuple[BoardRow, ...]

    @property
    def title(self) -> str:
        return "All forget sets" if self.name == OVERALL else f"Leaderboard of {self.name}"


@functools.lru_cache(maxsize=1)
def boards(run: Run) -> tuple[Board, ...]:
    """One board for each forget set; with several sets, first one for all of them together.

    Args:
      run: of a comparison.
    """
    names = run.forget_sets
    several = [_board(run, names, OVERALL)] if len(names) > 1 else []
    return (*several, *(_board(run, (name,), name) for name in names))


def metrics(run: Run) -> tuple[Metric, ...]:
    """The columns, from the one that ranks to what it cost."""
    names = catalogue.columns(catalogue.LEADERBOARD, run.classification, run.alpha)
    gap = catalogue.GAP_CLOSED
    return tuple(shown(run, gap, n) if n == gap.name else describe(run, n) for n in names)


def ranked_by(run: Run) -> str:
    """The metric that decides the ranks."""
    return f"{run.run['config']['compare']['rank_by']}@{run.alpha:g}"


def trials(run: Run) -> pd.DataFrame:
    """trials.csv, which every comparison has.

    Raises:
      ReportError: it is missing.
    """
    if run.trials is None:
        raise ReportError(f"{run.workdir / 'trials.csv'} is missing: is {run.workdir} the work "
                          "directory of a comparison?")
    return run.trials


def methods(run: Run) -> list[str]:
    """Those compared, in the order of the config."""
    return trials(run).method.unique().tolist()


def chosen(run: Run, method: str, forget_set: str) -> pd.Series:
    """The row of the chosen trial in trials.csv."""
    t = trials(run)
    return t[(t.method == method) & (t.forget_set == forget_set) & t.chosen].iloc[0]


def command(run: Run, method: str, forget_set: str) -> str:
    """The command that repeats the chosen trial, with the store of the comparison."""
    return chosen(run, method, forget_set).command + _store(run)


def _store(run: Run) -> str:
    """The flag --store of the run's own command, after a space; '' for the default store."""
    try:
        words = shlex.split(run.run["command"])
    except ValueError as e:
        raise ReportError(f"run.json: the field 'command' is no command line: {e}") from None
    found = ""
    for word, after in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in ("--store", "-store"):
            found = f" {shlex.quote(f'--store={value if equals else after}')}"
    return found


def model(run: Run, method: str, forget_set: str) -> ModelKey:
    """The population of a method on a forget set, in the trial that was chosen."""
    if method in REFERENCES:
        return run.reference(forget_set, method)
    return ModelKey(method, int(chosen(run, method, forget_set).epochs))


def by_seed(run: Run, method: str, forget_set: str, metric: str) -> pd.Series:
    """A metric's values by seed."""
    evaluated = model(run, method, forget_set)
    if metric == catalogue.GAP_CLOSED.name:
        return share_closed(run, forget_set, evaluated)
    return run.values(evaluated, forget_set, measured(method, metric))


def measured(method: str, metric: str) -> str:
    """The metric in results.csv: for M_R, Forgetting and F are read from the ceiling."""
    record = catalogue.find(metric)
    if method != CEILING or record is None or not record.for_reference:
        return metric
    return record.for_reference.format(**catalogue.parameters(record, metric))


def _board(run: Run, forget_sets: tuple[str, ...], name: str) -> Board:
    compared, metric = methods(run), ranked_by(run)
    blocks = pd.DataFrame({m: _blocks(run, m, forget_sets, metric) for m in compared})
    seeds = pd.DataFrame({m: _by_seed(run, m, forget_sets, metric) for m in compared})
    within = [all(chosen(run, m, fs).within for fs in forget_sets) for m in compared]
    means = [estimate(seeds[m]).mean for m in compared]
    # A method that exceeded the tolerance is ranked behind all that kept within it.
    merits = [(kept, mean if np.isfinite(mean) else -np.inf) for kept, mean in zip(within, means)]
    places = [1 + sum(other > merit for other in merits) for merit in merits]
    mean_ranks = np.mean([stats.ranks(block) for block in blocks.to_numpy()], axis=0)
    differences = [seeds[m] - seeds[BASELINE] if BASELINE in compared and m != BASELINE
                   else pd.Series(dtype=float) for m in compared]
    untouched = _by_seed(run, UNTOUCHED, forget_sets, metric)
    ps = [stats.paired_p(d) for d in differences]
    rows = [BoardRow(m, _epochs(run, m, forget_sets), _values(run, m, forget_sets), place,
                     mean_rank, estimate(d) if len(d) else None, estimate(seeds[m] - untouched), p,
                     corrected, kept)
            for m, place, mean_rank, d, p, corrected, kept in zip(
                compared, places, mean_ranks, differences, ps, stats.holm(ps), within)]
    ceiling, original = (BoardRow(m, _epochs(run, m, forget_sets), _values(run, m, forget_sets))
                         for m in (CEILING, UNTOUCHED))
    ordered = [row for _, row in sorted(zip(places, rows), key=lambda pair: pair[0])]
    return Board(forget_sets, name, (ceiling, *ordered, original))


def _epochs(run: Run, method: str, forget_sets: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(model(run, method, fs).epochs for fs in forget_sets)


def _blocks(run: Run, method: str, forget_sets: tuple[str, ...], metric: str) -> pd.Series:
    """The values by (forget set, seed)."""
    return pd.concat({fs: by_seed(run, method, fs, metric).reindex(list(run.seeds))
                      for fs in forget_sets})


def _values(run: Run, method: str, forget_sets: tuple[str, ...]) -> dict[str, Estimate]:
    return {m.name: _over_seeds(run, method, forget_sets, m.name) for m in metrics(run)}


def _over_seeds(run: Run, method: str, forget_sets: tuple[str, ...], metric: str) -> Estimate:
    """Over seeds, the replicates."""
    return estimate_metric(measured(method, metric), _by_seed(run, method, forget_sets, metric))


def _by_seed(run: Run, method: str, forget_sets: tuple[str, ...], metric: str) -> pd.Series:
    """Values by seed, averaged over the forget sets that have any; a failed one fails its seed."""
    found = [by_seed(run, method, fs, metric) for fs in forget_sets]
    found = [values for values in found if len(values)]
    if not found:
        return pd.Series(dtype=float)
    return functools.reduce(lambda a, b: a + b, found) / len(found)


def table(run: Run, found: tuple[Board, ...]) -> pd.DataFrame:
    """leaderboard.csv: one row per forget set and method.

    Returns:
      Columns forget_set, rank, mean_rank, method, epochs, then each metric with its ends of the
      95 % interval, n, the difference from ft with its ends, p, p_holm, pairs, and the settings of
      the chosen trial (empty in the rows of all forget sets together, and of the references).
    """
    rows = []
    for board in found:
        for row in board.rows:
            entry = {"forget_set": board.name, "rank": row.rank, "mean_rank": row.mean_rank,
                     "method": row.method, "epochs": " ".join(map(str, dict.fromkeys(row.epochs)))}
            for name, e in row.values.items():
                entry |= {name: e.mean, f"{name}_ci95_low": e.low, f"{name}_ci95_high": e.high}
            d = row.difference or estimate([])
            entry |= {"n": row.values["utility"].n, f"{ranked_by(run)}_minus_{BASELINE}": d.mean,
                      "difference_ci95_low": d.low, "difference_ci95_high": d.high, "p": row.p,
                      "p_holm": row.p_holm, "pairs": d.n, "within": row.within}
            if row.rank is not None and board.name != OVERALL:
                picked = chosen(run, row.method, board.name)
                entry |= {c: picked[c] for c in ("learning_rate", "option", "strength", "note",
                                                 "stage")}
                entry["command"] = command(run, row.method, board.name)
            rows.append(entry)
    return pd.DataFrame(rows).astype({"rank": "Int64"})
