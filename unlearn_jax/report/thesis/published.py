"""The numbers that the reference study printed, for comparison with those of a run.

Source: `CITATION` (below), tables 3 to 8: means of three models each.
"""

import dataclasses
from collections.abc import Iterator

CITATION = ("Pablo Noriega Vázquez, “Machine Unlearning: el arte de olvidar en la era de la "
            "Inteligencia Artificial”, bachelor's thesis, Universitat de Barcelona, 2024")
ADDRESS = "https://github.com/pablonoriega/TFG"

SETS = ("20-28", "28-36", "36-44", "44-52", "52-60")
FIRST = SETS[0]
ALPHA = 15.0
ALPHAS = (2, 5, 10, 15, 20, 25, 30, 35)
EPOCHS = (2, 4, 8, 16)
CHOSEN = {"ft": 8, "rnd": 2}  # epochs of table 8; table 3 does not say how many


@dataclasses.dataclass(frozen=True)
class Printed:
    """A number of the study.

    Attributes:
      table: 3 to 8.
      model: `original`, `retrain`, `ft`, or `rnd` for its M_RND.
      epochs: epochs of unlearning; 0 for M_O and M_R.
      forget_set: as in the config.
      metric: as in results.csv; `forgetting@15`, ...
      value: as printed.
    """

    table: int
    model: str
    epochs: int
    forget_set: str
    metric: str
    value: float


_BY_ALPHA = {"original": (0.21, 0.38, 0.60, 0.70, 0.76, 0.80, 0.83, 0.85),
             "ft": (0.26, 0.51, 0.69, 0.78, 0.83, 0.86, 0.88, 0.89),
             "rnd": (0.14, 0.23, 0.41, 0.50, 0.57, 0.63, 0.67, 0.71)}

_ByEpochs = dict[str, tuple[float, ...]]
# table: (metric, {model: by epochs; one value of a model that is not unlearned})
_BY_EPOCHS: dict[int, tuple[str, _ByEpochs]] = {
    4: ("utility", {"ft": (1.25, 1.24, 1.21, 1.18), "rnd": (0.75, 0.41, 0.43, 0.45),
                    "original": (1.28,)}),
    5: ("mae_test", {"ft": (4.93, 4.96, 5.09, 5.21), "rnd": (8.2, 15.09, 14.3, 13.59),
                     "original": (4.81,), "retrain": (6.17,)}),
    6: ("forgetting@15", {"ft": (0.75, 0.75, 0.78, 0.79), "rnd": (0.65, 0.249, 0.242, 0.246),
                          "original": (0.672,)}),
    7: ("F@15", {"ft": (0.93, 0.94, 0.95, 0.94), "rnd": (0.49, 0.10, 0.10, 0.11),
                 "original": (0.86,)}),
}

_BY_SET = {
    "utility": {"original": (1.28, 1.02, 1.01, 1.04, 1.14), "ft": (1.21, 1.04, 1.03, 1.05, 1.13),
                "rnd": (0.75, 0.79, 0.95, 0.95, 1.16)},
    "forgetting@15": {"original": (0.67, 0.79, 0.79, 0.73, 0.53),
                      "ft": (0.78, 0.80, 0.81, 0.74, 0.59), "rnd": (0.65, 0.78, 0.76, 0.70, 0.54)},
    "F@15": {"original": (0.86, 0.81, 0.80, 0.76, 0.60), "ft": (0.94, 0.83, 0.83, 0.77, 0.67),
             "rnd": (0.49, 0.61, 0.72, 0.67, 0.63)},
}


def _all() -> Iterator[Printed]:
    for model, by_alpha in _BY_ALPHA.items():
        for alpha, value in zip(ALPHAS, by_alpha, strict=True):
            yield Printed(3, model, CHOSEN.get(model, 0), FIRST, f"forgetting@{alpha}", value)
    for table, (metric, models) in _BY_EPOCHS.items():
        for model, by_epochs in models.items():
            budgets = EPOCHS if model in CHOSEN else (0,)
            for epochs, value in zip(budgets, by_epochs, strict=True):
                yield Printed(table, model, epochs, FIRST, metric, value)
    for metric, by_model in _BY_SET.items():
        for model, by_set in by_model.items():
            for name, value in zip(SETS, by_set, strict=True):
                yield Printed(8, model, CHOSEN.get(model, 0), name, metric, value)


PRINTED = tuple(_all())
_FOUND = {(p.table, p.model, p.epochs, p.forget_set, p.metric): p.value for p in PRINTED}


def printed(table: int, model: str, epochs: int, forget_set: str, metric: str) -> float | None:
    """A number of one table; None where the table has none."""
    return _FOUND.get((table, model, epochs, forget_set, metric))
