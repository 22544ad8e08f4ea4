"""The likeness of models' maps, sample by sample."""

import numpy as np

KINDS = ("cosine", "rank_correlation")


def unit_maps(maps: np.ndarray, kind: str) -> np.ndarray:
    """Maps as unit vectors. The inner product of two of them is their likeness.

    Args:
      maps: `[..., H, W]`.
      kind: `cosine`: cosine of the values as they are; `rank_correlation`: Spearman's correlation
        of the ranks (equal values share their mean rank).

    Returns:
      `[..., H * W]` float64; NaN for a map that has no direction (all zeros; for ranks, all values
      equal) or is not finite.

    Raises:
      ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    flat = maps.reshape(*maps.shape[:-2], -1).astype(np.float64)
    if kind == "rank_correlation":
        from scipy import stats  # takes half a second, and few runs need it

        flat = stats.rankdata(flat, axis=-1, nan_policy="propagate")
        flat -= flat.mean(-1, keepdims=True)
    norm = np.linalg.norm(flat, axis=-1, keepdims=True)
    return np.divide(flat, norm, out=np.full_like(flat, np.nan), where=norm > 0)


def likeness(a_MNP: np.ndarray, b_MNP: np.ndarray,
             own_M: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Likeness of each seed's map of each sample with the maps of another model.

    Args:
      a_MNP, b_MNP: from `unit_maps`, for M seeds in the same order and the same N samples.
      own_M: for each model of `a`, the model of `b` with the same initial weights; None: the model
        of the same seed.

    Returns:
      same: `[M, N]` likeness with the other model that has the same initial weights.
      other: `[M, N]`, NaN with one seed. If the two models of each seed share their initial
        weights, it is the mean over the pairs of a seed: its `a` with the other seeds' `b`, and
        their `a` with its `b`. So the mean over seeds is the mean over all pairs, and the seeds'
        values show how much it depends on each seed, as in `metrics.pairs.forgetting_across`. If
        one of a seed's maps has no direction, its value is NaN and left out of the others' means.
        Otherwise there are no such pairs, and it is, for each model of `a`, the mean over the other
        models of `b`. For a model with itself this is the likeness of independent models, an upper
        bound for any other model.

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
    """The mean of finite values; NaN, without a warning, where no value is finite."""
    good = np.isfinite(values)
    count = good.sum(axis)
    total = np.where(good, values, 0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
