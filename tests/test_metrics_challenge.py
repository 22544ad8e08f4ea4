import itertools

import numpy as np
import pytest

from unlearn_jax.metrics import challenge

R = np.random.default_rng(0)
D = challenge.DELTA


def epsilon_of(unlearned, retrained):
    """Of one attack that says of each model whether it was unlearned."""
    fnr, fpr = 1 - np.mean(unlearned), np.mean(retrained)
    if fnr == 0 and fpr == 0:
        return np.inf
    if fnr == 0 or fpr == 0:
        return -np.inf
    terms = [np.log(1 - D - a) - np.log(b) for a, b in ((fnr, fpr), (fpr, fnr)) if 1 - D - a > 0]
    return max(terms, default=0)


def all_attacks(unlearned, retrained):
    """Tries every single and every double threshold, both ways round."""
    values = np.unique(np.concatenate([unlearned, retrained]))
    cuts = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    best = 0
    for low, high in itertools.combinations_with_replacement(cuts, 2):
        inside = [(f > low) & (f < high) for f in (unlearned, retrained)]
        best = max(best, epsilon_of(*inside), epsilon_of(*(~x for x in inside)))
    return min(best, 50)


def test_by_hand():
    # FNR 1/4 and FPR 1/4 at a threshold between 3 and 4 is the best that counts: an interval
    # around 1, 2, 3 has FPR 0 and FNR 1/4 and is discarded.
    unlearned, retrained = np.array([[1.0], [2], [3], [9]]), np.array([[0.0], [4], [5], [6]])
    # outside [4, 6] are all unlearned and one retrained: FNR 0, discarded; outside [4, 9) three
    # unlearned and one retrained: FNR 1/4, FPR 1/4
    np.testing.assert_allclose(challenge.epsilons(unlearned, retrained),
                               [np.log(1 - D - 1 / 4) - np.log(1 / 4)], rtol=1e-12)


@pytest.mark.parametrize("unlearned, retrained, expected", [
    ([1, 2], [3, 4], 50),          # one threshold separates: both rates 0
    ([1, 2], [0, 3], 50),          # two thresholds do
    ([0, 3], [1, 2], 50),          # the other way round
    ([1, 1], [1, 1], 0),           # nothing to tell apart
    ([1, 3], [2, 4], 0),           # best that counts: FNR = FPR = 1/2, and ln(1/2 - d) - ln(1/2)
    ([1, 2, 2], [2, 2, 3], np.log(1 - D - 1 / 3) - np.log(2 / 3)),  # ties are not split
])
def test_edge_rules(unlearned, retrained, expected):
    found = challenge.epsilons(np.array(unlearned, float)[:, None],
                               np.array(retrained, float)[:, None])
    np.testing.assert_allclose(found, [max(0, expected)])


@pytest.mark.parametrize("unlearned, retrained", [(2, 2), (3, 5), (9, 8)])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_trying_all_attacks(unlearned, retrained, ties):
    samples = 20
    u = R.normal(R.uniform(0, 2, samples), R.uniform(0.3, 2, samples), (unlearned, samples))
    r = R.normal(size=(retrained, samples))
    if ties:
        u, r = np.round(2 * u), np.round(2 * r)
    expected = [all_attacks(u[:, i], r[:, i]) for i in range(samples)]
    np.testing.assert_allclose(challenge.epsilons(u, r), expected, rtol=1e-12, atol=1e-12)


def test_equals_trying_all_attacks_on_a_hundred_models():
    # All pairs of gaps at once: p unlearned and q retrained inside.
    u, r = R.normal(0.4, 1.5, (60, 20)), R.normal(size=(45, 20))
    order = np.argsort(np.concatenate([u, r]), axis=0)
    zero = np.zeros((1, 20))
    cu, cr = (np.concatenate([zero, np.cumsum(x[order], 0)])
              for x in (np.arange(105) < 60, np.arange(105) >= 60))
    i, j = np.triu_indices(106)
    p, q = (cu[j] - cu[i]) / 60, (cr[j] - cr[i]) / 45
    best = np.zeros(20)
    for fnr, fpr in ((1 - p, q), (p, 1 - q)):
        fnr, fpr = np.round(fnr, 12), np.round(fpr, 12)
        counts = (fnr > 0) & (fpr > 0)
        for a, b in ((fnr, fpr), (fpr, fnr)):
            with np.errstate(divide="ignore", invalid="ignore"):
                best = np.nanmax([best, np.nanmax(np.where(
                    counts & (a < 1), np.log(1 - D - a) - np.log(b), 0), 0)], 0)
    np.testing.assert_allclose(challenge.epsilons(u, r), best, rtol=1e-9)


