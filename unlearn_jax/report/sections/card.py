"""The summary card: what was asked, the verdict on each model, and one picture of the numbers."""

import math
from collections import Counter
from collections.abc import Sequence

from unlearn_jax.report.figures import standing, style
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Cell, Figure, Row, Table, Text
from unlearn_jax.report.sections.summary import MEANS, because
from unlearn_jax.report.tables import judgement
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.judgement import (
    ATTACKS,
    DAMAGED,
    FORGOTTEN,
    NOT_FORGOTTEN,
    UNDECIDED,
    WORDS,
    Judgement,
)
from unlearn_jax.report.tables.names import describe, model_symbol
from unlearn_jax.report.tables.stats import estimate

_MARKS = {FORGOTTEN: "good", NOT_FORGOTTEN: "bad", DAMAGED: "bad", UNDECIDED: "open"}
_FEW = 4  # verdicts that need no count and stand above the picture
TERMS = (
    ("D_f", "the forget set: the training and validation samples that are to be forgotten"),
    ("D_r", "the retain set: the training samples that stay"),
    ("M_O", "the original model, trained on everything, D_f included"),
    ("M_R", "the retrained model: from the same start as M_O, without D_f. It is the reference: a "
     "perfect method would give a model that no test can tell from it"),
    ("M_e", "the unlearned model that is evaluated, such as M_FT"),
    ("seed", "the number that decides a model's first weights and the order of its samples. Each "
     "model was trained with every seed, so that the differences due to chance can be measured"),
    ("95 % interval", "where the mean over infinitely many seeds is expected to lie; a wide one "
     "means that more seeds are needed"),
    ("margin", "the difference from M_R that counts as none"),
    *((word, meaning) for word, meaning in MEANS))


def blocks(run: Run, judgements: Sequence[Judgement], output: Output) -> tuple[Block, ...]:
    """What stands below the facts of the request; nothing where nothing was unlearned."""
    if not judgements:
        return ()
    several = len({j.forget_set for j in judgements}) > 1
    table = _by_set(run, judgements) if several else _one_set(run, judgements)
    pictures = row(run, run.forget_sets[0], judgements, output)
    answer = Text(_answer(run, judgements), strong=True)
    shown: tuple[Block, ...] = (*pictures, table) if len(table.rows) > _FEW else (table, *pictures)
    remains = _remains(run)
    return (answer, *shown, *([Text(remains)] if remains else []))


def row(run: Run, forget_set: str, judgements: Sequence[Judgement], output: Output,
        ) -> tuple[Row, ...]:
    """The picture of one forget set: error, attack and utility side by side; () without any."""
    found: list[Figure] = []
    for name, question in _questions(run, forget_set, judgements).items():
        found += output.draw(f"standing-{name}-{forget_set}", standing.standing, run, forget_set,
                             question)
    if not found:
        return ()
    several = len(run.forget_sets) > 1
    left_out = len(run.unlearned(forget_set)) > standing.MOST_BUDGETS
    aim = ("" if "retrain" in run.without(forget_set) else
           " M_R (dashed) is the aim; shaded: within the margin of its mean."
           + " A check passes where the 90 % interval of the differences from M_R, seed by seed, "
           "is within the margin; to be more useful than M_R, or less attacked, is allowed."
           * (len(run.seeds) > 1))
    caption = (
        "Marks: mean over seeds"
        + ("; lines: 95 % intervals." if len(run.seeds) > 1 else "; one seed has no intervals.")
        + aim + " An attack guesses from a model's losses which samples it was trained on; "
        "at 0.5 it learns nothing." * any("attack" in f.file for f in found)
        + f" Forget set {forget_set}; the others have such a picture in their sections."
        * (several and forget_set == run.forget_sets[0])
        + " Each method at its largest budget." * left_out)
    return (Row(tuple(found), caption),)


def _questions(run: Run, forget_set: str, judgements: Sequence[Judgement],
               ) -> dict[str, standing.Question]:
    checks = {c.metric: c for j in judgements if j.forget_set == forget_set for c in j.checks}
    kind = "accuracy" if run.classification else "mae"
    what = "Accuracy" if run.classification else "Error"
    titles = {"error": (f"{what} on the forget set $D_f$", f"{kind}_forget"),
              "attack": ("Attack on $D_f$", _strongest_attack(run, forget_set)),
              "utility": (f"{what} on the test set", f"{kind}_test")}
    found = {}
    for name, (title, metric) in titles.items():
        check = checks.get(metric)
        # one-sided: only a model that is worse than M_R is bounded, at a lower accuracy
        free = check is not None and check.one_sided
        found[name] = standing.Question(
            title=title, metric=describe(run, metric),
            margin=check.margin if check else math.nan,
            below=not free or metric.startswith("accuracy"),
            above=not (free and metric.startswith("accuracy")))
    return found


def _strongest_attack(run: Run, forget_set: str) -> str:
    """Of the attacks that were run, the one that recognises D_f best in M_O."""
    original = run.only(forget_set, "original")
    reached = {name: e.mean for name in ATTACKS
               if (e := estimate(run.values(original, forget_set, name))).n}
    return max(reached, key=lambda name: reached[name], default=ATTACKS[0])


