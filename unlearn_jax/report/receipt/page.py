"""The page of a receipt, for a manager or a lawyer."""

import collections
import shlex
from collections.abc import Iterator, Sequence

from unlearn_jax.report.receipt.deploy import choose
from unlearn_jax.report.receipt.remains import KINDS, UNREAD, Remaining
from unlearn_jax.report.receipt.requests import BETWEEN, Requested
from unlearn_jax.report.render.document import (
    Block,
    Cell,
    Code,
    Document,
    Items,
    Section,
    Table,
    Text,
)
from unlearn_jax.report.tables.inputs import UNFINISHED, ModelKey, Run
from unlearn_jax.report.tables.judgement import (
    DAMAGED,
    FORGOTTEN,
    NOT_FORGOTTEN,
    UNDECIDED,
    Judgement,
    judge,
)
from unlearn_jax.report.tables.names import Metric, describe, model_symbol
from unlearn_jax.report.tables.stats import estimate

_MOST_PATHS = 3  # of a kind on the page; remains.csv has all
_MEANS = {
    FORGOTTEN: "no test tells this model from one that never saw the images, and the tests are "
               "precise enough to say so",
    NOT_FORGOTTEN: "a test finds that this model still remembers the images",
    DAMAGED: "this model differs from one that never saw the images in another way: it is less "
             "useful, or errs where that one does not",
    UNDECIDED: "the tests are not precise enough to say, or a test is missing",
}


def build(run: Run, requests: Sequence[Requested], left: Sequence[Remaining]) -> Document:
    """The whole page.

    Args:
      run: the work directory.
      requests: its deletion requests.
      left: what is left of the images.
    """
    sections = [section for request in requests for section in _of_request(
        run, request, f" ({request.forget_set})" * (len(requests) > 1))]
    warning = () if run.run.get("finished", True) else (
        Text(UNFINISHED.format(run.workdir), strong=True),)
    return Document("Receipt of a deletion request", (
        *warning,
        Text("This page answers a request to remove images from a trained model. It says what was "
             "asked, what was done, what tests found, which model to use, and what is left.")),
        (*sections, _remaining(run, left), _limits(run, requests)))


def _of_request(run: Run, request: Requested, suffix: str) -> Iterator[Section]:
    judgements = [judge(run, request.forget_set, model)
                  for model in run.unlearned(request.forget_set)]
    yield Section(f"What was asked{suffix}", (
        Text(f"The file {request.file} asks to remove {_many(len(request.asked), 'image')}."),
        Items(tuple(_asked(request))), *_retained(request)))
    yield Section(f"What was done{suffix}", (Text(_done(run, request, judgements)),))
    yield Section(f"What the tests say{suffix}", tuple(_tests(run, request, judgements)))
    yield Section(f"Which model to use{suffix}", tuple(_deployed(run, request, judgements)))


def _asked(request: Requested) -> Iterator[str]:
    counts = collections.Counter(request.asked["split"])
    for split, meaning in (
            ("train", "the model was trained on them"),
            ("validation", "they chose the best epoch; the model was not trained on them"),
            ("test", "they were kept for tests; the model was not trained on them"),
            ("left out", "they are outside the share or the range of labels that was used; the "
                         "model was not trained on them"),
            ("dropped", "they could not be used, for the reason in receipt.csv")):
        if counts[split]:
            yield f"{counts[split]} found ({split}): {meaning}."
    if unknown := request.named("split", "unknown"):
        yield (f"{len(unknown)} unknown, which the data do not have; skipped: "
               f"{', '.join(unknown)}.")
    twice = request.asked[request.asked.times > 1]
    if len(twice):
        yield "Asked for more than once: " + ", ".join(
            f"{text} ({times} times)" for text, times in zip(twice.asked, twice.times)) + "."
    inside = [own for own, same in zip(request.asked["id"], request.asked.equal_images)
              if set(same.split(BETWEEN)) & set(request.ids)]
    if inside:
        yield f"Equal images among those asked for: {', '.join(inside)}."
    if len(request.unasked):
        names = [f"{own} ({split}, the same image as {same})" for own, split, same in zip(
            request.unasked["id"], request.unasked["split"], request.unasked.equal_images)]
        yield f"Not asked for, but the same image as one that was: {', '.join(names)}."
    elsewhere = request.asked[(request.asked.trained_on == "no")
                              & (request.asked.image_trained_on == "yes")]
    if len(elsewhere):
        yield ("The model was trained on the same image under another id: "
               f"{', '.join(elsewhere.asked)}.")


def _retained(request: Requested) -> tuple[Block, ...]:
    """The warning of images that stay in the training data under another id."""
    retained = request.named("image_retained", "yes")
    if not retained:
        return ()
    return (Text("Attention: an equal image was not asked for and stays in the training data, so "
                 f"every model of this run has learned the image of {', '.join(retained)}. Ask for "
                 "the equal images, too, and repeat the run.", strong=True),)


def _done(run: Run, request: Requested, judgements: Sequence[Judgement]) -> str:
    counts, seeds = run.data["counts"], len(run.seeds)
    methods = ", ".join(f"{model_symbol(j.model)} (method {j.model.method})" for j in judgements)
    trained = int((request.asked.trained_on == "yes").sum())
    return (
        f"The original model M_O was trained on {counts['train']:,} images; {trained} of them "
        f"{'is' if trained == 1 else 'are'} asked for. "
        + (f"It was unlearned: {methods}. " if methods else "Nothing was unlearned. ")
        + ("For comparison, M_R was trained from the start without what was asked for. "
           if run.only(request.forget_set, "retrain") else "")
        + f"All of this was done {seeds} time{'s' * (seeds != 1)} with other random numbers "
        f"(seeds {', '.join(map(str, run.seeds))}), in a run that began on "
        f"{str(run.run.get('started', ''))[:10]}. The data have the fingerprint "
        f"{run.data['fingerprint']}; the command was: {run.run['command']}")


