"""Answers on D_f that forget nothing, measured like models.

Forgetting compares sizes of errors. It does not measure what a model knows. So a comparison shows
the Forgetting of two answers that need no unlearning. Outside of D_f both are M_O's.

- `best_constant`: the one answer to all of D_f with the highest Forgetting. In regression it is a
  label. With classes it gives one class the probability p, and all others an equal share of the
  rest; the class and p are the best ones.
- `shifted_original`: what M_O answers on D_f, shifted until it errs on average as M_R does. In
  regression the outputs are shifted up or down, whichever gives the higher Forgetting. With classes
  the logit of the true class is lowered, or raised.

Both use M_R and the labels of D_f, so they are no methods. They are computed from the saved
predictions; nothing is trained.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from unlearn_jax.metrics.logistic import above
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.predictions import Prediction

CONSTANT, SHIFTED = "best_constant", "shifted_original"
_CLASSES = 10  # the most frequent classes of D_f are tried
_COARSE, _FINE = 101, 21  # constants that are tried: over the range, then around the best


@functools.lru_cache(maxsize=1)
def with_baselines(run: Run) -> Run:
    """The run with rows of both answers in its results, as of models with a budget of 0 epochs.

    Their metrics are those that a leaderboard and a verdict read: error, Forgetting, F, utility,
    and the attack on the loss.

    Raises:
      ReportError: predictions of M_O or M_R are missing.
    """
    rows = [row for forget_set in run.forget_sets if not run.without(forget_set)
            for row in _rows(run, forget_set)]
    return dataclasses.replace(run, results=pd.concat(
        [run.results, pd.DataFrame(rows)], ignore_index=True)) if rows else run


def _rows(run: Run, forget_set: str) -> Iterator[dict]:
    original = run.reference(forget_set, "original")
    before, reference = (run.prediction(m, forget_set, "forget") for m in (
        original, run.reference(forget_set, "retrain")))
    kind = "accuracy" if run.classification else "mae"
    copied = {name: run.values(original, forget_set, name)
              for name in ("utility", f"{kind}_test", f"{kind}_retain")}
    for method, answers in ((CONSTANT, best_constant(before, reference, run.alpha)),
                            (SHIFTED, shifted_original(before, reference, run.alpha))):
        seeds = pd.Index(answers.seeds)
        own = forgetting(answers, reference, run.alpha)
        found = {
            f"{kind}_forget": _scores(answers, run.classification),
            f"forgetting@{run.alpha:g}": own,
            f"forgetting_across@{run.alpha:g}": _across(answers, reference, run.alpha),
            f"F@{run.alpha:g}": own * copied["utility"].reindex(seeds).to_numpy(float),
            **_attack(run, forget_set, original, answers)}
        for name, values in [*found.items(), *((n, v.reindex(seeds)) for n, v in copied.items())]:
            for seed, value in zip(answers.seeds.tolist(), np.asarray(values, float)):
                yield {"method": method, "forget_set": forget_set, "epochs": 0, "seed": seed,
                       "metric": name, "value": value, "stage": ""}


def forgetting(answers: Prediction, reference: Prediction, alpha: float) -> np.ndarray:
    """Forgetting `[M]` against the M_R of the same seed; NaN for a member that failed."""
    return np.exp(-np.abs(answers.errors - reference.errors) / alpha).mean(axis=1)


def _across(answers: Prediction, reference: Prediction, alpha: float) -> np.ndarray:
    """Forgetting `[M]`, each the mean against the M_Rs of all other seeds, in both directions."""
    pairs = np.exp(-np.abs(answers.errors[:, None] - reference.errors[None]) / alpha).mean(-1)
    bad = ~np.isfinite(np.diag(pairs))
    pairs[bad], pairs[:, bad] = np.nan, np.nan
    np.fill_diagonal(pairs, np.nan)
    both = np.concatenate([pairs, pairs.T], axis=1)
    known = np.isfinite(both).sum(axis=1)
    return np.where(known, np.nansum(both, axis=1) / np.maximum(known, 1), np.nan)


def _scores(answers: Prediction, classification: bool) -> np.ndarray:
    """Accuracy or mean absolute error `[M]`; NaN for a member that failed."""
    if not classification:
        return answers.errors.mean(axis=1)
    right = (answers.outputs.argmax(-1) == answers.labels).mean(axis=1)
    return np.where(np.isfinite(answers.outputs).all((1, 2)), right, np.nan)


def best_constant(before: Prediction, reference: Prediction, alpha: float) -> Prediction:
    """The same answer for every sample of D_f, the one of highest mean Forgetting.

    Args:
      before, reference: of M_O and of M_R on D_f.
      alpha: label units, or of 1 − p(true class).

    Returns:
      Predictions of the seeds of M_O; where M_O failed they are NaN.
    """
    labels, finite = reference.labels, reference.finite
    if before.outputs.ndim == 3:
        answer = _best_class(finite, before.outputs.shape[2], alpha)
        outputs = np.broadcast_to(answer, before.outputs.shape).copy()
    else:
        def merit(constant: float) -> float:
            gaps = np.abs(np.abs(constant - labels) - finite.errors)
            return float(np.exp(-gaps / alpha).mean()) if len(finite.errors) else 0.0

        far = finite.errors.max(initial=0.0)
        low, high = labels.min() - far, labels.max() + far
        best = max(np.linspace(low, high, _COARSE), key=merit)
        step = (high - low) / (_COARSE - 1)
        best = max(np.linspace(best - step, best + step, _FINE), key=merit)
        outputs = np.full(before.outputs.shape, best)
    return _like(before, outputs)


def _best_class(reference: Prediction, classes: int, alpha: float) -> np.ndarray:
    """Logits `[C]` of the best constant answer."""
    known, counts = np.unique(reference.labels, return_counts=True)
    shares = np.linspace(1 / classes, 1 - 1e-6, _COARSE)

    def merit(answer: tuple[int, float]) -> float:
        chosen, p = answer
        errors = np.where(reference.labels == chosen, 1 - p, 1 - (1 - p) / (classes - 1))
        gaps = np.abs(errors - reference.errors)
        return float(np.exp(-gaps / alpha).mean()) if len(reference.errors) else 0.0

    chosen, p = max(((int(k), float(p)) for k in known[np.argsort(-counts)][:_CLASSES]
                     for p in shares), key=merit)
    logits = np.full(classes, np.log((1 - p) / (classes - 1)))
    logits[chosen] = np.log(p)
    return logits


def shifted_original(before: Prediction, reference: Prediction, alpha: float) -> Prediction:
    """M_O's outputs on D_f, shifted so that each seed errs on average as its M_R does.

    Args:
      before, reference: of M_O and of M_R on D_f, with the same seeds.
      alpha: label units, or of 1 − p(true class).

    Returns:
      Predictions; NaN where a model of the seed failed.
    """
    targets = reference.errors.mean(axis=1)
    if before.outputs.ndim == 3:
        return _shifted(before, targets, toward=-1.0)
    ways = [_shifted(before, targets, toward) for toward in (-1.0, 1.0)]
    return max(ways, key=lambda p: np.nan_to_num(forgetting(p, reference, alpha)).mean())


def _shifted(before: Prediction, targets: np.ndarray, toward: float) -> Prediction:
    """Bisection over the shift; beyond the shift of least error, the error grows with it."""
    classes = before.outputs.ndim == 3
    true = np.arange(len(before.labels))

    def moved(shifts: np.ndarray) -> Prediction:
        outputs = before.outputs.copy()
        if classes:
            outputs[:, true, before.labels] += toward * shifts[:, None]
        else:
            outputs += toward * shifts[:, None]
        return _like(before, outputs)

    if classes:
        low, high = np.full(len(targets), -100.0), np.full(len(targets), 100.0)
    else:
        # The mean absolute error is least where the median of the differences is 0.
        low = -toward * np.median(before.outputs - before.labels, axis=1)
        high = low + targets + moved(low).errors.mean(axis=1)
    for _ in range(60):
        middle = (low + high) / 2
        above = moved(middle).errors.mean(axis=1) > targets
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    found = moved(low)
    found.outputs[~np.isfinite(targets)] = np.nan
    return _like(before, found.outputs)


def _attack(run: Run, forget_set: str, original: ModelKey,
            answers: Prediction) -> dict[str, np.ndarray]:
    """The AUC `[M]` of the attack on the loss; nothing where files lack the samples to compare.

    The samples that it compares D_f with are outside of D_f, so that M_O's losses are theirs.
    """
    member = answers.further.get("member")
    test = run.prediction(original, forget_set, "test")
    peers = test.further.get("peers")
    if (member is None or peers is None or "trained_labels" in answers.further
            or not (member == 1).any() or not len(peers)):
        return {}
    return {"mia_auc": np.array([auc(mine, others) for mine, others in zip(
        answers.losses[:, member == 1], test.losses[:, peers], strict=True)])}


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The chance that a member has a lower loss than one of the others; NaN for NaN losses."""
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        return float("nan")
    return above(others, members)


def _like(before: Prediction, outputs: np.ndarray) -> Prediction:
    """A prediction with other outputs; NaN where those of `before` are."""
    outputs = outputs.copy()
    outputs[~np.isfinite(before.outputs).reshape(len(outputs), -1).all(axis=1)] = np.nan
    return Prediction(outputs, before.labels, before.ids, before.seeds, before.further)
