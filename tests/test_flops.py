import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import layout, members, recipe, small_network, train

from unlearn_jax.engine import flops, memory
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.layout import Program
from unlearn_jax.engine.programs import Programs
from unlearn_jax.networks import conv
from unlearn_jax.networks.conv import convolutions
from unlearn_jax.train import Inputs, init_carry

SHAPE = jax.ShapeDtypeStruct((5, 3), jnp.float32)


@pytest.fixture
def no_cpu(monkeypatch):
    """JAX_PLATFORMS=cuda: jax knows of no CPU."""
    found = jax.local_devices

    def local_devices(*args, backend=None, **kwargs):
        if backend == "cpu":
            raise RuntimeError("Unknown backend: 'cpu' requested. Platforms present are: cuda")
        return found(*args, backend=backend, **kwargs)

    monkeypatch.setattr(jax, "local_devices", local_devices)
    flops._warn.cache_clear()


def test_operations_by_hand():
    assert flops.count(lambda x: x * x + 1, SHAPE) == 2 * 15
    assert flops.count(lambda x, w: x @ w, SHAPE, np.zeros((3, 7), np.float32)) == 2 * 5 * 3 * 7
    assert flops.count(lambda x: x, SHAPE) == 0
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    assert flops.count(lambda key: jax.random.normal(key, (9,)), key) > 9


def test_where_the_arguments_lie_does_not_matter():
    own, other = (jax.device_put(np.ones((5, 3), np.float32), d) for d in jax.devices()[1:3])
    assert flops.count(lambda x: x + other, own) == 15


def test_unknown_is_nan_and_said_once(no_cpu, caplog):
    with caplog.at_level(logging.WARNING):
        assert not flops.countable()
        for _ in range(2):
            assert np.isnan(flops.count(lambda x: x * x, SHAPE))
    assert caplog.text.count("not counted and reported as nan") == 1
    assert "JAX_PLATFORMS=cuda,cpu" in caplog.text


def test_a_device_that_counts_nothing_is_not_zero(monkeypatch, caplog):
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
    flops._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert np.isnan(flops.count(lambda x: x * x, SHAPE))
    assert "not counted" in caplog.text


def test_a_population_whose_operations_are_unknown_trains_all_the_same(no_cpu):
    trained = train(members(), recipe(keep="last", snapshots=(0, 3)))
    assert np.isnan(trained.snapshots[3].flops).all() and not trained.snapshots[3].failed.any()
    np.testing.assert_array_equal(trained.snapshots[0].flops, 0)  # nothing was done


def of_a_step(streams=False, steps=1, setting="auto", **where):
    """Of a small ResNet whose members are trained in this layout; nothing is compiled."""
    model, data = small_network("strided", streams)
    where = layout(steps=steps, **where)
    chosen = recipe(model, epochs=1)
    carry, inputs = jax.eval_shape(lambda keys: (
        jax.vmap(lambda key: init_carry(chosen.optimizer, model.init(key), True))(keys),
        Inputs(keys, *(jnp.zeros(3, kind) for kind in (float, int, int)),
               jnp.zeros((3, 40), bool))), jax.random.split(jax.random.key(0), 3))
    with convolutions(setting):
        programs = Programs(chosen, model, Feed(where, data), where, members())
        programs.compile(carry, inputs)
        return programs.flops_of_a_step


def test_a_step_costs_the_same_in_every_layout_and_however_convolutions_are_computed(monkeypatch):
    monkeypatch.setattr(Program, "compile", lambda self, *args: self._jitted.trace(*args))
    monkeypatch.setattr(memory, "call_bytes", lambda program: 0)
    expected = of_a_step()
    assert expected > 10**5
    monkeypatch.setattr(conv, "MAX_UNROLLED", 2)
    for changes in (dict(), dict(members=3, per_device=1, setting="loop"),
                    dict(setting="patches", steps=3, streams=True)):
        assert of_a_step(**changes) == expected, changes


def test_what_is_reported_is_steps_times_a_step():
    chosen = recipe()
    first = train(members(), chosen).snapshots[3]
    np.testing.assert_array_equal(first.flops / first.steps, (first.flops / first.steps)[0])
    short = train(members(), dataclasses.replace(chosen, epochs=1)).snapshots[1]
    np.testing.assert_array_equal(first.flops, 3 * short.flops)
