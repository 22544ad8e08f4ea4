import numpy as np
import pytest

from unlearn_jax.metrics import relearn

R = np.random.default_rng(0)


def test_steps_by_hand():
    losses = np.array([[3.0, 2, 1.05, 1, 1],   # the bound counts
                       [3, 1, 2, 1, 1],        # the first time
                       [1, 9, 9, 9, 9],        # before any step
                       [3, 3, 3, 3, 1.06],     # not in these steps
                       [3, np.nan, 1, 1, 1],
                       [3, 1, np.nan, np.nan, np.nan]])
    got = relearn.relearn_steps(losses, np.ones(6), 0.05)
    np.testing.assert_array_equal(got, [2, 1, 0, np.inf, np.nan, 1])
    np.testing.assert_array_equal(
        relearn.relearn_steps(losses[:1], np.array([np.nan]), 0.05), [np.nan])


def curve(steps, length=10):
    """A loss that comes down to 1 after `steps` steps."""
    return np.where(np.arange(length) < steps, 2.0, 1.0)


INF = np.inf


@pytest.mark.parametrize("mine, theirs, value, low, high", [
    (3, 6, 0.5, 0.5, 0.5),
    (0, 6, 0, 0, 0),
    (0, 0, np.nan, 0, INF),        # nothing to relearn: nothing is known
    (3, 0, INF, INF, INF),
    (99, 5, np.nan, 2, INF),       # at least 10 steps over 5
    (5, 99, np.nan, 0, 0.5),       # 5 over at least 10 steps
    (99, 99, np.nan, 0, INF),
    (99, 0, INF, INF, INF),
    (0, 99, 0, 0, 0),
])
def test_index_and_bounds(mine, theirs, value, low, high):
    got = relearn.ain(curve(mine)[None], curve(theirs)[None], np.ones(1), 0.05)
    np.testing.assert_allclose([got.value[0], got.low[0], got.high[0]], [value, low, high])
    np.testing.assert_array_equal([got.unlearned_steps[0], got.retrained_steps[0]],
                                  [x if x < 10 else INF for x in (mine, theirs)])


def test_a_failed_member_is_nan():
    broken = np.full((1, 10), np.nan)
    for pair in ((broken, curve(3)[None]), (curve(3)[None], broken)):
        got = relearn.ain(*pair, np.ones(1), 0.05)
        assert np.isnan([got.value, got.low, got.high]).all()


def test_end_points_the_original_fails_and_the_retrained_passes():
    # gradient descent on squared error with more weights than samples
    data, rest = R.normal(size=(10, 30)), R.normal(size=(10, 30))
    truth = R.normal(size=30)

    def trained(w, x, steps):
        losses = []
        for _ in range(steps):
            error = x @ (w - truth)
            losses.append(np.mean(error**2))
            w = w - 0.01 * x.T @ error
        return w, losses

    original, _ = trained(np.zeros(30), np.concatenate([data, rest]), 120)
    retrained, again = (trained(R.normal(0, 0.05, 30), rest, 120)[0] for _ in range(2))
    final = np.mean((data @ (original - truth))**2)
    curves = {name: np.array(trained(w, data, 400)[1])[None]
              for name, w in dict(o=original, r=retrained, a=again).items()}
    assert relearn.ain(curves["o"], curves["r"], np.array([final]), 0.05).value[0] == 0
    passed = relearn.ain(curves["a"], curves["r"], np.array([final]), 0.05)
    assert passed.retrained_steps[0] > 20 and 0.8 < passed.value[0] < 1.25


@pytest.mark.parametrize("call, words", [
    (lambda: relearn.relearn_steps(np.ones(5), np.ones(1), 0.05), r"\[M, T\]"),
    (lambda: relearn.relearn_steps(np.ones((5, 2)), np.ones((5, 1)), 0.05), "one original loss"),
    (lambda: relearn.ain(np.ones((5, 2)), np.ones((5, 3)), np.ones(5), 0.05), "the same"),
])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
