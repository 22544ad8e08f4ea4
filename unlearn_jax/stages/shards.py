"""The arithmetic of SISA: the samples of each shard and slice, and what a deletion costs.

The training set is divided at random into S shards, each with a constituent model of its own, and
each shard into R slices. A constituent trains on the first slice, then on the first two, and so on
to all R; before each slice its weights are kept. A deleted sample has no influence before its own
slice of its own shard. So only this shard trains again, from that slice on.

Everything here is NumPy on index arrays; `stages/sisa.py` trains.

Source: Bourtoule et al., "Machine Unlearning", IEEE S&P 2021: sharding, isolation, slicing and
aggregation, and the number of epochs per slice.
"""

import dataclasses
import math

import numpy as np

from unlearn_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class ShardPlan:
    """The shard and the slice of each sample.

    Attributes:
      samples: `[n]` int32, data set rows of the training split, sorted.
      shard: `[n]` int, from zero.
      slice: `[n]` int, from zero, within the shard.
      shards, slices: S and R.
    """

    samples: np.ndarray
    shard: np.ndarray
    slice: np.ndarray
    shards: int
    slices: int

    def seen(self, shard: int, last: int, forgotten: np.ndarray) -> np.ndarray:
        """Data set rows `[m]` int32, sorted, that a constituent trains on in slice `last`.

        They are the rows of all slices up to this one, without `forgotten` (data set rows).
        """
        here = (self.shard == shard) & (self.slice <= last)
        return self.samples[here & ~np.isin(self.samples, forgotten)]

    def first_touched(self, forgotten: np.ndarray) -> np.ndarray:
        """`[S]`: the slice from which each shard trains again; R for an untouched shard."""
        first = np.full(self.shards, self.slices)
        gone = np.isin(self.samples, forgotten)
        np.minimum.at(first, self.shard[gone], self.slice[gone])
        return first

    def emptied(self, forgotten: np.ndarray) -> np.ndarray:
        """The shards that have no sample left after a deletion."""
        stays = ~np.isin(self.samples, forgotten)
        return np.setdiff1d(np.arange(self.shards), self.shard[stays])


def make_plan(samples: np.ndarray, shards: int, slices: int, seed: int) -> ShardPlan:
    """Divides the training split at random, as evenly as possible.

    Shards differ by one sample at most, and so do the slices of a shard. Augmented copies are not
    listed here: they follow their sample.

    Args:
      samples: `[n]` data set rows.
      shards, slices: S and R, at least one.
      seed: decides the order of the samples.

    Raises:
      InputError: fewer samples than S x R.
    """
    if shards * slices > len(samples):
        raise InputError(
            f"config.unlearn.sisa has {shards} shards x {slices} slices; allowed: up to one for "
            f"each of the {len(samples)} training samples")
    samples = np.sort(samples).astype(np.int32)
    shard, slice_ = np.zeros(len(samples), int), np.zeros(len(samples), int)
    order = np.random.default_rng([seed, shards, slices]).permutation(len(samples))
    for s, own in enumerate(np.array_split(order, shards)):
        for r, part in enumerate(np.array_split(own, slices)):
            shard[part], slice_[part] = s, r
    return ShardPlan(samples, shard, slice_, shards, slices)


def epochs_per_slice(epochs: float, slices: int) -> float:
    """Epochs in each slice with which SISA visits as many samples as `epochs` epochs over all.

    Slice j walks over j / R of a shard. So e epochs in each of R slices are e (R + 1) / 2 passes
    over the shard.
    """
    return 2 * epochs / (slices + 1)


def passes_over_all(slice_epochs: float, slices: int) -> float:
    """Passes over the training set if every slice has `slice_epochs` epochs."""
    return slice_epochs * (slices + 1) / 2


def epoch_shares(slice_epochs: float) -> tuple[float, ...]:
    """The share of its samples that each epoch of a slice walks over: 4.8 is (1, 1, 1, 1, 0.8)."""
    whole = math.floor(slice_epochs + 1e-9)
    rest = round(slice_epochs - whole, 9)
    return (1.0,) * whole + ((rest,) if rest > 0 else ())


