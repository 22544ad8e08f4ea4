"""Changed channels: changes are compared with the differences of independently trained models.

Models of one seed start from the same weights, so channels with the same number correspond. Models
of different seeds have no such order. Their channels are matched first, so that the activations of
matched channels correlate most over the samples.
"""

import numpy as np

QUANTILE = 0.95  # of the differences of independent models: a larger one is large


def match_channels(a_NC: np.ndarray, b_NC: np.ndarray) -> np.ndarray:
    """For each channel of `a` its matched channel of `b`, `[C]`; each channel is matched once.

    Args:
      a_NC, b_NC: mean activations of C channels on the same N samples; the matching maximises the
        sum of the correlations. A channel that does not vary has a correlation of 0.

    Source: Li et al. 2016, "Convergent Learning: Do different neural networks learn the same
      representations?", one-to-one matching.
    """
    if a_NC.shape != b_NC.shape or a_NC.ndim != 2:
        raise ValueError(f"activations have shapes {a_NC.shape} and {b_NC.shape}; both must be "
                         "[N, C]")
    from scipy.optimize import linear_sum_assignment  # takes a tenth of a second; few runs need it

    return linear_sum_assignment(_standard(a_NC).T @ _standard(b_NC), maximize=True)[1]


def _standard(a_NC: np.ndarray) -> np.ndarray:
    centred = a_NC.astype(np.float64) - a_NC.mean(0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def partner_means(activations_MNC: np.ndarray, sets: dict[str, slice]) -> dict[str, np.ndarray]:
    """Mean activations of the matched channels in an independent model, that of the next seed.

    Args:
      activations_MNC: mean activations of M seeds on N samples.
      sets: by name, the samples of a set.

    Returns:
      By set, `[M, C]` means of the partner's channels, in the order of the model's own channels;
      NaN if the model or its partner failed, and with one seed.
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
    """The `QUANTILE` of the differences of mean activations over matched channels.

    Args:
      means_MC: mean activations of M seeds.
      partners_MC: from `partner_means`.

    Returns:
      In the unit of the layer's activations; NaN with fewer than two models that did not fail.
    """
    differences = np.abs(means_MC - partners_MC)
    differences = differences[np.isfinite(differences)]
    return float(np.quantile(differences, QUANTILE)) if differences.size else float("nan")
