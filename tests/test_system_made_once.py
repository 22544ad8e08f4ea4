"""Equal parts make the same function, whose trace JAX then has; a population is traced once."""

import dataclasses

import jax
import numpy as np
import pytest
from toy import LinearModel, layout, members, recipe, resident, settings

from unlearn_jax.engine import predict
from unlearn_jax.engine.layout import Program
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import train_population
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.optim import make_optimizer
from unlearn_jax.system import made_once
from unlearn_jax.train import Loss, make_train_step


@pytest.fixture(autouse=True)
def nothing_made():
    made_once.clear()
    yield
    made_once.clear()


def test_equal_arguments_give_the_same_function():
    assert make_optimizer(settings()) is make_optimizer(settings())
    assert make_optimizer(settings()) is not make_optimizer(settings(momentum=0.5))
    parts = LinearModel(), make_optimizer(settings()), Loss("mae", 1.0)
    assert make_train_step(*parts) is make_train_step(*parts)
    assert make_train_step(*parts) is not make_train_step(*parts[:2], Loss("mae", 2.0))


def test_arguments_without_a_hash_give_a_new_result_each_time():
    made = []
    make = made_once.made_once(lambda parts: made.append(parts) or len(made))
    assert [make([1]), make([1]), make((1,)), make((1,)), make(parts=(1,))] == [1, 2, 3, 3, 4]


def test_old_results_are_forgotten():
    made = []
    make = made_once.made_once(lambda n: made.append(n))
    for n in (*range(17), 16, 0):
        make(n)
    assert made == [*range(17), 0]


class Traced(LinearModel):
    """Counts how often its forward pass is traced."""

    count = 0

    def apply(self, *args, **kwargs):
        type(self).count += 1
        return super().apply(*args, **kwargs)


def train(chosen, where=None):
    where, population = where or layout(), members()
    start = init_members(Traced(), where, [m.seed for m in population])
    return train_population(chosen, Traced(), where, resident(), population, start)


def traces(work):
    Traced.count = 0
    work()
    return Traced.count


def test_the_next_budget_takes_the_programs_of_the_one_before():
    chosen = recipe(Traced(), keep="last", snapshots=(1,), epochs=1)
    first = train(chosen)
    longer = dataclasses.replace(chosen, epochs=2, snapshots=(2,))
    found = []
    assert traces(lambda: found.append(train(longer))) == 0
    (second,) = found
    assert second.compile_seconds < first.compile_seconds / 2
    made_once.clear()
    alone = train(longer)
    for a, b in zip(jax.tree.leaves(second.snapshots[2].variables),
                    jax.tree.leaves(alone.snapshots[2].variables)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(second.snapshots[2].flops, alone.snapshots[2].flops)


def test_another_batch_momentum_or_layout_is_another_program():
    chosen = recipe(Traced(), epochs=1)
    train(chosen)
    for other in (dataclasses.replace(chosen, batch_size=chosen.batch_size + 1),
                  recipe(Traced(), settings(momentum=0.25), epochs=1)):
        assert traces(lambda o=other: train(o)) > 0
    assert traces(lambda: train(chosen, layout(per_device=1))) > 0


def test_how_convolutions_are_computed_is_part_of_the_program():
    found = []
    for setting in ("direct", "loop", "direct"):
        with convolutions(setting):
            found.append(predict.make_predictor(LinearModel(), layout())._program)
    assert all(isinstance(program, Program) for program in found)
    first, other, again = (program._jitted for program in found)
    assert first is again and first is not other
