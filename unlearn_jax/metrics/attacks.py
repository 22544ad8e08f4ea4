"""Membership inference: do losses separate training samples from samples never trained on?

Members are the samples that were trained on (here: the forget set). Others are samples that were
not trained on and, unlike validation samples, were not used to choose the weights. A low loss
indicates a member. M_R was trained on neither group, so an unlearned model is compared with the
values of M_R.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.metrics import logistic
from unlearn_jax.metrics.shapes import Array, Refused, check_rank

FALSE_POSITIVE_RATES = (0.01, 0.001)


@dataclasses.dataclass(frozen=True)
class Attack:
    """Success of an attack; NaN for a model with losses that are not finite.

    Attributes:
      auc: `[M]`; 0.5 is chance, below 0.5 members have the *higher* losses.
      accuracy: `[M]` on held-out samples, with equal weights of both groups; 0.5 is chance.
      tpr: `[F, M]` share of members found if at most `FALSE_POSITIVE_RATES` of the others
        are taken for members; NaN at a rate that allows less than one other (`resolves`).
    """

    auc: np.ndarray
    accuracy: np.ndarray
    tpr: np.ndarray


@dataclasses.dataclass(frozen=True)
class MembershipInference:
    """Both attacks on M models.

    Attributes:
      threshold: one threshold on the loss, chosen on the other folds. Its AUC and TPR need no
        choice, so they are computed from all samples.
      logistic: logistic regression on the standardised loss, fitted on the other folds. Its AUC
        is the mean over folds. Its TPR is computed from all held-out log-odds together. Both groups
        weigh the same in the fit.
    """

    threshold: Attack
    logistic: Attack


def mia(members_MN: Array, others_MK: Array, *, seed: int, folds: int = 5) -> MembershipInference:
    """Membership inference on per-sample losses of M models; no sample is left out.

    Args:
      members_MN: losses on samples that were trained on, before they were forgotten.
      others_MK: losses on samples of the same distribution that were not trained on.
      seed: decides the folds.
      folds: number of folds of the stratified cross-validation.

    Raises:
      ValueError: other shapes.
      Refused: fewer samples than folds in a group.

    Sources: Yeom et al. 2018, "Privacy Risk in Machine Learning" (threshold on the loss; here
    the best one rather than the mean training loss); Carlini et al. 2022, "Membership Inference
    Attacks From First Principles" (TPR at low FPR).
    """
    _check_groups(members_MN, others_MK)
    members, others = members_MN.shape[1], others_MK.shape[1]
    if folds < 2:
        raise ValueError(f"cross-validation needs at least two folds, not {folds}")
    if min(members, others) < folds:
        raise Refused(f"cross-validation in {folds} folds needs as many samples in each group; "
                      f"there are {members} members (samples that were trained on) and {others} "
                      "others")
    # float32 as in the compiled functions: a threshold must equal the loss that it comes from.
    losses_MT = np.concatenate([members_MN, others_MK], axis=1, dtype=np.float32)
    is_member_T = np.arange(members + others) < members
    splits = divided(members, others, folds, seed)
    rates = jnp.array(FALSE_POSITIVE_RATES)
    attacks = (Attack(auc=np.asarray(auc(members_MN, others_MK)),
                      accuracy=_held_out_accuracy(losses_MT, is_member_T, splits),
                      tpr=np.array(tpr_at(members_MN, others_MK, rates))),
               _logistic(losses_MT, is_member_T, splits, rates))
    for attack in attacks:
        attack.tpr[[not resolves(rate, others) for rate in FALSE_POSITIVE_RATES]] = np.nan
    return MembershipInference(*attacks)


def divided(members: int, others: int, folds: int,
            seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The samples to fit to and those held out, in each fold; both groups in equal shares.

    They are those of scikit-learn's `StratifiedKFold`, shuffled, whose import takes a second.

    Args:
      members, others: numbers of samples, of which the members come first.
      folds: their number; at most as many as the smaller group has samples.
      seed: of the draw.
    """
    draw = np.random.RandomState(seed)
    fold_T = np.arange(members + others) % folds
    for group in (fold_T[:members], fold_T[members:]):
        group.sort()
        draw.shuffle(group)
    return [(np.flatnonzero(fold_T != fold), np.flatnonzero(fold_T == fold))
            for fold in range(folds)]


