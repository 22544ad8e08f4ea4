"""receipt.csv: each id with its loss, and with what a membership attack makes of it."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from unlearn_jax.report.receipt.requests import Requested
from unlearn_jax.report.tables.files import checked, read_arrays
from unlearn_jax.report.tables.inputs import ModelKey, Run

_SPLITS = ("forget", "test", "validation", "retain")


def table(run: Run, requests: Iterable[Requested]) -> pd.DataFrame:
    """A row per id: the columns of requests.csv, then two for each model of its forget set.

    `loss_MODEL` is the mean over seeds of the absolute error in label units, or of the cross
    entropy in nats. `attack_MODEL` is the share of test images with a larger loss, ties as halves,
    also a mean over seeds. Over the training samples of D_f it averages to `mia_auc`: 0.5 is what
    images have that the model never saw; near 1, the model knows the image. An id without a
    prediction, because it is not in the data, has empty cells.

    Raises:
      ReportError: a file of predictions is malformed.
    """
    return pd.concat([_rows(run, request) for request in requests], ignore_index=True)


def column(model: ModelKey) -> str:
    """A model in the name of a column: original, retrain, ft@2."""
    return model.method if model.method in ("original", "retrain") else (
        f"{model.method}@{model.epochs}")


def _rows(run: Run, request: Requested) -> pd.DataFrame:
    rows, ids = request.rows, request.rows["id"]
    for model in run.models(request.forget_set):
        if model.method == "median":
            continue
        losses, attacks = scores(run, request.forget_set, model, set(ids) - {""})
        name = column(model)
        rows = rows.assign(**{f"loss_{name}": [losses.get(own, np.nan) for own in ids],
                              f"attack_{name}": [attacks.get(own, np.nan) for own in ids]})
    return rows


def scores(run: Run, forget_set: str, model: ModelKey,
           ids: set[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Loss and attack score of some samples, means over the seeds that did not fail; by id.

    Raises:
      ReportError: a file of predictions is malformed.
    """
    peers = _peer_losses(run, forget_set, model)
    losses: dict[str, float] = {}
    attacks: dict[str, float] = {}
    for split in _SPLITS:
        left = ids - losses.keys()
        arrays = _arrays(run, forget_set, model, split) if left else None
        if arrays is None:
            continue
        places = np.flatnonzero(np.isin(arrays["ids"].astype(str), list(left)))
        found = _losses(arrays["outputs"][:, places],
                        arrays.get("trained_labels", arrays["labels"])[places])
        good = np.isfinite(found).all(axis=1) & np.isfinite(peers).all(axis=1)
        for k, place in enumerate(places):
            own, mine = str(arrays["ids"][place]), found[good, k, None]
            losses[own] = float(mine.mean()) if good.any() else np.nan
            shares = (peers[good] > mine) + 0.5 * (peers[good] == mine)
            attacks[own] = float(shares.mean()) if shares.size else np.nan
    return losses, attacks


def _peer_losses(run: Run, forget_set: str, model: ModelKey) -> np.ndarray:
    """`[M, P]`: losses of the unseen test samples that attacks compare D_f with."""
    arrays = _arrays(run, forget_set, model, "test")
    if arrays is None:
        return np.zeros((len(run.seeds), 0))
    places = arrays.get("peers", np.arange(len(arrays["labels"])))
    labels = arrays.get("peer_labels", arrays["labels"][places])
    return _losses(arrays["outputs"][:, places], labels)


def _arrays(run: Run, forget_set: str, model: ModelKey, split: str) -> dict[str, np.ndarray] | None:
    name = f"predictions/{model.method}.{forget_set}.{model.epochs}.{split}.npz"
    path = checked(run.workdir, name)
    return read_arrays(path, name) if path.exists() else None


def _losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[M, n]`: absolute errors of `[M, n]`, or cross entropies of logits `[M, n, C]`.

    In float32 like the attack itself (metrics/attacks.py), so that the same losses are ties.
    """
    outputs = outputs.astype(np.float32)
    if outputs.ndim == 2:
        return np.abs(outputs - labels.astype(np.float32))
    top = outputs.max(axis=-1)
    sums = top + np.log(np.exp(outputs - top[..., None]).sum(axis=-1))
    return sums - np.take_along_axis(outputs, labels.astype(int)[None, :, None], -1)[..., 0]
