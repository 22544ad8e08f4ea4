import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.metrics import errors

R = np.random.default_rng(0)


def test_absolute_errors_and_mean_by_hand():
    e = errors.absolute_errors(jnp.array([[20.0, 30.0], [25.0, 25.0]]), jnp.array([22.0, 27.0]))
    np.testing.assert_allclose(e, [[2, 3], [3, 2]])
    np.testing.assert_allclose(errors.mean_error(e), [2.5, 2.5])


def test_class_errors_of_sure_models_keep_their_digits():
    logits = np.zeros((1, 4, 10), np.float32)
    logits[0, :, 3] = [2, 15, 18, 25]
    others = 9 / np.exp(logits[:, :, 3].astype(np.float64))
    np.testing.assert_allclose(errors.class_errors(logits, np.full(4, 3)), others / (1 + others),
                               rtol=1e-5)


def test_utility_by_hand():
    # the study's table 4: a retrained model at 6.17 years and an original at 4.81
    np.testing.assert_allclose(errors.utility(jnp.array([6.17]), jnp.array([4.81])), [1.2827443],
                               rtol=1e-6)


def test_forgetting_by_hand():
    reference = jnp.array([[10.0, 0.0]])
    evaluated = jnp.array([[5.0, 5.0]])
    np.testing.assert_allclose(errors.forgetting(reference, evaluated, jnp.array([5.0, 15.0])),
                               [[np.exp(-1)], [np.exp(-1 / 3)]], rtol=1e-6)


def test_end_points_of_forgetting():
    reference = jnp.array(R.uniform(0, 20, (3, 50)), jnp.float32)
    np.testing.assert_allclose(errors.forgetting(reference, reference, jnp.array([15.0])), 1)
    far = errors.forgetting(reference, reference + 1000, jnp.array([15.0]))
    np.testing.assert_allclose(far, 0, atol=1e-6)


def test_ceiling_is_the_mean_over_all_ordered_pairs():
    reference = R.uniform(0, 20, (4, 30)).astype(np.float32)
    alphas = np.array([2.0, 15.0], np.float32)
    expected = [[np.mean([np.exp(-np.abs(reference[i] - reference[j]) / a).mean()
                          for i in range(4) if i != j]) for j in range(4)] for a in alphas]
    np.testing.assert_allclose(errors.retrain_ceiling(jnp.array(reference), jnp.array(alphas)),
                               expected, rtol=1e-5)


def test_a_failed_reference_is_left_out_of_the_others_ceiling():
    reference = np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, np.nan]], np.float32)
    ceiling = np.asarray(errors.retrain_ceiling(jnp.array(reference), jnp.array([15.0])))
    np.testing.assert_allclose(ceiling[0, :2], [1, 1])
    assert np.isnan(ceiling[0, 2])


def test_ceiling_needs_two_seeds():
    with pytest.raises(ValueError, match="two seeds"):
        errors.retrain_ceiling(jnp.zeros((1, 4)), jnp.ones(1))


def across(reference, evaluated, started, alpha=15.0):
    return np.asarray(errors.forgetting_across(
        jnp.array(reference), jnp.array(evaluated), jnp.array([alpha]), jnp.array(started)))[0]


def test_forgetting_across_is_a_mean_over_pairs_of_other_seeds():
    reference, evaluated = R.uniform(0, 20, (2, 4, 30)).astype(np.float32)
    pairs = np.exp(-np.abs(evaluated[:, None] - reference[None]) / 15).mean(-1)  # [M_e, M_R]
    np.fill_diagonal(pairs, np.nan)
    expected = np.nanmean(np.stack([pairs, pairs.T]), axis=(0, 2))
    found = across(reference, evaluated, np.arange(4))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.mean(), np.nanmean(pairs), rtol=1e-5)


def test_forgetting_across_leaves_out_the_reference_of_the_start():
    reference, evaluated = R.uniform(0, 20, (2, 4, 30)).astype(np.float32)
    pairs = np.exp(-np.abs(evaluated[:, None] - reference[None]) / 15).mean(-1)
    np.fill_diagonal(pairs, np.nan)
    pairs[:, 2] = np.nan  # all models started from the weights that M_R number 2 started from
    expected = [np.nanmean([*pairs[i], *pairs[:, i]]) for i in range(4)]
    np.testing.assert_allclose(across(reference, evaluated, [2] * 4), expected, rtol=1e-5)


def test_a_failed_seed_is_left_out_of_forgetting_across():
    reference, evaluated = R.uniform(0, 20, (2, 4, 30)).astype(np.float32)
    expected = across(reference[:3], evaluated[:3], np.arange(3))
    for broken in (reference, evaluated):
        kept = broken[3].copy()
        broken[3, 5] = np.nan
        found = across(reference, evaluated, np.arange(4))
        np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
        assert np.isnan(found[3])
        broken[3] = kept