def resolves(rate: float, others: int) -> bool:
    """Returns True if the rate allows at least one false positive among this number of others.

    All lower rates give the same attack: no false positive is allowed.
    """
    return rate * others >= 1 - 1e-7


@jax.jit
def auc(members_MN: jax.Array, others_MK: jax.Array) -> jax.Array:
    """Probability `[M]` that a member has a lower loss than one of the others; ties count a half.

    It is the Mann-Whitney statistic. It is exact because it is computed from counts: the mean rank
    minus its smallest value would be a small difference of large numbers. NaN for a model with
    losses that are not finite.

    Raises:
      ValueError: the groups are not `[M, N]` and `[M, K]`.

    Source: Hanley and McNeil 1982, "The Meaning and Use of the Area under a ROC Curve".
    """
    _check_groups(members_MN, others_MK)
    is_member, first, last, _ = _in_order(members_MN, others_MK)
    counts = jnp.cumsum(is_member, axis=1)
    up_to = jnp.take_along_axis(counts, last, axis=1)
    below = jnp.take_along_axis(counts - is_member, first, axis=1)
    lower = jnp.mean((below + up_to) / 2, axis=-1, where=~is_member)
    return _unless_failed(lower / members_MN.shape[1], members_MN, others_MK)


@jax.jit
def tpr_at(members_MN: jax.Array, others_MK: jax.Array, rates_F: jax.Array) -> jax.Array:
    """Share `[F, M]` of members up to the largest threshold within the false positive rate.

    No interpolation: with K others no rate between 0 and 1 / K exists. At a rate below 1 / K no
    other may be taken for a member.

    Args:
      members_MN, others_MK: losses.
      rates_F: largest allowed shares of the others.

    Raises:
      ValueError: other shapes.
    """
    _check_groups(members_MN, others_MK)
    check_rank("the false positive rates", rates_F, 1, "[F]")
    true, false = _rates(members_MN, others_MK)
    # The rates are quotients of small whole numbers, rounded: 0.01 must allow 1 of 100.
    allowed = false[None] <= rates_F[:, None, None] + 1e-7
    return _unless_failed(jnp.max(jnp.where(allowed, true[None], 0), axis=-1),
                          members_MN, others_MK)


