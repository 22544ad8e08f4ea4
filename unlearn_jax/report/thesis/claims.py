"""The claims of the reference study, as data: each a set of comparisons that should all hold.

A claim about random labels (`RND`) is tested for every arm of random labels. Source: the sections
named with each claim. Statements that are not about numbers, such as reasons, are not listed.
"""

import dataclasses
from collections.abc import Iterable

from unlearn_jax.report.thesis.published import ALPHAS, CHOSEN, EPOCHS, FIRST, SETS

RND = "RND"  # stands for each arm of random labels


@dataclasses.dataclass(frozen=True)
class Term:
    """A value of a run, one for each seed.

    Attributes:
      model: `original`, `retrain`, `ft`, `RND`, or `median`, which always answers the same.
      epochs: epochs of unlearning; 0 for models that are not unlearned.
      forget_set: as in the config.
      metric: as in results.csv.
    """

    model: str
    epochs: int
    forget_set: str
    metric: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`larger` is above `smaller`, within a seed."""

    larger: Term
    smaller: Term | float


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the study.

    Attributes:
      name: short, for tables and files.
      section: its place in the study.
      table: the table that the study gives as evidence; 0: none.
      text: the claim in one sentence.
      comparisons: all must hold.
    """

    name: str
    section: str
    table: int
    text: str
    comparisons: tuple[Comparison, ...]

    @property
    def of_random_labels(self) -> bool:
        """Whether it is about random labels, and so is tested for each arm of them."""
        return any(isinstance(t, Term) and t.model == RND
                   for c in self.comparisons for t in (c.larger, c.smaller))


F, FORGETTING = "F@15", "forgetting@15"
_LAST = SETS[-1]


def _term(model: str, epochs: int | None = None, metric: str = FORGETTING,
          forget_set: str = FIRST) -> Term:
    """A value; without epochs, at those that the study chose for table 8."""
    if epochs is None:
        epochs = CHOSEN.get("rnd" if model == RND else model, 0)
    return Term(model, epochs, forget_set, metric)


def _each(larger: str, smaller: str, metric: str, by: str) -> tuple[Comparison, ...]:
    """One model above another, for all alphas, all epochs or all forget sets."""
    if by == "alphas":
        return tuple(Comparison(_term(larger, None, f"{metric}@{a}"),
                                _term(smaller, None, f"{metric}@{a}")) for a in ALPHAS)
    if by == "sets":
        return tuple(Comparison(_term(larger, None, metric, s), _term(smaller, None, metric, s))
                     for s in SETS)

    def epochs(model: str, e: int) -> int:
        return e if model in ("ft", RND) else 0

    return tuple(Comparison(_term(larger, epochs(larger, e), metric),
                            _term(smaller, epochs(smaller, e), metric)) for e in EPOCHS)


def _order(model: str, metric: str, epochs: Iterable[int]) -> tuple[Comparison, ...]:
    """Each number of epochs gives more than the next."""
    epochs = list(epochs)
    return tuple(Comparison(_term(model, a, metric), _term(model, b, metric))
                 for a, b in zip(epochs, epochs[1:]))


def _best(model: str, best: int, metric: str) -> tuple[Comparison, ...]:
    """One number of epochs gives more than every other."""
    return tuple(Comparison(_term(model, best, metric), _term(model, e, metric))
                 for e in EPOCHS if e != best)


def _between(metric: str, *epochs: int) -> tuple[Comparison, ...]:
    """M_FT below M_R and above M_O."""
    return tuple(c for e in epochs for c in (
        Comparison(_term("retrain", 0, metric), _term("ft", e, metric)),
        Comparison(_term("ft", e, metric), _term("original", 0, metric))))


def _rising(model: str) -> tuple[Comparison, ...]:
    return tuple(Comparison(_term(model, None, f"forgetting@{b}"),
                            _term(model, None, f"forgetting@{a}"))
                 for a, b in zip(ALPHAS, ALPHAS[1:]))