def test_finds_the_threshold_that_a_grid_misses():
    # Three of four models of each kind differ by less than the published grid's 0.01.
    u = np.array([0.0001, 0.0002, 0.0003, 5.0])[:, None]
    r = np.array([-5.0, 0.0004, 0.0005, 0.0006])[:, None]
    grid = np.linspace(-5, 5, 1000)
    on_grid = max(max(epsilon_of(u < t, r < t), epsilon_of(u >= t, r >= t)) for t in grid)
    found = challenge.epsilons(u, r)[0]
    np.testing.assert_allclose(found, np.log(3 / 4 - D) - np.log(1 / 4))
    assert on_grid < 1e-3 < found


def test_sample_scores_by_hand():
    e = np.array([0, 0.49, 0.5, 0.99, 1.0, 5.99, 6.0, 6.49, 6.5, 6.99, 7.0, 50])
    h = np.array([1, 1, 1 / 2, 1 / 2, 1 / 4, 2**-11, 2**-12, 2**-12, 2**-13, 2**-13, 2**-14, 0])
    np.testing.assert_allclose(challenge.sample_scores(e, bins=14), np.where(e >= 7, 0, h))
    np.testing.assert_allclose(challenge.sample_scores(e, bins=13), np.where(e >= 6.5, 0, h))
    np.testing.assert_allclose(challenge.sample_scores(e), challenge.sample_scores(e, bins=13))


def test_end_points_the_original_fails_and_the_retrained_passes():
    retrained = R.normal(0, 1, (48, 60))
    original = challenge.forgetting_quality(R.normal(8, 1, (48, 60)), retrained, replicates=20)
    again = challenge.forgetting_quality(R.normal(0, 1, (48, 60)), retrained, replicates=20)
    assert (original.value, original.low, original.high) == (0, 0, 0)
    assert (original.epsilons == 50).all() and original.scores.shape == (60,)
    perfect = challenge.perfect_quality(48, 48, samples=60)
    assert abs(again.value - perfect) < 0.02 and again.low < again.value < again.high


def test_the_code_calls_a_far_narrower_population_told_apart():
    """Its rule: 50 where one range is below 1 % of the other; its description has no such rule."""
    wide = np.array([-5.0, -1.0, 1.0, 5.0])[:, None]
    for unlearned, retrained in ((0.02 * wide, wide), (wide, 0.02 * wide)):  # 2 %
        plain = challenge.epsilons(unlearned, retrained)
        np.testing.assert_array_equal(challenge.epsilons(unlearned, retrained, narrow=0.01), plain)
    # all narrow ones within, one wide one as well: one rate is 0, the attack is discarded
    wide = np.array([-5.0, 0.0, 1.0, 5.0])[:, None]
    for unlearned, retrained in ((0.009 * wide, wide), (wide, 0.009 * wide)):
        assert challenge.epsilons(unlearned, retrained)[0] < 2
        assert challenge.epsilons(unlearned, retrained, narrow=0.01)[0] == 50
    constant = np.ones((4, 1))
    assert challenge.epsilons(constant, constant, narrow=0.01)[0] == 0, "no range at all: 0 / 0"


def test_the_rule_of_ranges_reaches_the_quality_and_its_interval():
    wide = R.normal(size=(12, 40))
    narrow = np.concatenate([0.001 * R.normal(size=(12, 20)), R.normal(size=(12, 20))], axis=1)
    plain, ruled = (challenge.forgetting_quality(narrow, wide, narrow=n, replicates=20)
                    for n in (0.0, 0.01))
    assert (ruled.epsilons[:20] == 50).all() and (ruled.scores[:20] == 0).all()
    np.testing.assert_array_equal(ruled.epsilons[20:], plain.epsilons[20:])
    assert ruled.value <= plain.value and ruled.high < 1
    all_narrow = challenge.forgetting_quality(narrow[:, :20], wide[:, :20], narrow=0.01,
                                              replicates=20)
    assert (all_narrow.value, all_narrow.low, all_narrow.high) == (0, 0, 0)
    assert challenge.perfect_quality(2, 2, narrow=0.5) < challenge.perfect_quality(2, 2)


