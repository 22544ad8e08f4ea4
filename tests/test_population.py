import numpy as np
from toy import LinearModel, layout, members

from unlearn_jax.population import epoch_batches, init_members

MODEL = LinearModel()


def test_seeds_decide_the_start_and_forget_sets_do_not():
    variables = init_members(MODEL, layout(), [0, 1, 0])
    w = variables["params"]["w"]
    np.testing.assert_array_equal(w[0], w[2])
    assert np.abs(w[0] - w[1]).max() > 0.1


def test_an_epoch_visits_every_sample_once():
    member = members()[1]
    batches = epoch_batches(member, "toy", 0, 8)
    assert batches.shape == (3, 8)
    assert sorted(batches[batches >= 0]) == list(range(17))
    # the fill is of samples of the member itself
    assert set(~batches[batches < 0]) <= set(range(17))
    again, later = epoch_batches(member, "toy", 0, 8), epoch_batches(member, "toy", 1, 8)
    np.testing.assert_array_equal(batches, again)
    assert (batches != later).any()
    assert (batches != epoch_batches(member, "other", 0, 8)).any()