def visits(rows: int, shares: tuple[float, ...]) -> int:
    """Samples trained on in a slice that holds `rows`, each epoch counted.

    A last, partial epoch is rounded up to whole samples, like `members.Pass`.
    """
    return sum(math.ceil(round(share * rows, 6)) for share in shares)


def deletion_visits(plan: ShardPlan, weights: np.ndarray, forgotten: np.ndarray,
                    shares: tuple[float, ...]) -> int:
    """Samples that a deletion visits: the touched shards, from their first touched slice on.

    Args:
      plan: the shard and slice of each sample.
      weights: `[n]` int, the rows of each sample of the plan: itself and its copies.
      forgotten: data set rows.
      shares: share of the samples in each epoch of a slice.
    """
    stays = ~np.isin(plan.samples, forgotten)
    return sum(visits(int(weights[stays & (plan.shard == s) & (plan.slice <= r)].sum()), shares)
               for s, first in enumerate(plan.first_touched(forgotten))
               for r in range(first, plan.slices))


def nominal_speedup(shards: int, slices: int) -> float:
    """(R + 1) S, as the reference study gives it (section 2.2.3), for any deletion.

    It counts the states that a deletion can return to. `expected_speedup` counts the samples that
    are trained on.
    """
    return float((slices + 1) * shards)


def expected_visits(plan: ShardPlan, weights: np.ndarray, count: int, slice_epochs: float) -> float:
    """Mean over all sets of `count` samples of the samples that deleting them visits.

    A slice of a shard walks over n of N samples, with w rows. It is trained again if any deleted
    sample is among its n samples. None is with the hypergeometric probability
    p = C(N - n, count) / C(N, count). A slice that is trained again walks over its rows without
    the deleted ones. With e epochs in each slice the mean is the sum over shards and slices of
    e (w (1 - p) - w count / N).
    """
    total = len(plan.samples)
    expected = 0.0
    for s in range(plan.shards):
        for r in range(plan.slices):
            here = (plan.shard == s) & (plan.slice <= r)
            missed = np.arange(count)
            untouched = np.prod(np.maximum(total - here.sum() - missed, 0) / (total - missed))
            expected += weights[here].sum() * (1 - untouched - count / total)
    return slice_epochs * float(expected)


def expected_speedup(plan: ShardPlan, weights: np.ndarray, count: int, slice_epochs: float,
                     epochs: float) -> float:
    """`epochs` passes over D_r, divided by `expected_visits`, for `count` random samples.

    With equal budgets and one sample this is 3 R S / (2 R + 1): slices save a third at most, and
    shards the rest.
    """
    stays = weights.sum() * (1 - count / len(plan.samples))
    return float(epochs * stays / expected_visits(plan, weights, count, slice_epochs))


def mean_output(outputs: np.ndarray, classes: bool) -> np.ndarray:
    """The constituents' mean: of predictions, or of class probabilities.

    Args:
      outputs: `[M, S, N]` label units, or logits `[M, S, N, C]`.
      classes: whether they are logits.

    Returns:
      `[M, N]` label units, or the logarithms `[M, N, C]` of the mean probabilities, float32.
    """
    if not classes:
        return outputs.mean(1).astype(np.float32)
    return _log(_probabilities(outputs).mean(1))


def vote(logits: np.ndarray) -> np.ndarray:
    """The constituents' vote by label, the published aggregation.

    Args:
      logits: `[M, S, N, C]`.

    Returns:
      `[M, N, C]` float32: logarithms of the shares of the votes. The mean probability counts as
      a thousandth of a vote, so it decides only between equal numbers of votes.
    """
    logits = np.asarray(logits, np.float64)
    votes = (logits.argmax(-1)[..., None] == np.arange(logits.shape[-1])).sum(1)
    votes = votes + 1e-3 * _probabilities(logits).mean(1)
    return _log(votes / (logits.shape[1] + 1e-3))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return shifted / shifted.sum(-1, keepdims=True)


def _log(shares: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(shares, 1e-30)).astype(np.float32)
