import numpy as np
import pytest
from scipy import special, stats

from unlearn_jax.metrics import likelihood_ratio as lira

R = np.random.default_rng(0)


def reference(z, forgot, never, ddof=1):
    z, forgot, never = (x.astype(np.float64) for x in (z, forgot, never))
    u, n = (stats.norm.logpdf(z, x.mean(0), x.std(0, ddof=ddof)) for x in (forgot, never))
    return special.expit(u - n)


def test_by_hand():
    # means 0 and 4, both with a standard deviation of 2: halfway is undecided
    forgot = np.array([[-2.0], [0.0], [2.0]])
    p = np.asarray(lira.u_lira(np.array([[2.0], [0.0]]), forgot, forgot + 4))[:, 0]
    np.testing.assert_allclose(p, [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6)


def test_equals_normal_densities():
    forgot, never, judged = R.normal(2, 1, (7, 9)), R.normal(0, 2, (5, 9)), R.normal(1, 2, (3, 9))
    np.testing.assert_allclose(lira.u_lira(judged, forgot, never),
                               reference(judged, forgot, never), rtol=1e-4)


def test_as_the_public_code_divides_by_all_models():
    forgot, never, judged = (R.normal(mean, 1, (k, 400)) for mean, k in ((1, 7), (0, 6), (1, 3)))
    coded = np.asarray(lira.u_lira(judged, forgot, never, ddof=0))
    np.testing.assert_allclose(coded, reference(judged, forgot, never, 0), rtol=1e-3, atol=1e-6)
    apart = np.abs(coded - lira.u_lira(judged, forgot, never))
    assert 0.03 < apart.max() < 0.1
    found = lira.u_lira_leave_pair_out(forgot[:6], never, ddof=0)[0]
    rest = np.delete(forgot[:6], 2, 0), np.delete(never, 2, 0)
    np.testing.assert_allclose(found[2], reference(forgot[2], *rest, 0), rtol=1e-3, atol=1e-5)
    for call in (lambda: lira.u_lira(judged, forgot, never, ddof=2),
                 lambda: lira.u_lira_leave_pair_out(never, never, ddof=-1)):
        with pytest.raises(ValueError, match="ddof is .*; allowed: 1, or 0"):
            call()


def test_leave_pair_out_equals_a_loop_over_pairs():
    forgot, never = R.normal(2, 1, (5, 9)) + 50, R.normal(0, 2, (5, 9)) + 50
    p_forgot, p_never = lira.u_lira_leave_pair_out(forgot, never)
    for k in range(5):
        rest = np.delete(forgot, k, 0), np.delete(never, k, 0)
        np.testing.assert_allclose(p_forgot[k], reference(forgot[k], *rest), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(p_never[k], reference(never[k], *rest), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("models", [3, 8])
@pytest.mark.parametrize("twins", [0.0, 0.7])
def test_models_that_are_no_different_are_told_right_in_half_of_the_cases(models, twins):
    never = R.normal(size=(models, 4000))
    forgot = twins * never + np.sqrt(1 - twins**2) * R.normal(size=(models, 4000))
    accuracy = np.mean(lira.attack_accuracy(*lira.u_lira_leave_pair_out(forgot, never)))
    assert abs(accuracy - 0.5) < 0.015


def test_far_from_both_means_it_is_still_a_number():
    # both densities underflow even in float64; the wider distribution wins
    p = np.asarray(lira.u_lira(np.array([[1e4]]), R.normal(0, 1, (9, 1)), R.normal(0, 5, (9, 1))))
    assert p[0, 0] == 0


def test_end_points_the_original_fails_and_the_retrained_passes():
    never = R.normal(0, 1, (40, 300))
    original = R.normal(5, 1, (40, 300))  # trained on the samples, forgot nothing
    retrained = R.normal(0, 1, (40, 300))
    accuracy = [float(np.mean(lira.attack_accuracy(*lira.u_lira_leave_pair_out(forgot, never))))
                for forgot in (original, retrained)]
    assert accuracy[0] > 0.98 and abs(accuracy[1] - 0.5) < 0.03


def test_judging_a_model_by_a_fit_that_it_was_in_flatters_the_attack():
    forgot, never = R.normal(0, 1, (2, 5, 2000))
    inside = np.mean(lira.attack_accuracy(lira.u_lira(forgot, forgot, never),
                                          lira.u_lira(never, forgot, never)))
    left_out = np.mean(lira.attack_accuracy(*lira.u_lira_leave_pair_out(forgot, never)))
    assert inside > 0.6 and left_out < 0.52


@pytest.mark.parametrize("offset", [0, 40, 20_000])
def test_small_differences_of_large_scores_are_told_exactly(offset):
    scores, forgot, never = (offset + R.normal(0, 0.01, (3, 6, 4))).astype(np.float32)
    np.testing.assert_allclose(lira.u_lira(scores, forgot, never),
                               reference(scores, forgot, never), atol=1e-7)
    pair = [x[0] for x in lira.u_lira_leave_pair_out(forgot, never)]
    np.testing.assert_allclose(pair, [reference(x[0], forgot[1:], never[1:])
                                      for x in (forgot, never)], atol=1e-7)


def test_accuracy_by_hand():
    got = lira.attack_accuracy(np.array([[0.9, 0.1], [0.5, 0.2]]), np.array([[0.1, 0.7]]))
    np.testing.assert_allclose(got, [(0.75 + 1) / 2, 0])


@pytest.mark.parametrize("call, words", [
    (lambda: lira.u_lira(np.ones((1, 4)), R.integers(0, 2, (5, 4)), R.normal(size=(5, 4))),
     "forgot the samples are all 0 or 1"),
    (lambda: lira.u_lira_leave_pair_out(R.normal(size=(5, 4)), R.integers(0, 2, (5, 4)) > 0),
     "never saw the samples are all 0 or 1"),
    (lambda: lira.u_lira(np.ones((1, 2)), np.array([[1.0, 7.5], [2.0, 7.5]]), np.eye(2) + 1),
     "score 7.5 on sample 1"),
    (lambda: lira.u_lira_leave_pair_out(np.array([[1.0], [3.0], [3.0]]), R.normal(size=(3, 1))),
     "score 3 on sample 0 when one model is left out"),
    (lambda: lira.u_lira(np.ones((1, 1)), R.normal(size=(1, 1)), R.normal(size=(3, 1))),
     "2 models of each group"),
    (lambda: lira.u_lira_leave_pair_out(*R.normal(size=(2, 2, 1))), "3 models of each group"),
    (lambda: lira.u_lira_leave_pair_out(R.normal(size=(4, 1)), R.normal(size=(3, 1))),
     "as many models"),
    (lambda: lira.u_lira(np.ones((1, 3)), *R.normal(size=(2, 4, 4))), "the same samples"),
    (lambda: lira.u_lira(np.ones(4), *R.normal(size=(2, 4, 4))), r"\[M, N\]"),
    (lambda: lira.u_lira(np.ones((1, 4)), R.normal(size=(4, 4)), R.normal(size=(4, 1))),
     "the same samples"),
    (lambda: lira.u_lira(np.full((1, 4), np.nan), *R.normal(size=(2, 4, 4))), "row 0 is not"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
