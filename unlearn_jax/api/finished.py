"""A finished study: its tables, its models and their predictions."""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn_jax.errors import InputError
from unlearn_jax.report.tables.inputs import Run, read_run
from unlearn_jax.report.tables.predictions import SPLITS, Prediction, read_prediction
from unlearn_jax.storage import checkpoints


@dataclasses.dataclass(frozen=True)
class CompletedStudy:
    """The work directory of a finished study, of this process or of the command line.

    Attributes:
      workdir: the work directory.
      store: the store with its models.
    """

    workdir: Path
    store: Path

    @functools.cached_property
    def _run(self) -> Run:
        return read_run(self.workdir)

    @property
    def results(self) -> pd.DataFrame:
        """results.csv: one row for each value (method, forget_set, epochs, seed, metric, ...)."""
        return self._run.results

    @property
    def summary(self) -> pd.DataFrame:
        """summary.csv: mean, standard deviation and 95 % interval over seeds."""
        return self._table("summary.csv")

    @property
    def verdicts(self) -> pd.DataFrame:
        """verdict.csv: for each unlearned model its verdict, and the checks behind it."""
        return self._table("verdict.csv")

    @property
    def history(self) -> pd.DataFrame:
        """history.csv: the losses of each member after each epoch."""
        return self._table("history.csv")

    @property
    def config(self) -> dict[str, Any]:
        """The whole config of the study, as nested dicts."""
        return self._run.run["config"]

    @property
    def forget_sets(self) -> tuple[str, ...]:
        """Names of the forget sets, as the tables have them."""
        return self._run.forget_sets

    @property
    def report(self) -> Path:
        """The report: one file with its pictures, for a browser."""
        return self.workdir / "report.html"

    def models(self, method: str = "original", forget_set: str = "",
               epochs: int | None = None) -> dict[str, Any]:
        """The trained variables of all members.

        Args:
          method: 'original' (M_O), 'retrain' (M_R), or a method of the study.
          forget_set: a name in `forget_sets`; '' if there is only one, or for M_O.
          epochs: budget of the method; None if there is only one.

        Returns:
          `{"params": tree, "batch_stats": tree}` of NumPy arrays `[M, ...]`, one for each seed in
          the order of `config["seeds"]`.

        Raises:
          InputError: there is no such model, several fit, or the store no longer has it.
        """
        if method == "original":  # the same models for every forget set
            forget_set = forget_set or self.forget_sets[0]
        rows = self._rows(method, forget_set, epochs)
        for key in dict.fromkeys(rows.stage.dropna()):
            for found in self.store.glob(f"*/{key}/checkpoint"):
                return checkpoints.restore(found)[0]
        raise InputError(f"the store {self.store} has no models of {method!r}; allowed: methods "
                         "with models of their own, and the store of the run")

    def predictions(self, method: str = "original", forget_set: str = "",
                    epochs: int | None = None, split: str = "test") -> Prediction:
        """The outputs of all members on a split.

        Args:
          method, forget_set, epochs: as for `models`.
          split: 'test', 'forget', 'retain' or 'validation'; the last two without D_f.

        Returns:
          outputs `[M, N]` label units or logits `[M, N, C]`, labels `[N]`, ids `[N]`, seeds `[M]`.

        Raises:
          InputError: there is no such model or split, or several fit.
        """
        if split not in SPLITS:
            raise InputError(f"split is {split!r}; allowed: {', '.join(map(repr, SPLITS))}")
        row = self._rows(method, forget_set, epochs).iloc[0]
        name = f"{method}.{row.forget_set}.{row.epochs}.{split}.npz"
        return read_prediction(self.workdir / "predictions" / name, name,
                               self._run.classification)

    def _rows(self, method: str, forget_set: str, epochs: int | None) -> pd.DataFrame:
        """The rows of results.csv of one model.

        Raises:
          InputError: no model fits, or several do.
        """
        found = self.results
        wanted = {"method": method, "forget_set": forget_set or None, "epochs": epochs}
        for column, value in wanted.items():
            values = found[column].unique().tolist()
            if value is None and len(values) == 1:
                continue
            if value not in values:
                what = f"{column} is {value!r}" if value is not None else (
                    f"{method!r} has several values of {column}")
                raise InputError(f"{what}; allowed: {', '.join(map(repr, values))}")
            found = found[found[column] == value]
        return found

    def _table(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_csv(self.workdir / name)
        except FileNotFoundError:
            raise InputError(f"{self.workdir} has no {name}") from None


def open_study(workdir: str | os.PathLike[str]) -> CompletedStudy:
    """A finished study, read back from its work directory.

    Raises:
      InputError: it is no work directory of a finished run.
    """
    directory = Path(workdir)
    try:
        record = json.loads((directory / "run.json").read_text())
        finished, root = record["finished"], record["store"]
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"{directory} is no work directory of a run: {e!r}") from e
    if not finished:
        raise InputError(f"the run in {directory} has not finished; run it again, it goes on where "
                         "it stopped")
    return CompletedStudy(directory, Path(root))
