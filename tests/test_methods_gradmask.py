"""First-order scores against finite differences."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_population import (
    LOSSES,
    MEMBERS,
    net,
    one,
    preparation,
    resident,
    setting,
    shuffled,
)
from toy import tree_close

from unlearn_jax.errors import InputError
from unlearn_jax.methods import METHODS, ft
from unlearn_jax.methods.gradmask import prepare, scores

STEP = 1e-3


def scaled(variables, layer, channel, factor):
    """The network with one channel's map multiplied after its norm, whatever that norm holds."""
    *block, norm = net().norm_of(layer).split("/")
    params = jax.tree.map(np.array, variables["params"])
    owner = params[block[0]] if block else params
    for part in ("scale", "bias"):
        owner[norm][part][channel] *= factor
    return {**variables, "params": params}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_scores_are_changes_of_the_loss_when_a_channel_is_scaled(task):
    model, data = net(task), resident(task)
    found = scores(preparation(model, task))
    variables_M = preparation(model, task).variables
    rows = MEMBERS[0].forget
    variables = one(variables_M, 0)

    @jax.jit
    def losses(variables):
        outputs, _ = model.apply(variables, data.images[rows], train=False)
        return LOSSES[task].per_sample(outputs, data.labels[rows]) / LOSSES[task].unit

    @jax.jit
    def maps(variables):
        return model.features(variables, data.images[rows], train=False)[2]

    assert set(found) == {"stem_conv", "stage1_block1/conv1", "stage1_block1/conv2"}
    for layer, values in found.items():
        for channel in range(2):
            up, down = (scaled(variables, layer, channel, 1 + sign * STEP) for sign in (1, -1))
            plain, more = (np.asarray(maps(v)[layer]) for v in (variables, up))
            np.testing.assert_allclose(more[..., channel], plain[..., channel] * (1 + STEP),
                                       rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(more[..., 1 - channel], plain[..., 1 - channel])
            slopes = (np.asarray(losses(up)) - np.asarray(losses(down))) / (2 * STEP)
            np.testing.assert_allclose(values[0][channel], np.abs(slopes).mean(), rtol=0.05,
                                       atol=1e-3)
    assert max(values.max() for values in found.values()) > 0.01


def test_samples_do_not_cancel_and_order_does_not_matter():
    model = net()
    before = preparation(model)
    plain = scores(before)
    np.testing.assert_array_equal(before.images, [len(m.forget) for m in MEMBERS])
    other = scores(preparation(model, members=tuple(shuffled(m) for m in MEMBERS), batch_size=3))
    tree_close(other, plain, rtol=1e-4, atol=1e-7)
    # a mean of absolute values over seven samples, of three and of four
    rows = MEMBERS[0].forget
    whole, few, many = (scores(preparation(model, members=(
        dataclasses.replace(MEMBERS[0], forget=part),))) for part in (rows, rows[:3], rows[3:]))
    for layer in plain:
        np.testing.assert_allclose(whole[layer], (3 * few[layer] + 4 * many[layer]) / 7, rtol=1e-4,
                                   atol=1e-7)


def test_the_channels_that_matter_most_are_perturbed():
    model = net()
    prepared = prepare(setting("gradmask", model=model, share=2 / 6), preparation(model))
    found = scores(preparation(model))
    for m in range(2):
        ranked = sorted(((found[layer][m][c], layer, c) for layer in found for c in range(2)),
                        reverse=True)
        touched = {(layer, c) for layer in found for c in range(2) if prepared.touched[layer][m][c]}
        assert touched == {entry[1:] for entry in ranked[:2]}


def test_without_samples_to_forget_it_says_so():
    nobody = dataclasses.replace(MEMBERS[0], forget=np.zeros(0, np.int32))
    with pytest.raises(InputError, match="seed 0, forget set a has no samples in 'forget'"):
        prepare(setting("gradmask"), preparation(net(), members=(nobody,)))


def test_afterwards_it_is_fine_tuning():
    method = METHODS["gradmask"]
    assert method.make_step is ft.make_step and method.published == ft.METHOD.published
    assert [p.over for p in method.passes(setting("gradmask"), 0)] == ["retain"]
