"""Which channels changed, measured by how far independently trained models differ.

Models of one seed start from the same weights, so that a channel of one is the channel of the
same number of another. Models of different seeds have no such order; their channels are matched
first, each with the one whose activation follows the samples most alike.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

QUANTILE = 0.95  # of the differences between independent models: what exceeds it is large


def match_channels(a_NC: np.ndarray, b_NC: np.ndarray) -> np.ndarray:
    """For each channel of `a` the channel of `b` that it is matched with, `[C]`, each once.

    Args:
      a_NC, b_NC: mean activations of C channels on the same N samples; the sum of the
        correlations is made as large as it can be. A channel that does not vary has none.

    Source: Li et al. 2016, "Convergent Learning: Do different neural networks learn the same
      representations?", one-to-one matching.
    """
    if a_NC.shape != b_NC.shape or a_NC.ndim != 2:
        raise ValueError(f"activations have shapes {a_NC.shape} and {b_NC.shape}; both must be "
                         "[N, C]")
    return linear_sum_assignment(_standard(a_NC).T @ _standard(b_NC), maximize=True)[1]


def _standard(a_NC: np.ndarray) -> np.ndarray:
    centred = a_NC.astype(np.float64) - a_NC.mean(0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def partner_means(activations_MNC: np.ndarray, sets: dict[str, slice]) -> dict[str, np.ndarray]:
    """What the matched channels of an independent model do: that of the next seed.

    Args:
      activations_MNC: mean activations of M seeds on N samples.
      sets: which of the samples belong to a set.

    Returns:
      By set, `[M, C]` means of the partner's channels in the order of one's own; NaN for a model
      that failed, or whose partner did, and with one seed.
    """
    members, _, channels = activations_MNC.shape
    found = {name: np.full((members, channels), np.nan) for name in sets}
    for m in range(members):
        own, other = activations_MNC[m], activations_MNC[(m + 1) % members]
        if members == 1 or not (np.isfinite(own).all() and np.isfinite(other).all()):
            continue
        order = match_channels(own, other)
        for name, rows in sets.items():
            found[name][m] = other[rows].mean(0, dtype=np.float64)[order]
    return found


def noise_floor(means_MC: np.ndarray, partners_MC: np.ndarray) -> float:
    """The difference of mean activations that `QUANTILE` of matched channels stay below.

    Args:
      means_MC: of M seeds.
      partners_MC: from `partner_means`.

    Returns:
      In activations of the layer; NaN without two models that did not fail.
    """
    differences = np.abs(means_MC - partners_MC)
    differences = differences[np.isfinite(differences)]
    return float(np.quantile(differences, QUANTILE)) if differences.size else float("nan")
