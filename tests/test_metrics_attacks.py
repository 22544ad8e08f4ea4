import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold

from unlearn_jax.metrics import attacks
from unlearn_jax.metrics.shapes import Refused

R = np.random.default_rng(0)


def reference_auc(members, others):
    return [roc_auc_score(np.repeat([1, 0], [len(m), len(o)]), -np.concatenate([m, o]))
            for m, o in zip(members, others)]


@pytest.mark.parametrize("members, others, folds", [(7, 7, 7), (30, 20, 10), (13, 301, 4),
                                                    (251, 17, 10), (2, 3, 2)])
@pytest.mark.parametrize("seed", [0, 5])
def test_folds_are_those_of_scikit_learn(members, others, folds, seed):
    groups = np.repeat([True, False], [members, others])
    theirs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(groups, groups)
    for mine, other in zip(attacks.divided(members, others, folds, seed), theirs, strict=True):
        np.testing.assert_array_equal(mine[0], other[0])
        np.testing.assert_array_equal(mine[1], other[1])


def test_auc_by_hand():
    # pairs: 1<2, 1<3, 3>2, 3=3: (1 + 1 + 0 + 1/2) / 4
    np.testing.assert_allclose(attacks.auc(jnp.array([[1.0, 3.0]]), jnp.array([[2.0, 3.0]])),
                               [0.625])


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_scikit_learn(ties):
    members, others = R.gamma(2, 1, (4, 301)), R.gamma(2, 1.3, (4, 97))
    if ties:
        members, others = np.round(members), np.round(others)
    np.testing.assert_allclose(attacks.auc(members, others), reference_auc(members, others),
                               rtol=1e-5)


def test_auc_is_exact_with_many_others():
    members, others = R.gamma(2, 1, (1, 50)), R.gamma(2, 1.3, (1, 200_000))
    members, others = members.astype(np.float32), others.astype(np.float32)
    np.testing.assert_allclose(attacks.auc(members, others), reference_auc(members, others),
                               rtol=3e-7)


def test_constant_losses_are_chance():
    members, others = np.ones((2, 30)), np.ones((2, 20))
    np.testing.assert_allclose(attacks.auc(members, others), 0.5)
    np.testing.assert_allclose(attacks.tpr_at(members, others, jnp.array([0.01, 0.5])), 0)
    np.testing.assert_allclose(attacks.best_threshold(members, others)[2], 0.5)


def test_tpr_equals_the_roc_curve_of_scikit_learn():
    members, others = R.normal(0, 1, (3, 250)), R.normal(1, 1, (3, 200))
    others[:, ::7] = members[:, :29]  # ties
    rates = np.array([0.0, 0.005, 0.01, 0.1, 0.5])
    expected = np.zeros((5, 3))
    for m in range(3):
        fpr, tpr, _ = roc_curve(np.repeat([1, 0], [250, 200]),
                                -np.concatenate([members[m], others[m]]), drop_intermediate=False)
        expected[:, m] = [tpr[fpr <= rate + 1e-9].max() for rate in rates]
    np.testing.assert_allclose(attacks.tpr_at(members, others, rates), expected, rtol=1e-5)


def test_best_threshold_is_the_best_of_all_in_both_directions():
    members, others = np.round(R.normal(0, 1, (4, 40)), 1), np.round(R.normal(.7, 1, (4, 60)), 1)
    members[2:] += 2
    threshold, low, accuracy = map(np.asarray, attacks.best_threshold(members, others))
    for m in range(4):
        found = [(np.mean(members[m] <= t) + np.mean(others[m] > t)) / 2
                 for t in np.concatenate([members[m], others[m]])]
        best = max(max(found), 1 - min(found))
        np.testing.assert_allclose(accuracy[m], best, rtol=1e-6)
        guesses = (members[m] <= threshold[m] + 1e-6, others[m] <= threshold[m] + 1e-6)
        got = (np.mean(guesses[0] == low[m]) + np.mean(guesses[1] != low[m])) / 2
        np.testing.assert_allclose(got, best, rtol=1e-6)
    assert low.tolist() == [True, True, False, False]