def _tests(run: Run, request: Requested, judgements: Sequence[Judgement]) -> Iterator[Block]:
    for j in judgements:
        more = (f" About {j.seeds_needed} seeds would decide, there are {j.seeds}."
                if j.word == UNDECIDED and j.seeds_needed > j.seeds else "")
        yield Text(f"{model_symbol(j.model)}: {j.word}.", strong=True)
        yield Text(f"This means: {_MEANS.get(j.word, 'see the report')}. The reason: "
                   f"{j.reason}.{more}")
    models = [run.only(request.forget_set, "original"), *(j.model for j in judgements),
              run.only(request.forget_set, "retrain")]
    kind = "accuracy" if run.classification else "mae"
    metrics = [describe(run, name) for name in (f"{kind}_forget", "mia_auc", f"{kind}_test")]
    rows = tuple((Cell(model_symbol(model)),
                  *(_number(run, request.forget_set, model, metric) for metric in metrics))
                 for model in models if model is not None)
    yield Table(
        "The numbers behind it, means over seeds. A model that has forgotten is as M_R in each "
        "column.",
        (("model", "M_O: the original; M_R: trained without the images; the others: unlearned"),
         (f"on the images asked for: {metrics[0].header}", "how well the model knows the images "
                                                           "that it should forget (D_f)"),
         (f"attack: {metrics[1].header}", "how well an attack tells these images from images that "
                                          "the model never saw: 0.5 is guessing, 1 is always"),
         (f"usefulness: {metrics[2].header}", "the same on test images that no model saw")), rows)


def _number(run: Run, forget_set: str, model: ModelKey, metric: Metric) -> Cell:
    values = run.values(model, forget_set, metric.name)
    if not values.notna().any():
        return Cell("not measured")
    found = estimate(values)
    return Cell(metric.text(found.mean), sort=found.mean)


def _deployed(run: Run, request: Requested, judgements: Sequence[Judgement]) -> Iterator[Block]:
    if request.named("image_retained", "yes"):
        yield Text("None of this run: an equal image stays in the training data of all, M_R among "
                   "them. Ask for the equal images, too, and repeat the run.", strong=True)
        return
    choices = choose(run, request.forget_set, judgements)
    if not choices:
        yield Text("No model of this run may be used: none is shown to have forgotten, and none "
                   "was trained without the images.", strong=True)
    for i, choice in enumerate(choices):
        lead = "Use" if i == 0 else "Or use"
        where = (f": {choice.path / 'checkpoint'}" if choice.path else
                 ", but the store no longer has it: repeat the command of the run")
        yield Text(f"{lead} {choice.name} of seed {choice.seed} ({choice.why}){where}",
                   strong=i == 0)
        if choice.command:
            yield Code(choice.command)
    yield Text("Among the seeds, the one with the least error on validation images is named. Do "
               "not use M_O any longer.")


def _remaining(run: Run, left: Sequence[Remaining]) -> Section:
    items = []
    for kind in KINDS:
        found = [r for r in left if r.kind == kind]
        if not found:
            continue
        others = sum(not r.of_this_run for r in found)
        more = len(found) - _MOST_PATHS
        note = f", {others} of other runs" if others else ""
        note += "; unlearn-jax forget-data removes " + (
            "them" if all(r.removed for r in found) else "some of them") if any(
                r.removed for r in found) else ""
        items.append(f"{kind[:1].upper()}{kind[1:]}: {len(found)}{note}. "
                     + "; ".join(f"{r.path} ({r.what})" for r in found[:_MOST_PATHS])
                     + (f"; and {more} more in remains.csv" if more > 0 else ""))
    items.append("Not known to this program: exported models, copies of the store, backups, and "
                 "work directories elsewhere.")
    store = run.run.get("store", "")
    blocks: list[Block] = [Items(tuple(items))]
    if any(r.removed for r in left) and store:
        blocks += [Text("To remove from the store what can be removed: write the ids into one file "
                        "and run this; without --yes it only says what it would do."),
                   Code(f"unlearn-jax forget-data {shlex.quote(store)} --ids=FILE --yes")]
    if any(r.kind == UNREAD for r in left):
        blocks.append(Text("Of some parts of the store it is not known what they have seen: see "
                           "remains.csv.", strong=True))
    return Section("What is left, and where", tuple(blocks))


def _limits(run: Run, requests: Sequence[Requested]) -> Section:
    audits = run.run["config"].get("eval", {}).get("audits", ())
    alone = sum(len(r.ids) for r in requests) < 20
    return Section("What these tests cannot show", (Items((
        "They compare with M_R on averages. An attack of another kind may find more; the attacks "
        f"of this run were: {', '.join(audits) if audits else 'none'}.",
        "An average says little about one image: receipt.csv has the loss of each, and the share "
        "of unseen images that the model knows less well (0.5 is usual; near 1, it may remember)."
        + (" With so few images the averages themselves are uncertain." if alone else ""),
        "Equal images were found by their pixels, as the model sees them. Other photographs of "
        "the same person or thing, crops and re-encoded copies are not found by this.",
        "Images that the data leave out were compared with none.",
        "They say nothing about copies of models and images outside this store and this folder.",
        "They measure; whether a law is satisfied is not theirs to say.")),))


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
