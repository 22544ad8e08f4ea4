"""What models and metrics are called in the report, and how each metric is defined."""

import dataclasses
import re

from unlearn_jax.report.audit_names import AUDIT_METRICS
from unlearn_jax.report.tables.files import field
from unlearn_jax.report.tables.inputs import ModelKey, Run

_TITLES = {
    "original": "original M_O",
    "retrain": "retrained M_R",
    "ft": "fine-tuned M_FT",
    "rnd": "random labels M_RND",
    "rnd_offset": "random labels near the true ones M_RND_OFFSET",
    "rnd_units": "the same with the published unit error M_RND_UNITS",
    "sisa_original": "SISA before deletion M_SISA_O",
    "sisa": "SISA after deletion M_SISA",
}
# M_O, D_f, M_RND_OFFSET, M_KGLTOP1, M_FT+B in a text: the letter, what is below it, and the s of a
# plural.
SYMBOL = re.compile(r"\b([MD])_([A-Z0-9]+(?:[_+-]+[A-Z0-9]+)*|[a-z]+)(s?)(?!\w)")
ENSEMBLES = ("sisa_original", "sisa")  # trained on their own: they do not start from M_O
SPEEDUP = "sisa_speedup_"
SPLIT_NAMES = {
    "test": "the test set",
    "forget": "D_f, the forget set (training and validation samples that are to be forgotten)",
    "retain": "D_r, the training samples that stay",
    "validation": "the validation set",
}


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      name: as in results.csv.
      header: column title.
      definition: formula, unit and how to read it.
      decimals: digits after the point.
      percent: whether the value is shown times 100.
      infinite: what stands for an infinite value.
    """

    name: str
    header: str
    definition: str
    decimals: int = 3
    percent: bool = False
    infinite: str = "∞"

    def text(self, value: float) -> str:
        text = f"{value * (100 if self.percent else 1):,.{self.decimals}f}"
        return text.replace("-", "−")


def symbol(method: str) -> str:
    """M_O, M_R, M_FT, ...: as in the reference study, and by analogy."""
    title = _TITLES.get(method)
    return title.split()[-1] if title else f"M_{method.upper()}"


def model_title(run: Run, model: ModelKey) -> str:
    """A row's name, without the budget."""
    if model.method == "median":
        return "majority class (baseline)" if run.classification else "median (baseline)"
    return _TITLES.get(model.method, f"{model.method} {symbol(model.method)}")


def model_symbol(model: ModelKey) -> str:
    """A short name with the budget: `M_FT, 2 epochs`."""
    if model.method in ("median", "original", "retrain"):
        return "median" if model.method == "median" else symbol(model.method)
    return f"{symbol(model.method)}, {model.epochs} epoch{'' if model.epochs == 1 else 's'}"


def describe(run: Run, name: str) -> Metric:
    """How a metric of results.csv is shown; one it does not know is shown under its own name."""
    unit, error = run.unit, _error_formula(run)
    if match := re.fullmatch(r"mae_(\w+)", name):
        return Metric(name, f"MAE {match[1]} ({unit})",
                      f"mean of |predicted − true| over {_split(match[1])}, in {unit}; "
                      "lower is closer to the truth", 2)
    if match := re.fullmatch(r"accuracy_(\w+)@(.+)", name):
        return Metric(name, f"within ±{match[2]} {match[1]} (%)",
                      f"share of {_split(match[1])} with |predicted − true| ≤ {match[2]} {unit}, "
                      "in %", 1, True)
    if match := re.fullmatch(r"accuracy_(\w+)", name):
        return Metric(name, f"accuracy {match[1]} (%)",
                      f"share of {_split(match[1])} whose largest output is the true class, in %",
                      1, True)
    if match := re.fullmatch(r"error_(\w+)", name):
        return Metric(name, f"1 − p {match[1]}",
                      f"mean of 1 − p(true class) over {_split(match[1])}")
    if match := re.fullmatch(r"forgetting@(.+)", name):
        return Metric(name, f"Forgetting@{match[1]}",
                      f"mean over D_f of exp(−|r − e| / α) with α = {match[1]}{_alpha_unit(run)}, "
                      f"where r and e are {error} of M_R and of the model on the same sample; "
                      "1: errs exactly as M_R. M_R of the same seed: both grew from the same "
                      "initial weights, and may agree more than M_Rs of two seeds do")
    if match := re.fullmatch(r"forgetting_across@(.+)", name):
        return Metric(name, f"Forgetting@{match[1]} across seeds",
                      f"the same mean (α = {match[1]}{_alpha_unit(run)}) against the M_Rs of every "
                      f"other seed, which {start_of_others(run)}: to be compared with the "
                      "ceiling. Interval: jackknife over seeds, from three on")
    if match := re.fullmatch(r"ceiling@(.+)", name):
        return Metric(name, f"ceiling@{match[1]}",
                      f"the same mean (α = {match[1]}{_alpha_unit(run)}) for M_R against the M_R "
                      f"of every other seed, which {start_of_others(run)}: what a perfect method "
                      "reaches across seeds, given the noise of training. No "
                      "bound of Forgetting against the M_R of the same seed. Interval: jackknife "
                      "over seeds, from three on")
    if match := re.fullmatch(r"F@(.+)", name):
        return Metric(name, f"F@{match[1]}", f"utility × Forgetting@{match[1]}")
    for pattern, (header, definition, decimals, percent) in AUDIT_METRICS.items():
        if match := re.fullmatch(pattern, name):
            found = Metric(name, match.expand(header), match.expand(definition), decimals, percent)
            if name != "relearn_epochs":
                return found
            return dataclasses.replace(found, infinite=_longer(run))
    if name in _fixed(run):
        return Metric(name, *_fixed(run)[name])
    return Metric(name, name, f"the metric {name!r} of results.csv")


