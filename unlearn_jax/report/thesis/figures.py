"""The reference study's figures 1 to 12, redrawn from a run of it: one style, units on all axes."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unlearn_jax.report.figures.samples import chosen, predictions
from unlearn_jax.report.figures.style import (
    INK,
    QUIET,
    SHADE,
    Made,
    axis_label,
    bars,
    canvas,
    label,
    legend,
    look,
    plain,
    shade,
)
from unlearn_jax.report.output import Output
from unlearn_jax.report.render import hover
from unlearn_jax.report.render.document import Figure
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.thesis import network

_GREY, _COPIES = "#7d7d7d", "#56b4e9"
_SPLITS = (("train", "training"), ("validation", "validation"), ("test", "test"))


def draw(run: Run, output: Output) -> Iterator[Figure]:
    """Every figure that the run has the data for, in the study's order.

    Args:
      run: a run that repeats the study (`arms.is_study`).
    """
    makers: list[tuple[str, Callable[..., Made | None], tuple]] = [
        ("01-model", network.draw, (run,)),
        ("02-full", _ages, (run, "all", "The data set as it was read")),
        ("03-reduced", _ages, (run, "fraction", "Reduced, stratified by age")),
        ("04-filtered", _filtered, (run,)),
        ("05-split", _split, (run, ("train", "validation", "test"),
                              "Training, validation and test set")),
        ("06-split-shares", _shares, (run,)),
        ("07-balanced", _balanced, (run,)),
        ("08-balanced-split", _split, (run, ("balanced", "validation", "test"),
                                       "The same after balancing the training set")),
        ("09-alpha", _alpha, (run,)),
        ("10-groups", _groups, (run,)),
    ]
    first = run.forget_sets[0]
    budgets = sorted({m.epochs for m in run.unlearned(first)})
    if run.data["histograms"] and budgets:
        makers += [(f"{number}-errors-{budget}-epochs", _errors, (run, first, budget))
                   for number, budget in ((11, budgets[0]), (12, budgets[-1]))]
    for name, maker, args in makers:
        yield from output.draw(f"study-{name}", _numbered, int(name[:2]), maker, *args)


def _numbered(number: int, maker: Callable[..., Made | None], *args) -> Made | None:
    """What a maker draws, under the study's number."""
    made = maker(*args)
    if made is None:
        return None
    figure, alt, caption = made
    return (figure, f"Figure {number} of the study: {alt}",
            f"Figure {number} of the study. {caption}")


