"""The leaderboard of a comparison: methods ranked, tested, and held to rows without a rank.

The replicates are the seeds. Forget sets of one seed share M_O, so a value is averaged over the
forget sets within a seed before it is tested or gets an interval.

Rows without a rank are there for comparison: M_R against the M_R of another seed, short retraining,
M_O, and two answers that forget nothing (baselines.py).
"""

import dataclasses
import functools
import itertools
import shlex

import numpy as np
import pandas as pd

from unlearn_jax.errors import ReportError
from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables import stats
from unlearn_jax.report.tables.baselines import CONSTANT, SHIFTED, with_baselines
from unlearn_jax.report.tables.gap import share_closed
from unlearn_jax.report.tables.inputs import REFERENCES, SHORT, ModelKey, Run
from unlearn_jax.report.tables.judgement import (
    ATTACKS,
    DAMAGED,
    FORGOTTEN,
    LEVEL,
    NOT_FORGOTTEN,
    UNDECIDED,
    judge,
)
from unlearn_jax.report.tables.names import Metric, describe, shown
from unlearn_jax.report.tables.stats import Estimate, estimate, estimate_metric, estimate_pairs

BASELINE = "ft"  # every method is tested against it
OVERALL = "all"
CEILING, UNTOUCHED = "retrain", "original"
SLACK = 0.05  # share of the budget; whole epochs rarely fit exactly
SPENT = {"images": "images_vs_retrain", "wall": "wall_vs_retrain", "flops": "flops_vs_retrain"}
_KEPT = 1024  # pairs of method and forget set whose trial and verdict are not looked up again
_WORST = (NOT_FORGOTTEN, DAMAGED, UNDECIDED, FORGOTTEN)


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
      verdict: the word of `judgement.WORDS`; over several forget sets the worst; '' for M_R.
      over: whether it spent more than the budget on some forget set, by more than `SLACK`.
      p_first: of the paired t-test that the first method is no better, times the number of other
        methods; NaN for the first one and for references.
      short: difference of the ranked metric from that of short retraining; None without it.
      p_short: of its paired t-test, corrected after Holm for the number of methods.
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
    verdict: str = ""
    over: bool = False
    p_first: float = np.nan
    short: Estimate | None = None
    p_short: float = np.nan


@dataclasses.dataclass(frozen=True)
class Board:
    """The rows of a forget set, or of all: ceiling, methods by rank, further references, M_O.

    Attributes:
      ranked: the metric that ranks.
      sign: 1 where larger values of it are better, −1 where smaller ones are.
    """

    forget_sets: tuple[str, ...]
    name: str
    rows: tuple[BoardRow, ...]
    ranked: str
    sign: int

    @property
    def contenders(self) -> tuple[BoardRow, ...]:
        """The methods by rank."""
        return tuple(row for row in self.rows if row.rank is not None)

    def row(self, method: str) -> BoardRow | None:
        return next((row for row in self.rows if row.method == method), None)

    def beats_short(self, row: BoardRow) -> bool:
        """Whether it is established that a method is better than short retraining."""
        return row.short is not None and row.short.mean * self.sign > 0 and row.p_short < LEVEL

    @property
    def title(self) -> str:
        return "All forget sets" if self.name == OVERALL else f"Leaderboard of {self.name}"


@functools.lru_cache(maxsize=1)
def boards(run: Run) -> tuple[Board, ...]:
    """One board for each forget set; with several sets, first one for all of them together.

    Args:
      run: of a comparison.
    """
    names, run = run.forget_sets, with_baselines(run)
    several = [_board(run, names, OVERALL)] if len(names) > 1 else []
    return (*several, *(_board(run, (name,), name) for name in names))


def metrics(run: Run) -> tuple[Metric, ...]:
    """The columns: the metric that ranks, then attacks if any were run, the rest, and the cost."""
    names = catalogue.columns(catalogue.LEADERBOARD, run.classification, run.alpha)
    if not run.results.metric.isin(ATTACKS).any():
        names = [n for n in names if n not in (catalogue.ATTACK_GAP.name, "mia_auc")]
    first = ranked_by(run)
    return tuple(metric(run, n) for n in dict.fromkeys([first, *names]))


