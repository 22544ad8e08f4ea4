"""Reads requests.csv: the ids of deletion requests, and where each was found."""

import dataclasses

import pandas as pd

from unlearn_jax.report.tables.files import numbers, read_csv, refuse
from unlearn_jax.report.tables.inputs import Run

FILE = "requests.csv"
COLUMNS = ("forget_set", "asked", "times", "id", "split", "why", "file", "trained_on",
           "equal_images", "image_trained_on", "image_retained")
BETWEEN = " | "  # between several ids in a cell


@dataclasses.dataclass(frozen=True, eq=False)
class Requested:
    """The rows of one forget set.

    Attributes:
      forget_set: its name.
      file: of the ids, as the config gives it.
      asked: the rows of ids that were asked for.
      unasked: the rows of images with the same pixels that were not asked for.
    """

    forget_set: str
    file: str
    asked: pd.DataFrame
    unasked: pd.DataFrame

    @property
    def rows(self) -> pd.DataFrame:
        """All rows."""
        return pd.concat([self.asked, self.unasked], ignore_index=True)

    @property
    def ids(self) -> list[str]:
        """The ids of the data set that were asked for."""
        return [own for own in self.asked["id"] if own]

    def named(self, column: str, value: str) -> list[str]:
        """The asked ids with a value in a column, as they were asked for."""
        return self.asked.loc[self.asked[column] == value, "asked"].tolist()


def read_requests(run: Run) -> list[Requested] | None:
    """The requests of a run, one per forget set that is a file of ids; None where it has none.

    Raises:
      ReportError: requests.csv is malformed.
    """
    if not (run.workdir / FILE).exists():
        return None
    table = read_csv(run.workdir, FILE, COLUMNS)
    table["times"] = numbers(table, FILE, "times", whole=True)
    refuse(table, ~table.forget_set.isin(run.forget_sets), FILE, "forget_set",
           "those of data.json: " + ", ".join(run.forget_sets))
    for column in ("trained_on", "image_trained_on", "image_retained"):
        refuse(table, ~table[column].isin(("yes", "no")), FILE, column, "yes, no")
    found = []
    for name, rows in table.groupby("forget_set", sort=False):
        asked = rows.asked != ""
        request = run.data["forget_sets"][name]["request"]
        found.append(Requested(str(name), request.removeprefix("ids:"), rows[asked], rows[~asked]))
    return found