@jax.jit
def best_threshold(members_MN: jax.Array, others_MK: jax.Array,
                   ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The threshold, among all possible ones, that separates the groups best, in either direction.

    Returns:
      `[M]` thresholds; `[M]` bool: True if losses up to the threshold (rather than above it)
      are members; `[M]` accuracies with equal weights of both groups. The accuracies are on the
      samples that the threshold was chosen with, so never below 0.5.

    Raises:
      ValueError: the groups are not `[M, N]` and `[M, K]`.
    """
    _check_groups(members_MN, others_MK)
    true, false = _rates(members_MN, others_MK)
    gain = (true - false) / 2
    best = jnp.argmax(jnp.abs(gain), axis=-1)
    gain = jnp.take_along_axis(gain, best[:, None], axis=-1)[:, 0]
    losses = jnp.sort(jnp.concatenate([members_MN, others_MK], axis=1), axis=-1)
    threshold = jnp.take_along_axis(losses, best[:, None], axis=-1)[:, 0]
    return threshold, gain >= 0, _unless_failed(0.5 + jnp.abs(gain), members_MN, others_MK)


def _in_order(members_MN, others_MK):
    """Samples in order of loss, `[M, T]` each: membership, first and last place of the sample's
    ties, and loss.
    """
    losses = jnp.concatenate([members_MN, others_MK], axis=1)
    flags = jnp.broadcast_to(jnp.arange(losses.shape[1])[None] < members_MN.shape[1], losses.shape)
    losses, is_member = jax.lax.sort((losses, flags), num_keys=1)
    place = jnp.broadcast_to(jnp.arange(losses.shape[1])[None], losses.shape)
    changes = losses[:, 1:] != losses[:, :-1]
    edge = jnp.ones_like(changes[:, :1])
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, changes], 1), place, 0), axis=1)
    last = jax.lax.cummin(jnp.where(jnp.concatenate([changes, edge], 1), place, losses.shape[1]),
                          axis=1, reverse=True)
    return is_member, first, last, losses


def _rates(members_MN, others_MK):
    """Shares of members and of others with a loss up to each place's loss, `[M, T]` twice."""
    is_member, _, last, _ = _in_order(members_MN, others_MK)
    counts = jnp.cumsum(is_member, axis=1)
    members = jnp.take_along_axis(counts, last, axis=1)
    return members / members_MN.shape[1], (last + 1 - members) / others_MK.shape[1]


def _unless_failed(values, members_MN, others_MK):
    good = jnp.isfinite(members_MN).all(-1) & jnp.isfinite(others_MK).all(-1)
    return jnp.where(good.reshape((1,) * (values.ndim - 1) + (-1,)), values, jnp.nan)


def _check_groups(members: Array, others: Array) -> None:
    check_rank("the members' losses", members, 2, "[M, N]")
    check_rank("the others' losses", others, 2, "[M, K]")
    if members.shape[0] != others.shape[0]:
        raise ValueError(f"there are losses of {members.shape[0]} models on the members and of "
                         f"{others.shape[0]} on the others; they must be the same models")
    if not members.shape[1] or not others.shape[1]:
        raise ValueError(f"both groups need samples; there are {members.shape[1]} members and "
                         f"{others.shape[1]} others")


def _held_out_accuracy(losses_MT, is_member_T, splits) -> np.ndarray:
    right_MT = np.zeros(losses_MT.shape, bool)
    for train, test in splits:
        fitted = losses_MT[:, train]
        threshold, low, _ = best_threshold(fitted[:, is_member_T[train]],
                                           fitted[:, ~is_member_T[train]])
        below = losses_MT[:, test] <= np.asarray(threshold)[:, None]
        guess = below == np.asarray(low)[:, None]
        right_MT[:, test] = guess == is_member_T[test][None]
    return np.where(np.isfinite(losses_MT).all(1), _balanced(right_MT, is_member_T), np.nan)


def _balanced(right_MT, is_member_T) -> np.ndarray:
    """Share `[M]` of right guesses; both groups have the same weight, whatever their sizes."""
    return (right_MT[:, is_member_T].mean(1) + right_MT[:, ~is_member_T].mean(1)) / 2


def _logistic(losses_MT, is_member_T, splits, rates) -> Attack:
    log_odds = np.full(losses_MT.shape, np.nan)
    aucs = np.full(len(losses_MT), np.nan)
    good = np.isfinite(losses_MT).all(1)
    if good.any():
        found = []
        for train, test in splits:
            fitted, held_out = logistic.standardised(losses_MT[good][:, train],
                                                     losses_MT[good][:, test])
            weights, intercepts = logistic.fit(fitted, is_member_T[train])
            scores = weights[:, None] * held_out + intercepts[:, None]
            log_odds[np.ix_(good, test)] = scores
            found.append(logistic.auc(scores, is_member_T[test]))
        aucs[good] = np.mean(found, axis=0)
    right = _balanced((log_odds > 0) == is_member_T[None], is_member_T)
    tpr = tpr_at(-log_odds[:, is_member_T], -log_odds[:, ~is_member_T], rates)
    return Attack(aucs, np.where(np.isnan(aucs), np.nan, right), np.array(tpr))
