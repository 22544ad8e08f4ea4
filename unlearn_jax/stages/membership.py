"""What models have seen of a sample, for attacks: the array `member` of files of predictions."""

from collections.abc import Mapping

import numpy as np

from unlearn_jax import results
from unlearn_jax.data.splits import ForgetSet
from unlearn_jax.stages.graph import RunContext

# A split, places `[n]` of samples in it, and the labels `[n]` by which attacks judge them.
Samples = tuple[str, np.ndarray, np.ndarray]


def trained_samples(study: RunContext, forget_set: ForgetSet) -> Samples:
    """The samples of D_f that were trained on, with the labels that models were trained with."""
    return ("forget", study.splits.trained_places(forget_set),
            study.trained_labels[forget_set.train])


def peer_samples(study: RunContext, forget_set: ForgetSet) -> Samples:
    """Samples like them that no model has seen, with the labels they would be trained with."""
    test = study.splits.test
    if forget_set.request == "injected":
        split = "stamped" if len(study.stamped) else "test"
        injection = study.splits.injection
        assert injection is not None  # the config check refuses 'injected' without data.inject
        return split, *injection.like_injected(study.dataset.labels[test])
    return ("test", np.searchsorted(test, forget_set.peers),
            study.trained_labels[forget_set.peers])


def further_arrays(study: RunContext, forget_set: ForgetSet, sources: Mapping[str, np.ndarray],
                   ) -> dict[str, dict[str, np.ndarray]]:
    """By split, the arrays of its files of predictions besides the contract's four.

    `member` `[N]` int8: `results.TRAINED`, `VALIDATED` or `UNSEEN`, of models that saw D_f.
    `peers` `[P]`: places of the samples with which attacks compare D_f. Where samples were trained
    with other labels than their own (`data.inject`), `trained_labels` `[N]` and `peer_labels` `[P]`
    hold those.

    Args:
      study: the run.
      forget_set: whose splits they are.
      sources: by split, the rows `[N]` of its samples.
    """
    kinds = {"retain": results.TRAINED, "validation": results.VALIDATED}
    further = {split: {"member": np.full(len(rows), kinds.get(split, results.UNSEEN), np.int8)}
               for split, rows in sources.items()}
    split, places, labels = trained_samples(study, forget_set)
    further[split]["member"][:] = results.VALIDATED
    further[split]["member"][places] = results.TRAINED
    peers, peer_places, peer_labels = peer_samples(study, forget_set)
    further[peers]["peers"] = np.asarray(peer_places, np.int32)
    if study.splits.injection:
        true = study.dataset.labels[sources[split]]
        further[split]["trained_labels"] = true.copy()
        further[split]["trained_labels"][places] = labels
        further[peers]["peer_labels"] = peer_labels
    return further