def _ages(run: Run, step: str, title: str) -> Made | None:
    """One histogram; the range that the next step keeps is shaded."""
    counts = run.data["histograms"].get(step)
    if counts is None:
        return None
    figure, axes = canvas(7.0, 2.7)
    ax = axes[0, 0]
    _histogram(run, ax, counts, title)
    kept = run.data["histograms"].get("range")
    if kept:
        low, high = (f(map(float, kept)) for f in (min, max))
        ax.axvspan(low - 0.5, high + 0.5, color=SHADE, alpha=0.16, lw=0, zorder=0)
        ax.text((low + high) / 2, 0.98, f"{low:g} to {high:g} are kept",
                transform=ax.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    _axes(run, ax)
    return figure, f"{title}, by {run.label}", (
        f"{title}: {sum(counts.values()):,} images of {run.data['source']} by {run.label}. Shaded: "
        "the range that is kept.")


def _filtered(run: Run) -> Made | None:
    """The range that is kept, with the images that the quality filter dropped on top."""
    steps = run.data["histograms"]
    before, after = steps.get("range"), steps.get("quality")
    if before is None:
        return None
    figure, axes = canvas(7.0, 2.7)
    ax = axes[0, 0]
    if after:
        at, heights, width = bars(run, before)
        hover.note(ax.bar(at, heights, width, color=SHADE, lw=0, label="dropped as defective"),
                   "before the quality filter")
    kept = after or before
    _histogram(run, ax, kept, "kept")
    ax.set_title(f"Ages in range: {sum(kept.values()):,} images")
    _axes(run, ax)
    legend(ax, "above right")
    dropped = sum(before.values()) - sum(kept.values())
    note = (f"The quality filter dropped {dropped:,} of them (dropped.csv lists them)." if after
            else "The config sets no quality filter.")
    return figure, f"images by {run.label} after the filters", (
        f"The reduced data within the range of {run.label}s that is kept. {note}")


def _split(run: Run, steps: tuple[str, ...], title: str) -> Made | None:
    """Histograms of three sets, one above the other."""
    found = [run.data["histograms"].get(step) for step in steps]
    if None in found:
        return None
    figure, axes = canvas(7.0, 4.6, 3, 1, sharex=True)
    for ax, (_, name), counts in zip(axes[:, 0], _SPLITS, found):
        _histogram(run, ax, counts, name)
        for i, forget_set in enumerate(run.forget_sets):
            if i % 2 == 0:
                shade(run, ax, forget_set, text=False)
        ax.grid(axis="x", visible=False)
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[-1, 0].set_xlabel(axis_label(run))
    figure.supylabel("images", fontsize=9)
    return figure, f"{title}, by {run.label}", (
        f"{title}: {', '.join(f'{sum(c.values()):,} {n}' for c, (_, n) in zip(found, _SPLITS))} "
        f"images by {run.label}. The counts' scales differ. Shaded: every other forget set.")


def _shares(run: Run) -> Made | None:
    """The same three sets as shares, so that their shapes can be compared."""
    found = [run.data["histograms"].get(step) for step, _ in _SPLITS]
    if None in found:
        return None
    figure, axes = canvas(7.0, 3.0)
    ax = axes[0, 0]
    for counts, (_, name), color, marker in zip(found, _SPLITS, ("#0072b2", "#d55e00", "#009e73"),
                                                "os^"):
        at, heights, _ = bars(run, counts)
        share = 100 * heights / heights.sum()
        ax.plot(at, share, color=color, marker=marker, ms=3, lw=1, label=name)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(axis_label(run))
    ax.set_ylabel("share of the set (%)")
    legend(ax, "above")
    return figure, f"shares of each {run.label} in the three sets", (
        "The sets of figure 5 as shares. " + (
            "The splits came with the data." if run.given_splits else
            f"The random split should give each the same mixture of {run.label}s."))


def _balanced(run: Run) -> Made | None:
    """The training set and its augmented copies."""
    before, after = (run.data["histograms"].get(s) for s in ("train", "balanced"))
    if before is None or after is None:
        return None
    figure, axes = canvas(7.0, 2.9)
    ax = axes[0, 0]
    at, heights, width = bars(run, after)
    copies = [after[k] - before.get(k, 0) for k in after]
    hover.note(ax.bar(at, heights, width, color=_COPIES, lw=0, label="augmented copies"),
               "with copies", [f"{n:,} copies" for n in copies])
    _histogram(run, ax, before, "photographs")
    aim = run.run["config"].get("data", {}).get("balance", 0)
    if aim:
        ax.axhline(aim, color=INK, lw=0.8, ls=":")
        ax.text(1, aim, f"{aim}", transform=ax.get_yaxis_transform(), fontsize=8, va="center")
    ax.set_title("")
    _axes(run, ax)
    legend(ax, "above")
    return figure, f"training set after balancing, by {run.label}", (
        f"The training set after balancing: {sum(before.values()):,} photographs and "
        f"{sum(copies):,} augmented copies"
        + (f"; {run.label}s below {aim} images are filled up to it (dotted), those above stay."
           if aim else "; the config sets no balancing."))


def _alpha(run: Run) -> Made:
    """exp(-E / alpha) for every alpha of the run."""
    alphas = run.run["config"]["eval"].get("alphas") or [2, 5, 10, 15, 20, 25, 30, 35]
    figure, axes = canvas(7.0, 3.8)
    ax = axes[0, 0]
    x = np.linspace(0, 60, 121)
    for i, alpha in enumerate(sorted(alphas)):
        strength = 0.35 + 0.65 * i / max(len(alphas) - 1, 1)
        own = alpha == run.alpha
        color = "#d55e00" if own else tuple(1 - strength * (1 - c) for c in (0.0, 0.27, 0.45))
        y = np.exp(-x / alpha)
        ax.plot(x, y, "-", color=color, lw=2.4 if own else 1.3, label=f"α = {alpha:g}",
                zorder=3 if own else 2)
        ax.annotate(f"{alpha:g}", (np.log(2) * alpha, 0.5), xytext=(2, 3), fontsize=8, color=INK,
                    textcoords="offset points", fontweight="bold" if own else "normal")
    ax.axhline(0.5, color=QUIET, lw=0.7, ls=":")
    ax.set_xlim(0, 60)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(plain(f"E = |r − e|, difference of the absolute errors ({run.unit})"))
    ax.set_ylabel("f = exp(−E / α)")
    legend(ax)
    return figure, "exp(−E / α) against E for each α", (
        "The weight that Forgetting gives to a difference E between the absolute errors of M_R and "
        f"of a model, for each α in {run.unit}; thick: the run's α, {run.alpha:g}. A difference of "
        "0.69 α has weight 0.5 (dotted).")


def _groups(run: Run) -> Made:
    """How many images each forget set holds."""
    sets = run.data["forget_sets"]
    figure, axes = canvas(7.0, 3.0)
    ax = axes[0, 0]
    at = np.arange(len(sets))
    train, validation = (np.array([e[k] for e in sets.values()])
                         for k in ("train", "validation"))
    hover.note(ax.bar(at, train, 0.62, color=_GREY, lw=0, label="training"), "training")
    hover.note(ax.bar(at, validation, 0.62, train, color=_COPIES, lw=0, label="validation"),
               "validation", [f"{t + v:,} together" for t, v in zip(train, validation)])
    for x, total in zip(at, train + validation):
        ax.text(x, total, f"{total:,}", ha="center", va="bottom", fontsize=8.5)
    ax.set_xticks(at, list(sets))
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.12)
    ax.set_xlabel(f"forget set ({run.label}s, {run.unit}, both ends included)")
    ax.set_ylabel("images")
    legend(ax, "above")
    return figure, "images of each forget set", (
        "Images of each forget set, training and validation, without copies. Neighbouring sets "
        "share the age at their border, so their sum counts those images twice.")


