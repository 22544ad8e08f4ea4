"""The part of a report on one forget set: tables of results, explanations, pictures."""

from collections.abc import Callable

from unlearn_jax.report.figures import classes, reference, results, samples, style
from unlearn_jax.report.output import Output
from unlearn_jax.report.render.document import Block, Figure, Section, Text
from unlearn_jax.report.sections import explained, headline, layers, touched
from unlearn_jax.report.tables.inputs import Run


def section(run: Run, forget_set: str, output: Output) -> Section:
    """The headline table, and below it one section for each kind of result that the run has.

    Pictures are drawn for the first forget sets alone.
    """
    shown = forget_set in run.forget_sets[:style.MOST_SETS]
    output = output if shown else Output()
    sections = (
        _titled("Speed-up of the deletion", headline.speedups(run, forget_set)),
        _titled("Forgetting against α", headline.by_alpha(run, forget_set), *output.draw(
            f"forgetting-{forget_set}", results.forgetting, run, forget_set)),
        _titled("Averaged prediction", headline.averaged(run, forget_set)),
        _titled("Audits", headline.few_seeds(run), *headline.audits(run, forget_set)),
        _titled("Further measures", headline.others(run, forget_set)),
        touched.section(run, forget_set),
        layers.section(run, forget_set, output),
        explained.section(run, forget_set, output),
        _titled("Figures", *_remarks(run, forget_set, shown),
                *_pictures(run, forget_set, output)))
    return Section(f"Forget set {forget_set}", (headline.headline(run, forget_set),),
                   tuple(s for s in sections if s is not None))


def _titled(title: str, *blocks: Block | None) -> Section | None:
    """The blocks that the run has, under a title; None where it has none."""
    found = tuple(block for block in blocks if block is not None)
    return Section(title, found) if found else None


def _remarks(run: Run, forget_set: str, shown: bool) -> list[Block]:
    """What the pictures leave out."""
    found = []
    if len({m.method for m in run.unlearned(forget_set)}) > style.MOST_METHODS:
        found.append(f"The pictures of samples and of training show the {style.MOST_METHODS} "
                     "methods of highest Forgetting; the tables show all.")
    if not shown:
        found.append(f"Not drawn: figures are drawn for the first {style.MOST_SETS} forget sets "
                     f"({', '.join(run.forget_sets[:style.MOST_SETS])}).")
    if run.history is None:
        found.append("No training curves: the work directory has no history.csv.")
    return [Text(text) for text in found]


def _pictures(run: Run, forget_set: str, output: Output) -> list[Figure]:
    """From training over single samples to whole models."""
    makers: dict[str, Callable[[Run, str], style.Made | None]] = {
        "training": results.training, "plane": reference.plane, "balance": samples.balance,
        "sample-errors": samples.sample_errors, "sorted-errors": samples.sorted_errors}
    if run.classification:
        makers |= {"accuracy-by-class": classes.accuracy_by_class, "confusion": classes.confusion}
    else:
        makers |= {"predicted": samples.predicted, "error-by-label": samples.error_by_label,
                   "agreement": reference.agreement}
    return [figure for name, maker in makers.items()
            for figure in output.draw(f"{name}-{forget_set}", maker, run, forget_set)]