def _answer(run: Run, judgements: Sequence[Judgement]) -> str:
    """How many models have which verdict, which one may be used, and what the words mean."""
    counts = Counter(j.word for j in judgements)
    said = [word for word in WORDS if counts[word]]
    parts = []
    if len(judgements) > _FEW:
        parts.append(f"{len(judgements)} verdicts: "
                     + ", ".join(f"{counts[word]} {word}" for word in said) + ".")
    passed = [j for j in judgements if j.word == FORGOTTEN]
    if passed:
        names = "; ".join(_named(run, j) for j in passed[:_FEW])
        more = f" and {len(passed) - _FEW} more" * (len(passed) > _FEW)
        parts.append(f"By these checks D_f is forgotten, and the model can take the place of M_O: "
                     f"{names}{more}.")
    elif not any(run.without(name) for name in run.forget_sets):
        still = [j for j in judgements if j.word == NOT_FORGOTTEN]
        if len(still) == len(judgements):
            parts.append("Each of these models still remembers D_f." if len(still) > 1 else
                         f"{model_symbol(still[0].model)} still remembers D_f.")
        else:
            parts.append("No model is shown to have forgotten D_f.")
        parts.append(_instead(run, len(judgements) <= _FEW))
    return " ".join(parts) or "The verdict:"


def _instead(run: Run, short: bool) -> str:
    """Which model to use where none has passed."""
    if _asked_by_ids(run):
        return "receipt/receipt.html says which model to use."
    said = "scored" in run.run or run.run["config"].get("retrain", {}).get("path", "")
    return ("The model to use is M_R, which " + ("is said to be" if said else "was")
            + f" trained without it{_errors(run) * short}.")


def _asked_by_ids(run: Run) -> bool:
    return any(f["request"].startswith("ids:") for f in run.data["forget_sets"].values())


def _errors(run: Run) -> str:
    """M_R's error on the test set beside that of M_O, in brackets; '' for several forget sets."""
    metric = describe(run, f"{'accuracy' if run.classification else 'mae'}_test")
    found = [estimate(run.values(run.only(run.forget_sets[0], m), run.forget_sets[0], metric.name))
             for m in ("retrain", "original")]
    if len(run.forget_sets) > 1 or not all(e.n for e in found):
        return ""
    retrained, original = (metric.text(e.mean) for e in found)
    return f" ({metric.header}: {retrained}, of M_O {original})"


def _remains(run: Run) -> str:
    """What of D_f is left after the run; '' for scored predictions, which say nothing of it."""
    if "scored" in run.run:
        return ""
    store = f" {run.run['store']}" if run.run.get("store") else ""
    original = run.run["config"].get("original", {}).get("path", "")
    text = ("What remains: this run deleted nothing. The source of the data still has the images "
            f"of D_f. The store{store} still has M_O, other models that have seen them, and "
            "decoded images."
            + (f" The file of M_O, {original}, is unchanged." if original else ""))
    if _asked_by_ids(run):
        return f"{text} receipt/receipt.html lists each place of the images asked for by id."
    return (f"{text} unlearn-jax forget-data takes images, and what has seen them, out of a store; "
            "unlearn-jax list ids lists their ids.")


def _named(run: Run, j: Judgement) -> str:
    return model_symbol(j.model) + f" on {j.forget_set}" * (len(run.forget_sets) > 1)


def _word(word: str) -> Cell:
    return Cell(word, mark=_MARKS[word])


def _caption(judgements: Sequence[Judgement]) -> str:
    said = {j.word for j in judgements}
    return "; ".join(f"“{word}”: {meaning}" for word, meaning in MEANS if word in said) + "."


def _one_set(run: Run, judgements: Sequence[Judgement]) -> Table:
    return Table(
        f"Verdicts. {_caption(judgements)}",
        (("model", "the unlearned model and its budget"), ("verdict", "the word"),
         ("because", "the checks that decided, or how many seeds would")),
        tuple((Cell(model_symbol(j.model)), _word(j.word), Cell(_with_evidence(run, j)))
              for j in judgements))


def _with_evidence(run: Run, j: Judgement) -> str:
    """The reason, and the differences from M_R behind it, of metrics compared as they are."""
    decisive = [c for c in j.checks if c.outcome == "differs" and judgement.said(c) in j.reason
                and (c.metric.startswith("mae_") or c.metric.endswith("_auc"))]
    if not decisive or "retrain" in run.without(j.forget_set):
        return because(j)
    found = []
    for check in decisive[:2]:
        metric = describe(run, check.metric)
        mean, low, high = (metric.text(x) for x in (check.mean, check.low, check.high))
        found.append(f"{metric.header} minus that of M_R: {mean}, 90 % interval {low} to {high}")
    return f"{because(j)} ({'; '.join(found)})"


def _by_set(run: Run, judgements: Sequence[Judgement]) -> Table:
    words = {(j.model, j.forget_set): j.word for j in judgements}
    models: dict[ModelKey, None] = {j.model: None for j in judgements}
    return Table(
        f"Verdicts by forget set. {_caption(judgements)} “Did it work?” has the reasons.",
        (("model", "the unlearned model and its budget"),
         *((name, "the verdict on this forget set") for name in run.forget_sets)),
        tuple((Cell(model_symbol(model)), *(
            _word(words[model, name]) if (model, name) in words else Cell("–")
            for name in run.forget_sets)) for model in models))


def others(run: Run, judgements: Sequence[Judgement], forget_set: str, output: Output,
           ) -> tuple[Row, ...]:
    """The picture of a forget set that is not the first, for its own section."""
    if forget_set not in run.forget_sets[1:style.MOST_SETS]:
        return ()
    return row(run, forget_set, judgements, output)