def _errors(run: Run, forget_set: str, budget: int) -> Made:
    """100 samples of D_f and of the test set, one row for each model, M_R behind each."""
    models = [run.reference(forget_set, "original"),
              *(m for m in run.unlearned(forget_set) if m.epochs == budget)]
    reference = run.reference(forget_set, "retrain")
    figure, axes = canvas(8.4, 1.35 * len(models) + 0.9, len(models), 2, sharex=True, sharey=True)
    used = 0
    for column, (split, title) in enumerate((("forget", "forget set $D_f$"), ("test", "test set"))):
        found = predictions(run, forget_set, split, [reference, *models])
        if reference not in found:
            continue
        rows = chosen(found[reference].ids)
        used = max(used, len(rows))
        theirs = found[reference].errors.mean(axis=0)[rows]
        order = np.argsort(theirs, kind="stable")
        labels = found[reference].labels[rows][order]
        for ax, model in zip(axes[:, column], models):
            if model in found:
                mine = found[model].errors.mean(axis=0)[rows]
                _against(run, ax, model, mine[order], theirs[order], labels)
            ax.set_title(title if ax is axes[0, column] else "")
            if column == 0:
                latest = ModelKey(model.method, _most(run, model))
                ax.set_ylabel(label(ModelKey(model.method, 0)).split(",")[0], rotation=0,
                              ha="right", va="center", color=look(run, latest).color)
        axes[-1, column].set_xlabel(r"sample, in the order of $M_\mathrm{R}$'s error")
    axes[0, 0].set_ylim(bottom=0)
    figure.supylabel(plain(f"absolute error ({run.unit})"), fontsize=9)
    return figure, f"absolute errors on single samples after {budget} epochs", (
        f"Absolute errors after {budget} epochs of unlearning {forget_set}, mean over seeds, on "
        f"{used} samples of D_f and as many of the test set, chosen at random once and the same "
        "for every model. Grey line: M_R, whose errors order the samples; dots: the model; bars "
        "join the two, and are what Forgetting counts. The study's captions name the test set, but "
        "the errors of M_O in its figures are those of training samples, so both are drawn.")


def _against(run: Run, ax: Axes, model: ModelKey, mine: np.ndarray, theirs: np.ndarray,
             labels: np.ndarray) -> None:
    style = look(run, ModelKey(model.method, _most(run, model)))
    x = np.arange(len(mine))
    ax.vlines(x, theirs, mine, color=style.color, alpha=0.35, lw=0.7)
    [line] = ax.plot(x, theirs, "-", color="#555555", lw=1.4)
    [dots] = ax.plot(x, mine, style.marker, color=style.color, ms=2.8, mew=0)
    truth = [f"true {run.label} {v:g}" for v in labels]
    hover.note(line, r"$M_\mathrm{R}$", truth)
    hover.note(dots, label(model), truth)
    ax.margins(x=0.01)
    ax.grid(axis="x", visible=False)


def _most(run: Run, model: ModelKey) -> int:
    """The method's largest budget, whose colour is not pale."""
    return max(m.epochs for fs in run.forget_sets for m in run.models(fs)
               if m.method == model.method)


def _histogram(run: Run, ax: Axes, counts: dict[str, int], name: str) -> None:
    at, heights, width = bars(run, counts)
    drawn = ax.bar(at, heights, width, color=_GREY, ec=_GREY, lw=0.3, label=name)
    hover.note(drawn, plain(name))
    ax.set_title(f"{plain(name)}: {sum(counts.values()):,} images")


def _axes(run: Run, ax: Axes) -> None:
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel(axis_label(run))
    ax.set_ylabel("images")
