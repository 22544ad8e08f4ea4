"""The first lines of a report: the data, the models, the number of seeds."""

from unlearn_jax.report.render.document import Block, Facts, Text
from unlearn_jax.report.sections import scored, warnings
from unlearn_jax.report.sections.data import source
from unlearn_jax.report.tables.inputs import SHORT, Run
from unlearn_jax.report.tables.names import ENSEMBLES, pretrained, symbol

_LINK = (("go there", warnings.ANCHOR),)


def blocks(run: Run) -> tuple[Block, ...]:
    counts = run.data["counts"]
    seeds = ", ".join(map(str, run.seeds))
    sets = [f"{name} ({entry['train']:,} images for training, {entry['validation']:,} for "
            "validation" + f"; request “{entry['request']}”" * (entry["request"] != name) + ")"
            for name, entry in run.data["forget_sets"].items()]
    methods: dict[str, set[int]] = {}
    for forget_set in run.forget_sets:
        for model in run.unlearned(forget_set):
            methods.setdefault(model.method, set()).add(model.epochs)
    short = methods.pop(SHORT, set())
    unlearned = "; ".join(
        f"{symbol(m)} (method {m}) for {_listed(sorted(budgets))} epoch"
        f"{'s' if budgets != {1} else ''}" for m, budgets in methods.items()
        if m not in ENSEMBLES)
    ensembles = ""
    if set(ENSEMBLES) & methods.keys():
        ensembles = ("M_SISA_O is an ensemble trained by SISA on everything, in shards and slices; "
                     "M_SISA is the same after the deletion, for which the touched shards were "
                     "trained again without the forget set. ")
    balanced = counts.get("train_balanced", counts["train"])
    copies = (f", {balanced:,} with augmented copies" if balanced != counts["train"] else "")
    what = "the class" if run.classification else f"the {run.label} in {run.unit}"
    if "scored" in run.run:
        facts: Block = Text(scored.introduction(run))
    else:
        facts = Facts((
            ("Data", f"Models learned {what} from images ({source(run)}): {counts['train']:,} "
             f"for training{copies}, {counts['validation']:,} for validation, "
             f"{counts['test']:,} for testing."),
            ("To forget", ("One group of images was" if len(sets) == 1 else
                           f"{len(sets)} groups of images were")
             + f" to be forgotten, the forget set D_f: {'; '.join(sets)}."),
            ("Models", _references(run)
             + (f"M_O was unlearned as {unlearned}. " if unlearned else
                "" if ensembles else "Nothing was unlearned. ") + ensembles
             + (f"{symbol(SHORT)} was trained like M_R, for {_listed(sorted(short))} epoch"
                f"{'s' if short != {1} else ''}: the budget of the methods. " if short else "")
             + _start(run)),
            ("Seeds", (f"Each model was trained with {_many(len(run.seeds), 'seed')} ({seeds}), "
                       "and every " if not warnings.seeds_apart(run) else
                       "Models were trained with different seeds (see Warnings), and every ")
             + "number is computed per seed, then averaged"
             + ("." if len(run.seeds) > 1 else ": with one seed there are no intervals.")
             + (" Intervals over seeds are conditional on the splits that came with the data (see "
                "Data)." if run.given_splits and len(run.seeds) > 1 else ""))))
    blocks: list[Block] = [facts]
    failed = warnings.failed_members(run)
    notes = len(warnings.notes(run))
    if failed:
        blocks.append(Text(f"{_many(len(failed), 'member')} failed and count in no mean: "
                           "see Warnings.", strong=True, links=_LINK))
    elif notes:
        blocks.append(Text(f"There {'is' if notes == 1 else 'are'} {_many(notes, 'warning')}: "
                           "see Warnings.", strong=True, links=_LINK))
    return tuple(blocks)


def _references(run: Run) -> str:
    """What M_O and M_R are."""
    original, retrain = (run.run["config"].get(section, {}).get("path", "")
                         for section in ("original", "retrain"))
    text = "M_O is the original model, trained on everything"
    if original:
        text = f"M_O is the original model, read from {original} and not trained here"
    if any(map(run.without, run.forget_sets)):
        return (f"{text}. There is no M_R, a model retrained without the forget set: the run left "
                "it out (config.retrain.mode). So it cannot be said whether a model is like one "
                "that never saw the forget set, and Forgetting, its ceiling, utility against M_R "
                "and distances to M_R are left out. ")
    made = (f"read from {retrain}, trained" if retrain else "retrained from initial weights"
            if original else "retrained from the same start")
    return f"{text}; M_R was {made} without the forget set and is the reference. "


def _start(run: Run) -> str:
    """What the models of all seeds have in common from the start; '' for nothing."""
    if not pretrained(run):
        return ""
    return (f" The models of all seeds began with the weights of {pretrained(run)}: seeds differ "
            "in the layers of the head that the file lacks, in the order of the samples and in "
            "dropout. The ceiling and all values across seeds compare M_Rs of different seeds. "
            "These have nearly all starting weights in common, and so resemble each other more "
            "than models of independent starts.")


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _listed(values: list[int]) -> str:
    return " and ".join([", ".join(map(str, values[:-1])), str(values[-1])]
                        if len(values) > 1 else map(str, values))