def test_noise_around_one_model_is_no_population():
    # Perfect unlearning, judged by "retrained" models that are one model and noise.
    retrained, again = R.normal(size=(2, 48, 60))
    faked = retrained[:1] + R.normal(0, 0.1, (48, 60))
    honest, misled = (challenge.forgetting_quality(again, x, replicates=0).value
                      for x in (retrained, faked))
    assert misled < honest / 3


def test_the_interval_is_as_wide_as_the_value_varies():
    # populations of 24 + 24 models that share a shift per model: samples are not independent
    populations = 40
    u, r = R.normal(size=(2, populations, 24, 30)) + R.normal(0, 0.5, (2, populations, 24, 1))
    found = [challenge.forgetting_quality(*pair, replicates=30) for pair in zip(u, r)]
    spread = 2 * 1.96 * np.std([q.value for q in found], ddof=1)
    assert 0.65 < np.mean([q.high - q.low for q in found]) / spread < 1.5
    mean = np.mean([q.value for q in found])
    assert sum(q.low <= mean <= q.high for q in found) >= 0.85 * populations


def test_halves_of_an_odd_number_are_balanced():
    halves = challenge._random_halves(5, 2, 400, seed=0)
    sizes = [x.sum(1) for x in halves]
    assert set(sizes[0]) == {2, 3} and abs(sizes[0].mean() - 2.5) < 0.1 and set(sizes[1]) == {1}
    assert not halves[0][:, 5:].any() and not halves[1][:, :5].any()
    assert (abs(halves[0][:, :5].mean(0) - 0.5) < 0.1).all()


def test_the_interval_has_a_seed_and_may_be_left_out():
    u, r = R.normal(size=(2, 6, 9))
    a, b, c = (challenge.forgetting_quality(u, r, replicates=9, seed=s) for s in (1, 1, 2))
    assert (a.low, a.high) == (b.low, b.high) != (c.low, c.high)
    without = challenge.forgetting_quality(u, r, replicates=0)
    assert without.value == a.value and np.isnan([without.low, without.high]).all()


def test_two_models_of_a_kind_give_a_value_without_interval():
    # One model of a kind can always be told from one of the other.
    found = challenge.forgetting_quality(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]))
    assert found.value == 1 and np.isnan([found.low, found.high]).all()


def test_score_multiplies_utilities_and_rejects_what_is_slow():
    means = dict(retain_unlearned_U=np.array([0.9, 0.8]), retain_retrained_R=np.array([1.0]),
                 test_unlearned_U=np.array([0.6]), test_retrained_R=np.array([0.7, 0.9]))
    fast = challenge.score(0.4, **means, seconds=20, retrain_seconds=100)
    assert fast.accepted and fast.relative_time == 0.2
    np.testing.assert_allclose(fast.value, 0.4 * 0.85 * 0.75)
    slow = challenge.score(0.4, **means, seconds=20.1, retrain_seconds=100)
    assert not slow.accepted and slow.value == 0 and slow.retain_ratio == fast.retain_ratio


@pytest.mark.parametrize("call, words", [
    (lambda: challenge.epsilons(np.zeros(5), np.zeros((5, 1))), r"\[U, N\]"),
    (lambda: challenge.epsilons(np.zeros((5, 2)), np.zeros((5, 1))), "the same samples"),
    (lambda: challenge.epsilons(np.zeros((1, 2)), np.zeros((5, 2))), "two models"),
    (lambda: challenge.epsilons(np.eye(2), np.array([[0, 0], [0, np.nan]])),
     "retrained models must be finite; row 1"),
    (lambda: challenge.sample_scores(np.zeros(3), bins=0), "bins"),
    (lambda: challenge.forgetting_quality(np.eye(2), np.eye(2), replicates=1), "replicates"),
    (lambda: challenge.score(1, retain_unlearned_U=np.ones((2, 1)), retain_retrained_R=np.ones(2),
                             test_unlearned_U=np.ones(2), test_retrained_R=np.ones(2), seconds=1,
                             retrain_seconds=9), "retain_unlearned must have shape"),
    (lambda: challenge.score(1, retain_unlearned_U=np.ones(2), retain_retrained_R=np.zeros(2),
                             test_unlearned_U=np.ones(2), test_retrained_R=np.ones(2), seconds=1,
                             retrain_seconds=9), "retain_retrained must be positive"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
