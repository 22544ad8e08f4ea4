import dataclasses

import jax
import numpy as np
import pytest
from toy import LinearModel, crowded, layout, resident, streamed

from unlearn_jax.engine import memory
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import Program
from unlearn_jax.engine.predict import make_predictor, make_validator, predict
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.members import in_batches, stack_batches
from unlearn_jax.train import make_loss


def expected(variables, m, rows):
    images = np.asarray(resident().images)[rows].reshape(len(rows), -1) / 255
    return images @ np.asarray(variables["params"]["w"][m]) + float(variables["params"]["b"][m])


def test_batches_are_filled_with_complements_of_the_first_rows():
    np.testing.assert_array_equal(in_batches(np.array([4, 5, 6, 7, 9]), 3),
                                  [[4, 5, 6], [7, 9, ~4]])
    assert in_batches(np.zeros(0, np.int32), 3).shape == (0, 3)
    np.testing.assert_array_equal(in_batches(np.array([2]), 4), [[2, ~2, ~2, ~2]])


def test_stacks_are_ragged_no_more():
    stacked = stack_batches([np.ones((3, 2), int), np.ones((1, 2), int)], multiple=2)
    assert stacked.shape == (2, 4, 2)
    assert (stacked >= 0).sum() == 8


@pytest.mark.parametrize("where", [dict(per_device=1), dict(members=4), dict(members=1, batch=2)])
@pytest.mark.parametrize("data", [resident, streamed])
def test_each_member_predicts_its_own_rows(where, data):
    chosen = layout(**where)
    variables = init_members(LinearModel(), chosen, [0, 1, 2])
    rows = [np.arange(7), np.arange(10, 40), np.array([5])]
    outputs = predict(make_predictor(LinearModel(), chosen), variables, data(), rows, 4)
    for m in range(3):
        np.testing.assert_allclose(outputs[m], expected(variables, m, rows[m]), rtol=1e-5)


def test_members_that_do_not_fit_are_predicted_in_smaller_groups(monkeypatch):
    where, rows = layout(count=8, per_device=8), [np.arange(7)] * 8
    variables = init_members(LinearModel(), where, list(range(8)))
    whole = predict(make_predictor(LinearModel(), where), variables, resident(), rows, 4)
    predictor = make_predictor(LinearModel(), where)
    sizes = crowded(monkeypatch, 2)
    compiled = compilations(monkeypatch)
    for _ in range(3):  # what did not fit is not tried again
        parts = predict(predictor, variables, resident(), rows, 4)
        np.testing.assert_allclose(parts, whole, rtol=1e-6)
        assert compiled == [8, 2] and set(sizes) == {2}
    assert predictor.layout.members_per_device == 2 and predictor.compile_seconds > 0


def test_as_many_members_are_predicted_at_once_as_the_compiler_says(monkeypatch):
    where = dataclasses.replace(layout(), adapts=True)
    variables = init_members(LinearModel(), where, [0, 1, 2])
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1.0)
    compiled = compilations(monkeypatch)
    predictor = make_predictor(LinearModel(), where)
    for _ in range(2):
        predict(predictor, variables, resident(), [np.arange(7)] * 3, 4)
    assert compiled == [3, 1] and predictor.layout.members_per_device == 1


def compilations(monkeypatch):
    """Notes for how many members a program is compiled, each time."""
    compile_, sizes = Program.compile, []

    def noted(self, variables, *args):
        if self._compiled is None:
            sizes.append(jax.tree.leaves(variables)[0].shape[0])
        compile_(self, variables, *args)

    monkeypatch.setattr(Program, "compile", noted)
    return sizes


def test_validation_is_the_mean_over_each_members_rows():
    where = layout()
    variables = init_members(LinearModel(), where, [0, 1])
    program = make_validator(LinearModel(), make_loss("mae", 40.0), where)
    rows = stack_batches([in_batches(np.arange(5), 4), in_batches(np.arange(30, 33), 4)])
    sums = where.shard_members((np.zeros(2, np.float32), np.zeros(2, np.float32)))
    for batches in Feed(where, resident())(rows):
        sums = program(sums, variables, resident(), batches)
    labels = np.asarray(resident().labels)
    np.testing.assert_array_equal(sums[1], [5, 3])
    for m, mine in enumerate((np.arange(5), np.arange(30, 33))):
        mae = np.abs(expected(variables, m, mine) - labels[mine]).mean()
        np.testing.assert_allclose(sums[0][m] / sums[1][m], mae, rtol=1e-5)


@pytest.mark.parametrize("rows, words", [([np.arange(3)] * 2, "of 3 members, rows of 2"),
                                         ([np.zeros(0, int)] * 3, "no member has a sample")])
def test_refusals(rows, words):
    where = layout()
    variables = init_members(LinearModel(), where, [0, 1, 2])
    with pytest.raises(ValueError, match=words):
        predict(make_predictor(LinearModel(), where), variables, resident(), rows, 4)


def test_inference_leaves_the_statistics_alone():
    variables = jax.tree.map(lambda x: x[0], init_members(LinearModel(), layout(), [0]))
    _, stats = LinearModel().apply(variables, resident().images, train=False)
    assert stats["mean"] == 0
