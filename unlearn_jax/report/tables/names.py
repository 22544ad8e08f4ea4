"""The names of models and metrics in the report, and the definition of each metric."""

import dataclasses
import re
import string
from collections.abc import Callable

from unlearn_jax.metrics import catalogue
from unlearn_jax.report.tables.files import field
from unlearn_jax.report.tables.inputs import ModelKey, Run

_TITLES = {
    "original": "original M_O",
    "retrain": "retrained M_R",
    "retrain_short": "retrained for the budget of unlearning M_SHORT",
    "ft": "fine-tuned M_FT",
    "rnd": "random labels M_RND",
    "rnd_offset": "random labels near the true ones M_RND_OFFSET",
    "rnd_units": "the same with the published unit error M_RND_UNITS",
    "sisa_original": "SISA before deletion M_SISA_O",
    "sisa": "SISA after deletion M_SISA",
}
# M_O, D_f, M_RND_OFFSET, M_KGLTOP1, M_FT+B in a text: the letter, the subscript, and the s of a
# plural.
SYMBOL = re.compile(r"\b([MD])_([A-Z0-9]+(?:[_+-]+[A-Z0-9]+)*|[a-z]+)(s?)(?!\w)")
ENSEMBLES = ("sisa_original", "sisa")  # trained on their own: they do not start from M_O
SPLIT_NAMES = {
    "test": "the test set",
    "forget": "D_f, the forget set (training and validation samples that are to be forgotten)",
    "retain": "D_r, the training samples that stay",
    "validation": "the validation set",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric of a run is shown, or any other number.

    Attributes:
      name: as in results.csv; '': it is not of results.csv.
      header: column title, with the unit.
      definition: formula, unit and how to read it.
      decimals: digits after the point.
      percent: whether the value is shown times 100.
      infinite: the text shown for an infinite value.
    """

    name: str = ""
    header: str = ""
    definition: str = ""
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
    """How a metric of results.csv is shown; an unknown metric is shown under its own name."""
    record = catalogue.find(name)
    if record is None:
        return Metric(name=name, header=name, definition=f"the metric {name!r} of results.csv")
    return shown(run, record, name)


def shown(run: Run, record: catalogue.MetricRecord, name: str) -> Metric:
    """How a metric is shown, by its record in the catalogue."""
    parameters = catalogue.parameters(record, name)

    def filled(text: str) -> str:
        words = [word for _, word, _, _ in string.Formatter().parse(text) if word]
        return text.format(**{word: parameters[word] if word in parameters
                              else _WORDS[word](run, parameters) for word in words})

    return Metric(name=name, header=filled(record.title + f" ({record.unit})" * bool(record.unit)),
                  definition=filled(record.definition), decimals=record.decimals,
                  percent=record.percent, infinite=filled(record.infinite))


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
    """The text for more epochs of relearning than were made; merged runs may differ in them."""
    runs = run.run.get("merged") or [run.run]
    made = {field(r, "run.json", "config.eval.relearn_epochs", int) for r in runs} - {0}
    return f"> {made.pop()}" if len(made) == 1 else "∞"


def _utility(run: Run) -> str:
    return ("accuracy_test(M_e) / accuracy_test(M_R), M_e being the model of the row"
            if run.classification else
            "MAE_test(M_R) / MAE_test(M_e), M_e being the model of the row")


def _utility_against_original(run: Run) -> str:
    return ("accuracy_test(M_e) / accuracy_test(M_O)" if run.classification else
            "MAE_test(M_O) / MAE_test(M_e)") + ", M_e being the model of the row"


def _change(run: Run) -> str:
    return ("mean of half the sum over classes of |p − p of M_O|, from 0 to 1"
            if run.classification else f"mean of |output − output of M_O|, in {run.unit}")


def _error_formula(run: Run) -> str:
    return "1 − p(true class)" if run.classification else "the absolute errors"


def _alpha_unit(run: Run) -> str:
    return "" if run.classification else f" {run.unit}"


def _split(split: str) -> str:
    return SPLIT_NAMES.get(split, f"the samples of {split!r}")


# Words of the run that records may use. A word is made only where a record uses it, because a run
# may lack the field that another word needs.
_WORDS: dict[str, Callable[[Run, dict[str, str]], str]] = {
    "unit": lambda run, _: run.unit,
    "split": lambda _, parameters: _split(parameters["SPLIT"]),
    "errors": lambda run, _: _error_formula(run),
    "alpha_unit": lambda run, _: _alpha_unit(run),
    "others": lambda run, _: start_of_others(run),
    "utility": lambda run, _: _utility(run),
    "utility_against_original": lambda run, _: _utility_against_original(run),
    "change": lambda run, _: _change(run),
    "longer": lambda run, _: _longer(run),
}