def test_no_sample_is_left_out_however_unequal_the_groups():
    members, others = R.normal(0, 1, (2, 30)), R.normal(2, 1, (2, 1000))
    result = attacks.mia(members, others, seed=1)
    np.testing.assert_array_equal(result.threshold.auc, attacks.auc(members, others))
    rates = np.array(attacks.FALSE_POSITIVE_RATES)
    np.testing.assert_array_equal(result.threshold.tpr, attacks.tpr_at(members, others, rates))
    assert (result.threshold.tpr[0] > result.threshold.tpr[1]).all()
    # Both groups weigh the same: always saying "other" would be right in 97 % of the samples.
    for attack in (result.threshold, result.logistic):
        assert (0.65 < attack.accuracy).all() and (attack.accuracy < 0.95).all()


def test_accuracy_of_unequal_groups_is_half_by_chance():
    result = attacks.mia(R.normal(size=(8, 40)), R.normal(size=(8, 400)), seed=0)
    assert abs(result.threshold.accuracy.mean() - 0.5) < 0.05
    assert abs(result.logistic.accuracy.mean() - 0.5) < 0.05


def test_there_is_no_tpr_at_a_rate_of_less_than_one_of_the_others():
    assert attacks.resolves(0.01, 100) and not attacks.resolves(0.01, 99)
    assert attacks.resolves(0.001, 1000) and not attacks.resolves(0.001, 999)
    result = attacks.mia(R.normal(size=(2, 300)), R.normal(size=(2, 150)), seed=0)
    for attack in (result.threshold, result.logistic):
        assert np.isfinite(attack.tpr[0]).all() and np.isnan(attack.tpr[1]).all()


def test_end_points_the_original_fails_and_the_retrained_passes():
    # model 0 has trained on the members and remembers them, model 1 has seen neither group
    members = np.stack([R.gamma(2, .3, 2000), R.gamma(2, 1, 2000)])
    others = R.gamma(2, 1, (2, 2400))
    result = attacks.mia(members, others, seed=0)
    for attack in (result.threshold, result.logistic):
        assert attack.auc[0] > 0.85 and attack.accuracy[0] > 0.75 and attack.tpr[0, 0] > 0.05
        assert abs(attack.auc[1] - 0.5) < 0.03 and abs(attack.accuracy[1] - 0.5) < 0.03
        assert attack.tpr[0, 1] < 0.03 and attack.tpr[1, 1] < 0.01
        assert attack.tpr.shape == (2, 2)


def test_both_attacks_find_a_model_that_forgot_too_much():
    # losses on the forgotten far above those on samples never seen betray them as well
    result = attacks.mia(R.gamma(2, 4, (1, 800)), R.gamma(2, 1, (1, 800)), seed=0)
    assert result.threshold.accuracy[0] > 0.75 and result.logistic.accuracy[0] > 0.75
    assert result.threshold.auc[0] < 0.2 and result.logistic.auc[0] > 0.8


def test_accuracy_is_that_of_held_out_samples():
    # with ten samples per group the best threshold in sight looks good on pure noise
    members, others = R.normal(size=(400, 10)), R.normal(size=(400, 10))
    seen = np.asarray(attacks.best_threshold(members, others)[2]).mean()
    splits = [(np.delete(np.arange(20), [i, 10 + i]), np.array([i, 10 + i])) for i in range(10)]
    held_out = attacks._held_out_accuracy(np.concatenate([members, others], 1),
                                          np.arange(20) < 10, splits).mean()
    assert seen > 0.65 and abs(held_out - 0.5) < 0.03


def test_a_failed_model_is_nan_and_alone():
    members, others = R.normal(size=(2, 20)), R.normal(size=(2, 1000))
    members[1, 3] = np.nan
    result = attacks.mia(members, others, seed=0)
    for attack in (result.threshold, result.logistic):
        for values in (attack.auc, attack.accuracy, *attack.tpr):
            assert np.isfinite(values[0]) and np.isnan(values[1])


def test_few_members_are_refused():
    with pytest.raises(Refused, match="there are 4 members"):
        attacks.mia(np.zeros((2, 4)), np.zeros((2, 9)), seed=0)


@pytest.mark.parametrize("call, words", [
    (lambda: attacks.auc(np.zeros(5), np.zeros((1, 5))), r"\[M, N\]"),
    (lambda: attacks.auc(np.zeros((2, 5)), np.zeros((1, 5))), "same models"),
    (lambda: attacks.mia(np.zeros((2, 0)), np.zeros((2, 5)), seed=0), "need samples"),
    (lambda: attacks.tpr_at(np.zeros((2, 5)), np.zeros((2, 5)), np.array(0.01)), r"\[F\]"),
    (lambda: attacks.mia(np.zeros((2, 9)), np.zeros((2, 9)), seed=0, folds=1), "two folds"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