def pretrained(run: Run) -> str:
    """The file of weights that the models of all seeds began with; '' where none did."""
    runs = run.run.get("merged") or [run.run]
    return ", ".join(sorted({r["config"].get("model", {}).get("pretrained", "") for r in runs}
                            - {""}))


def start_of_others(run: Run) -> str:
    """How the M_Rs of other seeds began, to stand behind “which”."""
    if pretrained(run):
        return ("began with the same pretrained weights as well, but for the layers of the head "
                "that the file lacks")
    return "started from other weights"


def _longer(run: Run) -> str:
    """What stands for more epochs of relearning than were made; merged runs may differ in them."""
    runs = run.run.get("merged") or [run.run]
    made = {field(r, "run.json", "config.eval.relearn_epochs", int) for r in runs} - {0}
    return f"> {made.pop()}" if len(made) == 1 else "∞"


def _fixed(run: Run) -> dict[str, tuple]:
    utility = ("accuracy_test(M_e) / accuracy_test(M_R), M_e being the model of the row"
               if run.classification else
               "MAE_test(M_R) / MAE_test(M_e), M_e being the model of the row")
    return {
        "utility": ("utility", f"{utility}; above 1: better on the test set than M_R"),
        "images_vs_retrain": ("images (% of M_R)", "images trained on (each epoch counts, and so "
                              "do passes of preparation), in % of those of M_R with the same seed. "
                              "A further pass of the same image through a teacher is not counted: "
                              "FLOPs do", 1, True),
        "flops_vs_retrain": ("FLOPs (% of M_R)", "floating-point operations of preparation and "
                             "steps, in % of those of M_R with the same seed", 1, True),
        "flops": ("FLOPs", "floating-point operations of preparation and steps", 0),
        "wall_vs_retrain": ("time (% of M_R)", "training time, in % of that of M_R with the same "
                            "seed; timed once for all seeds together, so no interval", 1, True),
        "images": ("images", "images trained on, each epoch counted", 0),
        "steps": ("steps", "updates of the weights, those of other models in preparation "
                  "included", 0),
        "steps_vs_retrain": ("steps (% of M_R)", "updates of the weights, those of other models "
                             "in preparation included, in % of those of M_R with the same seed", 1,
                             True),
        "wall_seconds": ("time (s)", "training time in seconds: the member's share of its "
                         "population, compilation excluded; timed once, so no interval", 1),
        "epochs_trained": ("epochs trained", "epochs behind the weights that were kept", 1),
        f"{SPEEDUP}measured_wall": (
            "measured, time", "training time of M_R over that of the deletion, compilation "
            "excluded; the times are of different runs if a model came from the store, and timed "
            "once for all seeds, so no interval", 2),
        f"{SPEEDUP}measured_images": (
            "measured, images", "images that M_R trained on over those that the deletion trained "
            "on again", 2),
        f"{SPEEDUP}expected": (
            "expected", "by counting: the images that M_R is to train on, over the mean of those "
            "that deleting as many samples trains on again, over all choices of the samples", 2),
        f"{SPEEDUP}nominal": (
            "nominal", "(R + 1) · S, with R slices in each of S shards, as the reference study "
            "gives it; it counts checkpoints and not images, and knows no forget set", 1),
    }


def _error_formula(run: Run) -> str:
    return "1 − p(true class)" if run.classification else "the absolute errors"


def _alpha_unit(run: Run) -> str:
    return "" if run.classification else f" {run.unit}"


def _split(split: str) -> str:
    return SPLIT_NAMES.get(split, f"the samples of {split!r}")
