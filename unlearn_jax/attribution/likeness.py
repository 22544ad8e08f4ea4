"""How alike the maps of models are, sample by sample."""

import numpy as np
from scipy import stats

KINDS = ("cosine", "rank_correlation")


def unit_maps(maps: np.ndarray, kind: str) -> np.ndarray:
    """Maps as unit vectors, whose inner product is their likeness.

    Args:
      maps: `[..., H, W]`.
      kind: `cosine`: of the values as they are; `rank_correlation`: Spearman's, of the ranks
        (equal values share their mean rank).

    Returns:
      `[..., H * W]` float64; NaN for a map that has no direction (all zeros; for ranks, all the
      same) or is not finite.

    Raises:
      ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    flat = maps.reshape(*maps.shape[:-2], -1).astype(np.float64)
    if kind == "rank_correlation":
        flat = stats.rankdata(flat, axis=-1, nan_policy="propagate")
        flat -= flat.mean(-1, keepdims=True)
    norm = np.linalg.norm(flat, axis=-1, keepdims=True)
    return np.divide(flat, norm, out=np.full_like(flat, np.nan), where=norm > 0)


def likeness(a_MNP: np.ndarray, b_MNP: np.ndarray,
             own_M: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of each seed's map of each sample with those of another model.

    Args:
      a_MNP, b_MNP: from `unit_maps`, of M seeds in the same order and the same N samples.
      own_M: which of `b` each of `a` shares its first weights with; None: that of its seed.

    Returns:
      same: `[M, N]` with the other model that shares its first weights.
      other: `[M, N]`, NaN with one seed. Where each shares its first weights with that of its
        seed, the mean over the pairs that a seed takes part in: its `a` with the other seeds' `b`,
        and theirs with its `b`. So the mean over seeds is that over all pairs, and their values
        say how much it depends on each seed, as `metrics.pairs.forgetting_across` has it; a seed
        of which either map has no direction is NaN and left out of the others'. Else, where there
        are no such pairs, of each of `a` the mean over the others of `b`. For a model with itself
        this is how alike independent models are: what no other can be asked to exceed.

    Raises:
      ValueError: shapes that differ.
    """
    if a_MNP.shape != b_MNP.shape or a_MNP.ndim != 3:
        raise ValueError(f"maps have shapes {a_MNP.shape} and {b_MNP.shape}; both must be "
                         "[M, N, P]")
    pairs_NMK = np.einsum("mnp,knp->nmk", a_MNP, b_MNP, optimize=True)
    members = np.arange(len(a_MNP))
    by_seed = own_M is None or np.array_equal(own_M, members)
    own_M = members if by_seed else own_M
    same_NM = pairs_NMK[:, members, own_M]
    apart = pairs_NMK.copy()
    apart[:, members, own_M] = np.nan
    if by_seed:
        without = np.isnan(same_NM)
        apart[without] = np.nan
        apart.swapaxes(1, 2)[without] = np.nan
        apart = np.concatenate([apart, apart.swapaxes(1, 2)], axis=2)
    return same_NM.T, finite_mean(apart, axis=2).T


def finite_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is finite, NaN where nothing is, without a warning."""
    good = np.isfinite(values)
    count = good.sum(axis)
    total = np.where(good, values, 0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
