import itertools

import numpy as np
import pytest

from unlearn_jax.errors import InputError
from unlearn_jax.stages.shards import (
    ShardPlan,
    deletion_visits,
    epoch_shares,
    epochs_per_slice,
    expected_speedup,
    expected_visits,
    make_plan,
    mean_output,
    nominal_speedup,
    passes_over_all,
    visits,
    vote,
)

# Two shards of three slices, by hand; sample 13 has two copies, 16 has one.
PLAN = ShardPlan(samples=np.arange(10, 18, dtype=np.int32),
            shard=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
            slice=np.array([0, 1, 2, 2, 0, 0, 1, 2]), shards=2, slices=3)
WEIGHTS = np.array([1, 1, 1, 3, 1, 1, 2, 1])
NOBODY = np.zeros(0, np.int32)


def test_a_plan_divides_the_samples_evenly_and_at_random():
    samples = np.arange(100, 113)
    plan = make_plan(samples[::-1], 3, 2, seed=0)
    np.testing.assert_array_equal(plan.samples, samples)
    sizes = [[int(((plan.shard == s) & (plan.slice == r)).sum()) for r in range(2)]
             for s in range(3)]
    assert sizes == [[3, 2], [2, 2], [2, 2]]
    again, other = make_plan(samples, 3, 2, seed=0), make_plan(samples, 3, 2, seed=1)
    np.testing.assert_array_equal(plan.shard, again.shard)
    np.testing.assert_array_equal(plan.slice, again.slice)
    assert (plan.shard != other.shard).any()


def test_one_sample_to_a_slice_is_the_least():
    assert make_plan(np.arange(6), 3, 2, seed=0).slice.sum() == 3
    with pytest.raises(InputError, match="4 shards x 2 slices; allowed: up to one for each of the "
                                         "7 training samples"):
        make_plan(np.arange(7), 4, 2, seed=0)


def test_a_constituent_sees_the_slices_of_its_shard_one_more_each_time():
    assert [PLAN.seen(0, r, NOBODY).tolist() for r in range(3)] == [
        [10], [10, 11], [10, 11, 12, 13]]
    assert [PLAN.seen(1, r, NOBODY).tolist() for r in range(3)] == [
        [14, 15], [14, 15, 16], [14, 15, 16, 17]]
    assert PLAN.seen(0, 2, np.array([11, 13, 16])).tolist() == [10, 12]
    assert PLAN.seen(0, 2, NOBODY).dtype == np.int32


@pytest.mark.parametrize("forgotten, first, emptied", [
    ([], [3, 3], []),
    ([10], [0, 3], []),
    ([13], [2, 3], []),
    ([12, 11, 17], [1, 2], []),
    ([16, 10, 13], [0, 1], []),
    ([14, 15, 16, 17], [3, 0], [1]),
    ([99], [3, 3], []),
])
def test_a_deletion_goes_back_to_the_first_touched_slice(forgotten, first, emptied):
    forgotten = np.array(forgotten, np.int32)
    assert PLAN.first_touched(forgotten).tolist() == first
    assert PLAN.emptied(forgotten).tolist() == emptied


def test_slices_take_as_many_epochs_as_make_the_cost_that_of_plain_training():
    assert epochs_per_slice(12, 4) == pytest.approx(4.8)
    assert epochs_per_slice(7, 1) == 7
    assert passes_over_all(4.8, 4) == pytest.approx(12)
    assert epoch_shares(4.8) == (1, 1, 1, 1, 0.8)
    assert epoch_shares(3.0) == (1, 1, 1)
    assert epoch_shares(epochs_per_slice(3, 5)) == (1,)
    assert epoch_shares(0.4) == (0.4,)
    # 4 x 5 + 4, 4 x 10 + 8, 4 x 15 + 12, 4 x 20 + 16: 240 of 20 samples are 12 passes
    assert [visits(n, epoch_shares(4.8)) for n in (5, 10, 15, 20)] == [24, 48, 72, 96]
    # where the last epoch is no whole number of samples, it takes one more
    assert visits(7, (1.0, 0.8)) == 7 + 6


def test_what_a_deletion_costs_by_hand():
    # shard 0 has 1, 2 and 6 rows in its slices so far; shard 1 has 2, 4 and 5
    cost = lambda *forgotten: deletion_visits(PLAN, WEIGHTS, np.array(forgotten, int), (1.0, 1.0))
    assert cost() == 0
    assert cost(12) == 2 * 5
    assert cost(13) == 2 * 3                 # its copies go with it
    assert cost(11) == 2 * (1 + 5)
    assert cost(14) == 2 * (1 + 3 + 4)
    assert cost(11, 17) == 2 * (1 + 5) + 2 * 4
    assert cost(10, 11) == 2 * (0 + 0 + 4)   # nothing is left of the first two slices


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_expected_visits_are_the_mean_over_all_choices(count):
    every = [deletion_visits(PLAN, WEIGHTS, np.array(chosen), (1.0, 1.0))
             for chosen in itertools.combinations(PLAN.samples, count)]
    assert expected_visits(PLAN, WEIGHTS, count, 2.0) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("shards, slices", [(5, 4), (1, 1), (3, 10), (8, 1)])
def test_one_sample_is_deleted_3rs_over_2r_plus_1_times_faster(shards, slices):
    n = shards * slices * 200
    plan = make_plan(np.arange(n), shards, slices, seed=0)
    speedup = expected_speedup(plan, np.ones(n, int), 1, epochs_per_slice(12, slices), 12)
    assert speedup == pytest.approx(3 * slices * shards / (2 * slices + 1), rel=0.01)


def test_many_random_samples_touch_everything():
    plan = make_plan(np.arange(1000), 5, 4, seed=0)
    ones, epochs = np.ones(1000, int), epochs_per_slice(12, 4)
    few, more, most = (expected_speedup(plan, ones, k, epochs, 12) for k in (1, 10, 300))
    assert few > more > most == pytest.approx(1, abs=1e-3)
    assert nominal_speedup(5, 4) == 25


def test_mean_outputs_by_hand():
    ages = np.array([[[20, 30], [40, 30]], [[1, 2], [3, 5]]], np.float32)
    np.testing.assert_allclose(mean_output(ages, classes=False), [[30, 30], [2, 3.5]])
    # the probabilities are averaged, not the logits
    logits = np.log(np.array([[[[0.9, 0.1]], [[0.3, 0.7]]]]))
    found = mean_output(logits, classes=True)
    assert found.shape == (1, 1, 2) and found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), [[[0.6, 0.4]]], rtol=1e-6)


def test_votes_are_counted_by_label_and_ties_go_to_the_likelier():
    sure, torn = [0.98, 0.01, 0.01], [0.3, 0.4, 0.3]
    # one sure voice for 0 against two torn ones for 1: the majority of labels wins
    found = vote(np.log(np.array([[[sure], [torn], [torn]]])))
    assert found.shape == (1, 1, 3) and found.argmax() == 1
    np.testing.assert_allclose(np.exp(found[0, 0]), [1 / 3, 2 / 3, 0], atol=1e-3)
    assert np.isfinite(found).all()
    # one against one: the sure voice wins, in whatever place its class stands
    tie = np.array([torn, [0.01, 0.01, 0.98]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = vote(np.log(tie[:, order][None, :, None]))
        assert order[int(found.argmax())] == 2
