"""remains.csv: what the images of a request have left, and where."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unlearn_jax.report.receipt.requests import Requested
from unlearn_jax.report.tables.inputs import Run
from unlearn_jax.storage import traces
from unlearn_jax.storage.store import StoreError

# Kinds, in the order of the page.
FILES, CACHES, MODELS, UNLEARNED, RETRAINED, DERIVED, PROGRESS, RUNS, UNREAD = KINDS = (
    "data files", "image caches", "models trained with them", "unlearned models",
    "models trained without them", "outputs of these models", "half-finished models",
    "work directories", "parts of the store that cannot be judged")
COLUMNS = ("kind", "path", "of_this_run", "what", "removed_by_forget_data")


@dataclasses.dataclass(frozen=True, order=True)
class Remaining:
    """Something that is left.

    Attributes:
      kind: of `KINDS`.
      path: where.
      of_this_run: whether this run made or used it; False: another run of the same store.
      what: in words.
      removed: whether `unlearn-jax forget-data` removes it.
    """

    kind: str
    path: str
    of_this_run: bool
    what: str
    removed: bool


def find(run: Run, requests: Sequence[Requested]) -> list[Remaining]:
    """All that is left of the images of all requests of a run, in the order of `KINDS`."""
    store = Path(run.run["store"]) if run.run.get("store") else None
    ids = sorted({own for request in requests for own in request.ids})
    found = [Remaining(FILES, path, True, "read by this program, never changed", False)
             for path in sorted({path for r in requests for path in r.asked["file"] if path})]
    keys = {stage["key"] for stage in run.run["stages"]}
    saw: set[str] = set()
    if store is not None and store.is_dir():
        try:
            left = traces.find_traces(store, ids)
        except StoreError as e:
            found.append(Remaining(UNREAD, str(store), True, str(e), False))
        else:
            found += [_of_trace(trace, keys) for trace in left]
            saw = {t.path.name for t in left if t.kind == traces.MODELS and t.saw == traces.SAW}
    here = run.workdir.absolute()
    found.append(Remaining(RUNS, str(here), True, "predictions, tables and this receipt name the "
                                                  "ids; predictions hold a model's outputs", False))
    if store is not None:
        found += [Remaining(RUNS, str(path), False, "a run of the same store whose models saw them",
                            False) for path in traces.work_directories(store, saw)
                  if path != here]
    return sorted(found, key=lambda left: (KINDS.index(left.kind), not left.of_this_run, left.path))


def table(left: Sequence[Remaining]) -> pd.DataFrame:
    """The rows of remains.csv."""
    words = {True: "yes", False: "no"}
    return pd.DataFrame([(r.kind, r.path, words[r.of_this_run], r.what, words[r.removed])
                         for r in left], columns=list(COLUMNS))


def _of_trace(trace: traces.Trace, keys: set[str]) -> Remaining:
    mine = trace.path.name in keys or trace.parts.get("model") in keys
    kind = {traces.CACHE: CACHES, traces.DERIVED: DERIVED, traces.PROGRESS: PROGRESS}.get(
        trace.kind, {traces.SAW: MODELS, traces.UNLEARNED: UNLEARNED, traces.WITHOUT: RETRAINED,
                     traces.UNKNOWN: UNREAD}[trace.saw])
    return Remaining(kind, str(trace.path), mine, trace.why, traces.removable(trace))