def test_what_shares_its_start_with_one_reference_is_nearer_to_that_one_alone():
    """A model that does nothing but what its seed decides: Forgetting is high, across it is not."""
    own = R.normal(0, 8, (6, 400))
    reference = np.abs(10 + own + R.normal(0, 2, own.shape)).astype(np.float32)
    evaluated = np.abs(10 + own + R.normal(0, 2, own.shape)).astype(np.float32)
    same = np.asarray(errors.forgetting(reference, evaluated, jnp.array([15.0])))[0]
    ceiling = np.asarray(errors.retrain_ceiling(jnp.array(reference), jnp.array([15.0])))[0]
    apart = across(reference, evaluated, np.arange(6))
    assert (same > ceiling + 0.1).all()
    np.testing.assert_allclose(apart, ceiling, atol=0.03)


def test_accuracy_within_counts_the_bound():
    e = jnp.array([[0.0, 5.0, 5.1, 9.0], [1.0, 1.0, np.nan, 1.0]])
    np.testing.assert_allclose(errors.accuracy_within(e, 5.0), [0.5, np.nan])


def test_class_errors_and_accuracy_against_numpy():
    logits = R.normal(size=(2, 6, 3)).astype(np.float32)
    labels = R.integers(0, 3, 6).astype(np.int32)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(errors.class_errors(jnp.array(logits), jnp.array(labels)),
                               1 - p[:, np.arange(6), labels], atol=1e-6)
    np.testing.assert_allclose(errors.accuracy(jnp.array(logits), jnp.array(labels)),
                               (logits.argmax(-1) == labels).mean(-1))


def test_accuracy_of_a_failed_member_is_nan():
    logits = np.zeros((2, 3, 2), np.float32)
    logits[1, 0, 0] = np.nan
    value = np.asarray(errors.accuracy(jnp.array(logits), jnp.zeros(3, jnp.int32)))
    assert value[0] == 1 and np.isnan(value[1])


def test_forgetting_against_numpy_on_random_input():
    reference, evaluated = R.uniform(0, 40, (2, 5, 77)).astype(np.float32)
    alphas = np.array([2, 5, 10, 15], np.float32)
    expected = np.exp(-np.abs(reference - evaluated)[None] / alphas[:, None, None]).mean(-1)
    np.testing.assert_allclose(
        errors.forgetting(jnp.array(reference), jnp.array(evaluated), jnp.array(alphas)),
        expected, rtol=1e-5)


def test_one_pass_gives_what_the_single_metrics_give():
    # more samples than one block of running sums takes, and a rest
    reference_test, evaluated_test = R.gamma(2, 4, (2, 3, 500)).astype(np.float32)
    reference, evaluated = R.gamma(2, 4, (2, 3, 70_001)).astype(np.float32)
    evaluated_test[1, 7] = np.nan
    alphas = np.array([2, 15, 35], np.float32)
    got = errors.study_metrics(reference_test, evaluated_test, reference, evaluated, alphas, 5.0)
    utility = reference_test.mean(-1) / evaluated_test.mean(-1)
    kept = np.exp(-np.abs(reference - evaluated)[None] / alphas[:, None, None]).mean(-1)
    near = (evaluated_test <= 5).mean(-1)
    near[1] = np.nan
    expected = errors.StudyMetrics(
        mae_test=evaluated_test.mean(-1), mae_forget=evaluated.mean(-1), accuracy_test=near,
        accuracy_forget=(evaluated <= 5).mean(-1), utility=utility, forgetting=kept,
        f=utility * kept)
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("call, words", [
    (lambda: errors.study_metrics(*np.ones((4, 2, 5)), np.ones(()), 5.0), "alphas"),
    (lambda: errors.study_metrics(np.ones((2, 5)), np.ones((2, 4)), *np.ones((3, 2, 5)), 5.0),
     "must be the same"),
    (lambda: errors.forgetting(np.ones((2, 0)), np.ones((2, 0)), np.ones(1)), "no samples"),
    # the published notebooks' mistake: (N, 1) against (N,)
    (lambda: errors.absolute_errors(jnp.zeros((5, 1)), jnp.zeros(5)), "labels must have shape"),
    (lambda: errors.absolute_errors(jnp.zeros(5), jnp.zeros(5)), r"\[M, N\]"),
    (lambda: errors.absolute_errors(jnp.zeros((1, 5)), jnp.zeros((5, 1))), "labels"),
    (lambda: errors.class_errors(jnp.zeros((2, 5)), jnp.zeros(5, jnp.int32)), r"\[M, N, C\]"),
    (lambda: errors.accuracy(jnp.zeros((2, 5, 3)), jnp.zeros(4, jnp.int32)), "labels"),
    (lambda: errors.utility(jnp.zeros(3), jnp.zeros(1)), "must be the same"),
    (lambda: errors.forgetting(jnp.zeros((3, 5)), jnp.zeros((1, 5)), jnp.ones(2)), "the same"),
    (lambda: errors.forgetting(jnp.zeros((3, 5)), jnp.zeros((3, 5)), jnp.ones(())), "alphas"),
    (lambda: errors.mean_error(jnp.zeros(3)), "errors"),
    (lambda: errors.forgetting_across(*jnp.zeros((2, 3, 5)), jnp.ones(2), jnp.arange(2)),
     "must be the same"),
    (lambda: errors.forgetting_across(*jnp.zeros((2, 1, 5)), jnp.ones(2), jnp.arange(1)),
     "two seeds"),
])
def test_shapes_are_never_broadcast(call, words):
    with pytest.raises(ValueError, match=words):
        call()