def metric(run: Run, name: str) -> Metric:
    """How a column is shown; two of them are not in results.csv."""
    own = {r.name: r for r in (catalogue.GAP_CLOSED, catalogue.ATTACK_GAP)}
    return shown(run, own[name], name) if name in own else describe(run, name)


def ranked_by(run: Run) -> str:
    """The metric that decides the ranks."""
    by = run.run["config"]["compare"]["rank_by"]
    return catalogue.ATTACK_GAP.name if by == "attack" else f"{by}@{run.alpha:g}"


def spent_metric(run: Run) -> str:
    """The metric that counts what a method spent, in the unit of the budget."""
    return SPENT[run.run["config"]["compare"]["budget"]]


def budget(run: Run) -> float:
    """What a method may spend, as a share of what retraining took."""
    return float(run.run["config"]["compare"]["fraction"])


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


@functools.lru_cache(maxsize=_KEPT)
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
    if method in (CONSTANT, SHIFTED):
        return ModelKey(method, 0)
    if method == SHORT:
        return run.only(forget_set, SHORT) or ModelKey(SHORT, 0)
    return ModelKey(method, int(chosen(run, method, forget_set).epochs))


def by_seed(run: Run, method: str, forget_set: str, metric: str) -> pd.Series:
    """A metric's values by seed."""
    evaluated = model(run, method, forget_set)
    if metric == catalogue.GAP_CLOSED.name:
        return share_closed(run, forget_set, evaluated)
    if metric == catalogue.ATTACK_GAP.name:
        return attack_gap(run, forget_set, evaluated)
    return run.values(evaluated, forget_set, measured(method, metric))


def attack_gap(run: Run, forget_set: str, evaluated: ModelKey) -> pd.Series:
    """How far the success of attacks is from that on M_R, by seed; see `catalogue.ATTACK_GAP`.

    An attack that was not run on the model is left out.
    """
    mine, theirs = (pd.DataFrame({a: values for a in ATTACKS
                                  if len(values := run.values(m, forget_set, a))})
                    for m in (evaluated, run.reference(forget_set, CEILING)))
    if evaluated.method != CEILING:
        shared = [a for a in mine if a in theirs]
        if not shared:
            return pd.Series(dtype=float)
        return (mine - theirs)[shared].abs().max(axis=1, skipna=False).astype(float)
    others = {seed: [(theirs.loc[seed] - theirs.loc[o]).abs().max(skipna=False)
                     for o in theirs.index if o != seed] for seed in theirs.index}
    return pd.Series({seed: np.mean([x for x in found if np.isfinite(x)])
                      if np.isfinite(found).any() else np.nan
                      for seed, found in others.items()}, dtype=float)


def measured(method: str, metric: str) -> str:
    """The metric in results.csv: for M_R, Forgetting and F are read from the ceiling."""
    record = catalogue.find(metric)
    if method != CEILING or record is None or not record.for_reference:
        return metric
    return record.for_reference.format(**catalogue.parameters(record, metric))


