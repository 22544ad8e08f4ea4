"""The study's conclusions in plain words, derived from the verdicts on its claims."""

import numpy as np

from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import symbol
from unlearn_jax.report.tables.stats import estimate, estimate_pairs
from unlearn_jax.report.thesis.arms import random_arms
from unlearn_jax.report.thesis.findings import pairs, predicted_on_forget
from unlearn_jax.report.thesis.published import ALPHA, CHOSEN, EPOCHS, FIRST, PRINTED
from unlearn_jax.report.thesis.verdicts import ABSENT, FAILS, HOLDS, OPEN, Verdict

_OUTCOME = {HOLDS: "holds", FAILS: "is contradicted", OPEN: "is left open",
            ABSENT: "is not measured"}


def conclusions(run: Run, found: tuple[Verdict, ...]) -> tuple[str, ...]:
    """One statement for each of the study's conclusions.

    Args:
      run: a run that repeats the study (`arms.is_study`).
      found: all verdicts.
    """
    by_name = {(v.claim.name, v.arm): v for v in found}
    makers = (_counts, _fine_tuning, _random_labels, _nearest, _plateau, _erased, _score,
              _all_pairs)
    texts = [maker(run, by_name) for maker in makers]
    return tuple(text for text in texts if text)


_Found = dict[tuple[str, str], Verdict]


def _counts(run: Run, found: _Found) -> str:
    described = [v for v in found.values() if not v.arm or v.arm in _arms(run, units=False)]
    n = len(described)
    held, failed = (sum(v.status == s for v in described) for s in (HOLDS, FAILS))
    return (f"With labels in years, {held} of {n} tests of the study's claims hold, {failed} are "
            f"contradicted, and {n - held - failed} are left open by {len(run.seeds)} seeds, after "
            f"a correction for all {len(found)} tests.")


def _fine_tuning(run: Run, found: _Found) -> str:
    own = found["ft-above-original-every-budget", ""]
    text = (f"That fine-tuning forgets, M_FT being above M_O in Forgetting whatever the epochs, "
            f"{_outcome(own)}.")
    bests = [(a, found["ft-best-on-every-set", a]) for a in random_arms(run)]
    return text + " That it has the best F on every forget set " + "; ".join(
        f"{_outcome(v)} against {symbol(a)}" for a, v in bests) + "."


def _random_labels(run: Run, found: _Found) -> str:
    """Whether the verdict on random labels depends on the units."""
    described, published = _arms(run, units=False), _arms(run, units=True)
    if not described or not published:
        return ""
    name = "rnd-f-below-original"
    with_error = [found[name, a] for a in published]
    text = ("That random labels are worse than doing nothing, with an F below that of M_O whatever "
            "the epochs, " + " and ".join(f"{_outcome(v)} with the unit error ({symbol(v.arm)})"
                                          for v in with_error) + "; with labels in years it "
            + ", ".join(f"{_outcome(found[name, a])} for {symbol(a)}" for a in described) + ".")
    statuses = {found[name, a].status for a in described}
    if all(v.status == HOLDS for v in with_error):
        if HOLDS not in statuses and FAILS in statuses:
            text += (" So this conclusion of the study is about its units, and not about random "
                     "labels.")
        elif statuses == {HOLDS}:
            text += " So it does not depend on the units here."
        else:
            text += " So it is not shown for random labels as the study describes them."
    return text


def _nearest(run: Run, found: _Found) -> str:
    """Which random labels come nearest to the numbers printed for M_RND."""
    del found
    wanted = [p for p in PRINTED if p.model == "rnd" and p.table in (4, 6, 7)]
    distances = {}
    for arm in random_arms(run):
        values = [estimate(run.values(ModelKey(arm, p.epochs), p.forget_set, p.metric)).mean
                  for p in wanted]
        distances[arm] = float(np.mean([abs(v - p.value) for v, p in zip(values, wanted)]))
    distances = {a: d for a, d in distances.items() if np.isfinite(d)}
    if not distances:
        return ""
    order = sorted(distances, key=lambda arm: distances[arm])
    listed = ", ".join(f"{distances[a]:.3f} from those of {symbol(a)}" for a in order)
    return (f"The {len(wanted)} numbers that the study prints for M_RND in tables 4, 6 and 7 are "
            f"on average {listed}. Nearest is {symbol(order[0])}.")


