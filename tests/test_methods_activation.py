"""Activations against a plain loop over samples."""

import dataclasses

import numpy as np
import pytest
from tiny_population import MEMBERS, net, one, preparation, resident, setting, shuffled
from toy import tree_close

from unlearn_jax.methods import METHODS, ft
from unlearn_jax.methods.activation import prepare, scores


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_scores_are_differences_of_mean_activations(task):
    model, data = net(task), resident(task)
    before = preparation(model, task)
    found = scores(before)
    assert set(found) == {"stem_conv", "stage1_block1/conv1", "stage1_block1/conv2"}
    for m, member in enumerate(MEMBERS):
        _, _, features = model.features(one(before.variables, m), data.images, train=False)
        for layer, values in found.items():
            by_sample = np.asarray(features[layer]).mean((1, 2))
            expected = by_sample[member.forget].mean(0) - by_sample[member.retain].mean(0)
            np.testing.assert_allclose(values[m], expected, atol=1e-5)
            assert (expected != 0).all()
    np.testing.assert_array_equal(before.images, [20, 20])


def test_order_and_batch_size_do_not_matter():
    model = net()
    plain = scores(preparation(model))
    other = scores(preparation(model, members=tuple(shuffled(m) for m in MEMBERS), batch_size=3))
    tree_close(other, plain, atol=1e-5)


def test_the_channels_of_the_largest_differences_are_perturbed():
    model = net()
    prepared = prepare(setting("activation", model=model, share=2 / 6), preparation(model))
    found = scores(preparation(model))
    counts = []
    for m in range(2):
        ranked = sorted(((found[layer][m][c], layer, c) for layer in found for c in range(2)),
                        reverse=True)
        touched = {(layer, c) for layer in found for c in range(2) if prepared.touched[layer][m][c]}
        assert touched == {entry[1:] for entry in ranked[:2] if entry[0] > 0}
        counts.append(len(touched))
    assert max(counts) > 0


def test_without_samples_to_forget_nothing_is_perturbed():
    model = net()
    nobody = dataclasses.replace(MEMBERS[0], forget=np.zeros(0, np.int32))
    before = preparation(model, members=(nobody,))
    prepared = prepare(setting("activation", model=model, share=1.0), before)
    tree_close(prepared.variables, before.variables, rtol=0)


def test_afterwards_it_is_fine_tuning():
    method = METHODS["activation"]
    assert method.make_step is ft.make_step and method.published == ft.METHOD.published
    assert [p.over for p in method.passes(setting("activation"), 0)] == ["retain"]