def _board(run: Run, forget_sets: tuple[str, ...], name: str) -> Board:
    compared, metric = methods(run), ranked_by(run)
    sign = -1 if metric == catalogue.ATTACK_GAP.name else 1
    blocks = pd.DataFrame({m: _blocks(run, m, forget_sets, metric) for m in compared})
    seeds = pd.DataFrame({m: _by_seed(run, m, forget_sets, metric) for m in compared})
    within = [all(chosen(run, m, fs).within for fs in forget_sets) for m in compared]
    means = [sign * estimate(seeds[m]).mean for m in compared]
    # A method that exceeded the tolerance is ranked behind all that kept within it.
    merits = [(kept, mean if np.isfinite(mean) else -np.inf) for kept, mean in zip(within, means)]
    places = [1 + sum(other > merit for other in merits) for merit in merits]
    mean_ranks = np.mean([stats.ranks(sign * block) for block in blocks.to_numpy()], axis=0)
    differences = [seeds[m] - seeds[BASELINE] if BASELINE in compared and m != BASELINE
                   else pd.Series(dtype=float) for m in compared]
    untouched = _by_seed(run, UNTOUCHED, forget_sets, metric)
    short = _by_seed(run, SHORT, forget_sets, metric)
    from_short = [seeds[m] - short for m in compared] if len(short) else []
    first = compared[places.index(1)]
    behind = [np.nan if m == first else _p_above(sign * (seeds[first] - seeds[m]))
              for m in compared]
    ps = [stats.paired_p(d) for d in differences]
    corrected = stats.holm(ps)
    p_short = stats.holm([stats.paired_p(d) for d in from_short])
    rows = [dataclasses.replace(
        _row(run, m, forget_sets), rank=places[i], mean_rank=mean_ranks[i],
        difference=estimate(differences[i]) if len(differences[i]) else None,
        gain=estimate(sign * (seeds[m] - untouched)), p=ps[i], p_holm=corrected[i],
        within=within[i], p_first=min(1.0, (len(compared) - 1) * behind[i])
        if np.isfinite(behind[i]) else np.nan,
        short=estimate(from_short[i]) if from_short else None,
        p_short=p_short[i] if from_short else np.nan) for i, m in enumerate(compared)]
    ordered = [row for _, row in sorted(zip(places, rows), key=lambda pair: pair[0])]
    honest = [_row(run, m, forget_sets) for m in (SHORT, SHIFTED, CONSTANT)
              if all(m in run.rank and run.only(fs, m) for fs in forget_sets)]
    ceiling, original = (_row(run, m, forget_sets) for m in (CEILING, UNTOUCHED))
    return Board(forget_sets, name, (ceiling, *ordered, *honest, original), metric, sign)


def _row(run: Run, method: str, forget_sets: tuple[str, ...]) -> BoardRow:
    """A row without rank and tests."""
    return BoardRow(method, _epochs(run, method, forget_sets), _values(run, method, forget_sets),
                    verdict=_verdict(run, method, forget_sets),
                    over=any(estimate(by_seed(run, method, fs, spent_metric(run))).mean
                             > budget(run) * (1 + SLACK) for fs in forget_sets
                             if method not in REFERENCES))


def _verdict(run: Run, method: str, forget_sets: tuple[str, ...]) -> str:
    if method == CEILING:
        return ""
    return min((_word(run, method, fs) for fs in forget_sets), key=_WORST.index)


@functools.lru_cache(maxsize=_KEPT)
def _word(run: Run, method: str, forget_set: str) -> str:
    return judge(run, forget_set, model(run, method, forget_set)).word


def _p_above(differences: pd.Series) -> float:
    """Two-sided p of the paired t-test; 1 for a mean that is not above 0."""
    p = stats.paired_p(differences)
    return p if np.isnan(p) or estimate(differences).mean > 0 else 1.0


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
    values = _by_seed(run, method, forget_sets, metric)
    if method == CEILING and metric == catalogue.ATTACK_GAP.name:
        return estimate_pairs(values)
    return estimate_metric(measured(method, metric), values)


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
      95 % interval, n, the difference from ft with its ends, p, p_holm, pairs, within; the verdict,
      what was spent, the budget (shares of what retraining took) and whether the budget was
      exceeded; p_first; the difference from short retraining with its ends, its corrected p and
      whether the method beats it; and the settings of the chosen trial (empty in the rows of all
      forget sets together, and of the references).
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
                      "p_holm": row.p_holm, "pairs": d.n, "within": row.within,
                      "verdict": row.verdict, "spent": row.values[spent_metric(run)].mean,
                      "budget": budget(run) if row.method not in REFERENCES else np.nan,
                      "over_budget": row.over, "p_first": row.p_first}
            if board.row(SHORT):
                s = row.short or estimate([])
                entry |= {f"{ranked_by(run)}_minus_{SHORT}": s.mean, "short_ci95_low": s.low,
                          "short_ci95_high": s.high, "p_short_holm": row.p_short,
                          f"beats_{SHORT}": "" if row.rank is None else board.beats_short(row)}
            if row.rank is not None and board.name != OVERALL:
                picked = chosen(run, row.method, board.name)
                entry |= {c: picked[c] for c in ("learning_rate", "option", "strength", "note",
                                                 "stage")}
                entry["command"] = command(run, row.method, board.name)
            rows.append(entry)
    return pd.DataFrame(rows).astype({"rank": "Int64"})
