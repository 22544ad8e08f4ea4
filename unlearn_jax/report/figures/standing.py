"""Where each model stands between M_O and M_R: one number of each, with its interval."""

import dataclasses
import math

import numpy as np

from unlearn_jax.report.figures.style import Made, canvas, label, look, plain
from unlearn_jax.report.render import hover
from unlearn_jax.report.tables.inputs import ModelKey, Run
from unlearn_jax.report.tables.names import Metric
from unlearn_jax.report.tables.stats import estimate

MOST_BUDGETS = 8  # unlearned models that are drawn with all of their budgets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What a picture compares.

    Attributes:
      title: above the picture.
      metric: the numbers.
      margin: by how much a model may differ from M_R, in the metric's unit; NaN: not known.
      below, above: whether the margin bounds a model that lies below M_R, or above it.
    """

    title: str
    metric: Metric
    margin: float = math.nan
    below: bool = True
    above: bool = True


def shown(run: Run, forget_set: str) -> list[ModelKey]:
    """M_O, the unlearned models and M_R; of many models each method's largest budget."""
    found = [m for m in run.models(forget_set) if m.method != "median"]
    if len(found) > MOST_BUDGETS + 2:
        found = list({m.method: m for m in found}.values())  # ascending budgets
    return sorted(found, key=lambda m: (m.method == "retrain") - (m.method == "original"))


def standing(run: Run, forget_set: str, question: Question) -> Made | None:
    """One line for each model; None where none has a value."""
    metric = question.metric
    scale = 100 if metric.percent else 1
    found = {m: e for m in shown(run, forget_set)
             if (e := estimate(run.values(m, forget_set, metric.name))).n}
    if not found:
        return None
    figure, axes = canvas(3.7, 0.62 + (0.24 if len(found) < 9 else 0.17) * len(found))
    ax = axes[0, 0]
    ends: list[float] = []
    for row, (model, e) in enumerate(found.items()):
        style, half = look(run, model), float(np.nan_to_num(e.half)) * scale
        mean = e.mean * scale
        bars = ax.errorbar(mean, row, xerr=half, fmt=style.marker, color=style.color, ms=5,
                           elinewidth=1.4, label=label(model))
        hover.note(bars, label(model), hover.interval([e.low * scale], [e.high * scale]))
        ends += [mean - half, mean + half]
    reference = next((m for m in found if m.method == "retrain"), None)
    if reference:
        middle, color = found[reference].mean * scale, look(run, reference).color
        ax.axvline(middle, color=color, lw=0.9, ls="--", zorder=1)
        if math.isfinite(question.margin):
            reach = question.margin * scale
            low, high = middle - reach, middle + reach
            ends += [low] * question.below + [high] * question.above
            left, right = _limits(ends, metric)
            ax.axvspan(low if question.below else left, high if question.above else right,
                       color=color, alpha=0.12, lw=0, zorder=0)
    ax.set_xlim(*_limits(ends, metric))
    ax.set_ylim(len(found) - 0.4, -0.6)  # the first model on top
    ax.set_yticks(range(len(found)), [label(m) for m in found])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(plain(metric.header))
    ax.set_title(question.title)
    title = question.title.replace("$", "")
    return figure, f"{title}, forget set {forget_set}", title


def _limits(ends: list[float], metric: Metric) -> tuple[float, float]:
    """Room for all intervals, within what the metric can be: at least 0, a share at most 1."""
    finite = [x for x in ends if math.isfinite(x)]
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    top = 100.0 if metric.percent else 1.0 if metric.name.endswith("_auc") else math.inf
    return max(low - room, 0.0), min(high + room, top)
