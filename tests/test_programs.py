import collections
import dataclasses
import functools
import logging
import re

import jax
import numpy as np
import pytest
from toy import Bar, crowded, layout, members, recipe, small_network, train, tree_close

from unlearn_jax.engine import memory
from unlearn_jax.engine.batches import Feed
from unlearn_jax.engine.recipe import init_members
from unlearn_jax.engine.run import PopulationRun
from unlearn_jax.errors import InputError

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


@functools.cache
def network(streams, members_axis, batch_axis):
    """A small ResNet on a mesh: its programs' collectives, and its variables after two steps."""
    model, data = small_network("small", streams)
    count = max(members_axis, 2)
    where = layout(members_axis, batch_axis, count, per_device=1)
    run = PopulationRun(recipe(model, epochs=1, keep="last", snapshots=(1,)), model,
                        Feed(where, data), where, members((16,) * count),
                        init_members(model, where, range(count)))
    run.train_epoch()
    text = "".join(program.compiled.as_text()
                   for program in (run.programs.step, run.programs.validate))
    found = collections.Counter(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", text))
    return found, jax.tree.map(lambda x: x[:2], run.result().snapshots[1].variables)


@pytest.mark.parametrize("streams", [False, True])
def test_members_of_a_network_exchange_nothing(streams):
    found, variables = network(streams, 4, 1)
    assert not found
    tree_close(variables, network(False, 1, 1)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [False, True])
def test_one_network_on_several_devices_is_that_of_one_device(streams):
    found, variables = network(streams, 1, 2)
    assert found["all-reduce"] and not found["all-gather"]
    tree_close(variables, network(False, 1, 1)[1], rtol=1e-4, atol=1e-5)


def test_members_and_batches_may_both_be_divided():
    found, variables = network(True, 2, 2)
    assert found == network(True, 1, 2)[0]  # the member axis adds no exchange
    tree_close(variables, network(False, 1, 1)[1], rtol=1e-4, atol=1e-5)


def needed(count):
    """Bytes that a call of so many of three members takes, and those that the members hold."""
    where, noted = layout(per_device=count), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda device: noted.append(device) or np.inf)
        fit = memory.fit_members_per_call

        def noting(layout, count, name, needs, held):
            noted.append((needs(layout), held))
            return fit(layout, count, name, needs, held)

        patch.setattr(memory, "fit_members_per_call", noting)
        train(members(), where=where)
    (call, held), _ = noted
    return call + held * -(-3 // count) * count


def test_a_call_has_as_many_members_as_fit(monkeypatch, caplog):
    expected, sizes = train(members()), {n: needed(n) for n in (1, 2, 3)}
    assert sizes[1] < sizes[3]
    open_ended = dataclasses.replace(layout(), adapts=True)
    for free, members_per_call in ((sizes[3] / 0.9 + 1, 3), (sizes[3] / 0.9 - 1, 2), (1.0, 1)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        trained = train(members(), where=open_ended, bar=Bar)
        per_epoch = {3: 3, 2: 3 + 2, 1: 3 + 3 + 2}[members_per_call]
        assert len(Bar.last.counts) == 1 + 3 * per_epoch
        tree_close(trained.snapshots[3].variables, expected.snapshots[3].variables, rtol=1e-5)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1.0)
    train(members(), bar=Bar)  # the config asks for three: three are tried
    assert len(Bar.last.counts) == 1 + 3 * 3


def test_members_that_do_not_fit_are_trained_in_smaller_groups(monkeypatch, caplog):
    expected = train(members()).snapshots[3]
    sizes = crowded(monkeypatch, 1)
    with caplog.at_level(logging.WARNING):
        trained = train(members())
    tree_close(trained.snapshots[3].variables, expected.variables, rtol=1e-5)
    assert sizes[-1] == 1
    assert "3 members at once do not fit" in caplog.text
    assert "2 members at once do not fit" in caplog.text


def test_one_member_that_does_not_fit_is_an_error_with_advice(monkeypatch):
    crowded(monkeypatch, 0)
    with pytest.raises(InputError, match="batch of 8 does not fit.*smaller batch_size"):
        train(members())