def _plateau(run: Run, found: _Found) -> str:
    del found
    config = run.run["config"]["model"]
    top = config["output_offset"] + config["output_scale"]
    texts = []
    for arm in random_arms(run):
        model = ModelKey(arm, max(EPOCHS))
        if not len(run.values(model, FIRST, "mae_forget")):
            continue
        texts.append(f"{predicted_on_forget(run, model).mean:.1f} years for {symbol(arm)}")
    if not texts:
        return ""
    return (f"After {max(EPOCHS)} epochs the mean prediction on {FIRST} is "
            + ", ".join(texts) + f"; the highest output is {top:g}.")


def _erased(run: Run, found: _Found) -> str:
    if FIRST not in run.forget_sets:
        return ""
    v = found["ft-never-erases-all", ""]
    ceiling = estimate(run.values(run.reference(FIRST, "retrain"), FIRST, f"ceiling@{ALPHA:g}"))
    if not ceiling.n:
        return ""
    return (f"A retrained model reaches Forgetting {ceiling.mean:.3f} against one of another seed "
            f"on {FIRST}, not 1; that fine-tuning, compared with M_Rs of other seeds as well, "
            f"stays below this ceiling {_outcome(v)}.")


def _score(run: Run, found: _Found) -> str:
    """Whether F ranks a model above a perfect one."""
    del found
    if FIRST not in run.forget_sets:
        return ""
    ceiling = run.values(run.reference(FIRST, "retrain"), FIRST, f"ceiling@{ALPHA:g}")
    tuned = ModelKey("ft", CHOSEN["ft"])
    own = (run.values(tuned, FIRST, "utility")
           * run.values(tuned, FIRST, f"forgetting_across@{ALPHA:g}"))
    difference = estimate_pairs(own - ceiling)
    if not difference.n:
        return ""
    text = (f"F of M_FT after {CHOSEN['ft']} epochs, compared with M_Rs of other seeds, is "
            f"{estimate(own).mean:.3f}; an independent M_R, whose utility is about 1, would get "
            f"{estimate(ceiling).mean:.3f}.")
    if difference.above_zero:
        text += (" F thus ranks M_FT above a perfect retraining. The test set holds the group to "
                 "be forgotten, too, so utility counts what a model still knows of it.")
    elif difference.below_zero:
        text += " F thus ranks M_FT below a perfect retraining, as it should."
    return text


def _all_pairs(run: Run, found: _Found) -> str:
    del found
    if FIRST not in run.forget_sets:
        return ""
    values = {m: (own.mean, every.mean) for m, (own, every) in pairs(run).items()}
    own_order = sorted(values, key=lambda m: -values[m][0])
    every_order = sorted(values, key=lambda m: -values[m][1])
    largest = max(values.values(), key=lambda pair: abs(pair[0] - pair[1]))
    same = "the same" if own_order == every_order else "another"
    return (f"Over all pairs, as the published code computes it, Forgetting differs by up to "
            f"{abs(largest[0] - largest[1]):.3f} from the metric by sample, and puts the "
            f"{len(values)} models of {FIRST} into {same} order.")


def _outcome(v: Verdict) -> str:
    if v.status == ABSENT:
        return _OUTCOME[ABSENT]
    return f"{_OUTCOME[v.status]} (in {v.held} of {v.n} seeds)"


def _arms(run: Run, units: bool) -> tuple[str, ...]:
    """The arms of random labels with or without the unit error."""
    return tuple(a for a in random_arms(run)
                 if (run.arm_setting(a)["label_units"] == "as_published") == units)