CLAIMS = (
    Claim("rises-with-alpha", "4.4", 3, "Forgetting rises with α, for every model.",
          (*_rising("original"), *_rising("ft"), *_rising(RND))),
    Claim("ft-above-original-every-alpha", "4.4", 3,
          "M_FT is above M_O in Forgetting for every α.",
          _each("ft", "original", "forgetting", "alphas")),
    Claim("original-above-rnd-every-alpha", "4.4", 3,
          "M_O is above M_RND in Forgetting for every α.",
          _each("original", RND, "forgetting", "alphas")),
    Claim("original-useful", "4.5.1", 4,
          "M_O is more precise on the test set than M_R: its utility is above 1.",
          (Comparison(_term("original", 0, "utility"), 1.0),)),
    Claim("original-most-useful", "4.5.1", 4,
          "M_O has a higher utility than M_FT, whatever the epochs.",
          _each("original", "ft", "utility", "epochs")),
    Claim("ft-more-useful-than-rnd", "4.5.1", 4,
          "M_FT has a higher utility than M_RND, whatever the epochs.",
          _each("ft", RND, "utility", "epochs")),
    Claim("ft-utility-falls", "4.5.1", 4, "The utility of M_FT falls as the epochs grow.",
          _order("ft", "utility", EPOCHS)),
    Claim("rnd-distorts-at-once", "4.5.1", 4,
          "Random labels distort predictions even in few epochs: after 2, M_RND is worse on the "
          "test set than M_R (utility below 1).",
          (Comparison(_term("retrain", 0, "utility"), _term(RND, 2, "utility")),)),
    Claim("rnd-utility-falls-then-recovers", "4.5.1", 4,
          "The utility of M_RND falls from 2 to 4 epochs, and recovers a little until 16.",
          (Comparison(_term(RND, 2, "utility"), _term(RND, 4, "utility")),
           Comparison(_term(RND, 16, "utility"), _term(RND, 4, "utility")))),
    Claim("ft-above-original-every-budget", "4.5.2", 6,
          "M_FT is above M_O in Forgetting, whatever the epochs.",
          _each("ft", "original", FORGETTING, "epochs")),
    Claim("original-above-rnd-every-budget", "4.5.2", 6,
          "M_RND does not exceed M_O in Forgetting, whatever the epochs.",
          _each("original", RND, FORGETTING, "epochs")),
    Claim("ft-forgets-most-after-16", "4.5.2", 6,
          "M_FT forgets most after 16 epochs: the longer, the more is forgotten.",
          _best("ft", 16, FORGETTING)),
    Claim("ft-between-on-test", "4.5.2, figures 11 and 12", 5,
          "The MAE of M_FT on the test set lies between those of M_O and M_R, after 2 epochs and "
          "after 16.", _between("mae_test", 2, 16)),
    Claim("ft-between-on-forget", "3.2.1, and figures 11 and 12 as drawn", 0,
          "On the forget set M_FT errs more than M_O and less than M_R, after 2 epochs and after "
          "16.", _between("mae_forget", 2, 16)),
    Claim("rnd-error-grows", "4.5.2, figures 11 and 12", 5,
          "The MAE of M_RND on the test set grows from 2 to 16 epochs.",
          (Comparison(_term(RND, 16, "mae_test"), _term(RND, 2, "mae_test")),)),
    Claim("rnd-error-grows-on-forget", "4.5.2, figures 11 and 12 as drawn", 0,
          "The MAE of M_RND on the forget set grows from 2 to 16 epochs.",
          (Comparison(_term(RND, 16, "mae_forget"), _term(RND, 2, "mae_forget")),)),
    Claim("rnd-lost-generalisation", "4.5.2", 5,
          "After 16 epochs M_RND has lost all ability to generalise: on the test set it errs more "
          "than the median age does.",
          (Comparison(_term(RND, 16, "mae_test"), _term("median", 0, "mae_test")),)),
    Claim("ft-8-best-f", "4.5.3", 7,
          "The best F of all is that of M_FT after 8 epochs.",
          (*_best("ft", 8, F), Comparison(_term("ft", 8, F), _term("original", 0, F)),
           *(Comparison(_term("ft", 8, F), _term(RND, e, F)) for e in EPOCHS))),
    Claim("rnd-2-best-rnd", "4.5.3", 7, "The best M_RND is that after 2 epochs.",
          _best(RND, 2, F)),
    Claim("rnd-f-below-original", "4.5.3", 7,
          "The F of M_RND is below that of M_O, whatever the epochs.",
          _each("original", RND, F, "epochs")),
    Claim("ft-best-on-every-set", "4.6 and 5", 8,
          "M_FT has the best F on every forget set, above M_O and M_RND.",
          (*_each("ft", "original", F, "sets"), *_each("ft", RND, F, "sets"))),
    Claim("ft-forgets-on-every-set", "4.6", 8,
          "M_FT is above M_O in Forgetting on every forget set.",
          _each("ft", "original", FORGETTING, "sets")),
    Claim("rnd-worst-but-for-the-oldest", "4.6", 8,
          "M_RND has the lowest F, below M_O, on every forget set but 52–60.",
          _each("original", RND, F, "sets")[:-1]),
    Claim("rnd-above-original-on-oldest", "4.6", 8,
          "On 52–60, F of M_RND is above that of M_O.",
          (Comparison(_term(RND, None, F, _LAST), _term("original", 0, F, _LAST)),)),
    Claim("rnd-most-useful-on-oldest", "4.6", 8, "On 52–60, M_RND has the highest utility.",
          tuple(Comparison(_term(RND, None, "utility", _LAST), _term(m, None, "utility", _LAST))
                for m in ("original", "ft"))),
    Claim("rnd-forgets-least-on-oldest", "4.6", 8,
          "On 52–60, M_RND still has the lowest Forgetting.",
          tuple(Comparison(_term(m, None, FORGETTING, _LAST), _term(RND, None, FORGETTING, _LAST))
                for m in ("original", "ft"))),
    Claim("oldest-hardest", "4.6", 8,
          "Forgetting drops notably on 52–60: M_O and M_FT are lower there than on every other "
          "set.",
          tuple(Comparison(_term(m, None, FORGETTING, s), _term(m, None, FORGETTING, _LAST))
                for m in ("original", "ft") for s in SETS[:-1])),
    Claim("oldest-vary-most", "4.6", 0,
          "The faces of 52 to 60 vary more. If so, retrained models differ more from each other "
          "there: the ceiling is lower than on every other set.",
          tuple(Comparison(_term("retrain", 0, "ceiling@15", s),
                           _term("retrain", 0, "ceiling@15", _LAST)) for s in SETS[:-1])),
    Claim("ft-never-erases-all", "3.2.1 and 5", 0,
          "Fine-tuning does not erase the influence of D_f entirely: after 16 epochs Forgetting "
          "across seeds is below the ceiling.",
          (Comparison(_term("retrain", 0, "ceiling@15"),
                      _term("ft", 16, "forgetting_across@15")),)),
    Claim("rnd-forgets-faster", "3.2.2", 0,
          "With random labels data are forgotten faster: after 2 epochs M_RND errs more on D_f "
          "than M_FT.", (Comparison(_term(RND, 2, "mae_forget"), _term("ft", 2, "mae_forget")),)),
    Claim("rnd-harms-retained", "3.2.2", 0,
          "Random labels make predictions on D_r worse than fine-tuning does, whatever the epochs.",
          _each(RND, "ft", "mae_retain", "epochs")),
    Claim("cheaper-than-retraining", "1.2 and 5", 0,
          "Both methods cost less than retraining: fewer images, even for 16 epochs.",
          tuple(Comparison(_term("retrain", 0, "images"), _term(m, 16, "images"))
                for m in ("ft", RND))),
)
