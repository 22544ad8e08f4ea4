import dataclasses
import logging

import numpy as np
import pytest
from toy import Bar, crowded, layout, members, train, tree_close

from unlearn_jax import memory
from unlearn_jax.errors import InputError


def needed(count):
    """Bytes that a call of so many of three members takes, and those that the members hold."""
    where, noted = layout(per_device=count), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda device: noted.append(device) or np.inf)
        fitted = memory.fitted
        patch.setattr(memory, "fitted", lambda layout, count, name, needs, held: noted.append(
            (needs(layout), held)) or fitted(layout, count, name, needs, held))
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
