"""Means over pairs of seeds, computed again where runs with different seeds are merged.

A run has the pairs of its own seeds only. The interval of a mean over pairs needs values over all
pairs of all seeds (`stats.estimate_pairs`), so the values of several runs cannot be put together.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from unlearn_jax.metrics import catalogue, pairs
from unlearn_jax.report.tables.predictions import Prediction, read_prediction

_MODEL = ["method", "forget_set", "epochs"]


def of_whole_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, without means over pairs from runs that lack a seed of the model.

    Args:
      rows: results.csv of several runs, one after the other; the column `run` names the run of
        a row.
    """
    single = rows[rows.seed.astype(int) >= 0]
    seeds = single.groupby(_MODEL).seed.nunique()
    own = single.groupby([*_MODEL, "run"]).seed.nunique()
    short = [tuple(key) for key in zip(*(rows[c] for c in (*_MODEL, "run")))]
    lacks = np.array([own.get(key, 0) < seeds.get(key[:-1], 0) for key in short], bool)
    return rows[~(rows.metric.map(catalogue.over_pairs).astype(bool) & lacks)]


def over_all_pairs(rows: pd.DataFrame, workdir: Path, classification: bool,
                   from_seeds: Mapping[str, int]) -> pd.DataFrame:
    """results.csv with the means over pairs that `of_whole_runs` left out, from predictions.

    If runs gave M_R different budgets, no single M_R exists, and nothing is added.

    Args:
      rows: as text, each once, with the column `run`, which is dropped.
      workdir: holds `predictions/`.
      classification: whether outputs are logits.
      from_seeds: the seed whose M_O all members of a stage started from, by the stage's key.

    Raises:
      ReportError: predictions are missing or malformed.
    """
    added = []
    for (method, forget_set, epochs), mine in rows.groupby(_MODEL, sort=False):
        of_set = rows[rows.forget_set == forget_set]
        budgets = of_set.epochs[of_set.method == "retrain"].unique()
        if (method == "median" or mine.metric.map(catalogue.over_pairs).any()
                or mine.run.nunique() < 2 or len(budgets) != 1):
            continue
        own = _on_forget(workdir, method, forget_set, epochs, classification)
        ideal = _on_forget(workdir, "retrain", forget_set, budgets[0], classification)
        seeds = own.seeds.tolist()
        if len(seeds) < 2:
            continue
        error = "accuracy_forget" if classification else "mae_forget"
        models = mine[mine.metric == error]
        stages = dict(zip(models.seed.astype(int), models.get("stage", models.method)))
        starts = [from_seeds.get(stages[seed], seed) for seed in seeds]
        started = np.array([seeds.index(seed) if seed in seeds else -1 for seed in starts])
        theirs = ideal.errors[[ideal.seeds.tolist().index(seed) for seed in seeds]]
        name = "ceiling" if method == "retrain" else "forgetting_across"
        alphas = _alphas(of_set.metric)
        across = pairs.forgetting_across(theirs, own.errors, np.array(alphas, float), started)
        for alpha, values in zip(alphas, across):
            added += [{"method": method, "forget_set": forget_set, "epochs": epochs,
                       "seed": str(seed), "metric": f"{name}@{alpha}", "value": repr(float(value)),
                       "stage": stages[seed]} for seed, value in zip(seeds, values)]
    kept = rows.drop(columns="run")
    return pd.concat([kept, pd.DataFrame(added, columns=kept.columns)], ignore_index=True)


def _on_forget(workdir: Path, method: str, forget_set: str, epochs: str,
               classification: bool) -> Prediction:
    name = f"predictions/{method}.{forget_set}.{epochs}.forget.npz"
    return read_prediction(workdir / name, name, classification)


def _alphas(metrics: pd.Series) -> list[str]:
    found = [name for name in metrics.unique() if catalogue.shown_in(name, "alphas")]
    return list(dict.fromkeys(name.partition("@")[2] for name in found))
