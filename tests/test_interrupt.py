"""A signal in mid-training leaves a checkpoint, from which the same run goes on to the same end."""

import os
import signal

import pytest
from toy import Bar, Memory, assert_same, members, train

from unlearn_jax.startup import run
from unlearn_jax.system import interrupt


@pytest.fixture
def listening():
    before = {number: signal.getsignal(number) for number in (*interrupt.SIGNALS, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may be in the background
    interrupt.listen()
    yield
    interrupt._received.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


class Kept(Memory):
    """Saves only when it is asked to."""

    def __init__(self, directory):
        super().__init__(directory, last=None)

    def due(self):
        return False


def bar_that_signals(number, at):
    """Sends a signal when a call of the program has ended, in the middle of an epoch."""
    class Signals(Bar):
        def update(self, count):
            super().update(count)
            if len(self.counts) == at:
                os.kill(os.getpid(), number)

    return Signals


def test_a_signal_leaves_a_checkpoint_to_go_on_from(listening, tmp_path):
    interrupt.leave_if_requested()  # nobody has asked yet
    undisturbed = train(members())
    with pytest.raises(interrupt.Interrupted) as left:
        train(members(), saver=Kept(tmp_path), bar=bar_that_signals(signal.SIGUSR1, at=3))
    assert left.value.code == interrupt.EXIT_CODE == 75
    interrupt._received.clear()
    resumed = train(members(), saver=Kept(tmp_path), bar=Bar)
    assert Bar.last.counts[0] == 50, "the first epoch was kept"
    assert_same(undisturbed, resumed)
    # In the last epoch there is nothing to keep: it is finished, to be stored, and then left.
    again = train(members(), bar=bar_that_signals(signal.SIGUSR1, at=10))
    assert_same(undisturbed, again)
    with pytest.raises(interrupt.Interrupted):
        interrupt.leave_if_requested()


@pytest.mark.parametrize("number", (*interrupt.SIGNALS, signal.SIGINT))
def test_each_signal_asks(listening, number):
    assert not interrupt.requested()
    os.kill(os.getpid(), number)
    assert interrupt.requested()


@pytest.mark.parametrize("warning", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_sigterm_after_a_warning_asks_once_more(listening, warning):
    os.kill(os.getpid(), warning)
    assert signal.getsignal(signal.SIGTERM) == interrupt._note, "it would cost the epoch under way"
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_sigterm_ends_the_process(listening):
    os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.requested()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL, "a scheduler may repeat itself"


def test_ctrl_c_asks_and_the_second_one_ends(listening, capfd):
    os.kill(os.getpid(), signal.SIGINT)
    assert "Ctrl-C again" in capfd.readouterr().err
    with pytest.raises(interrupt.Interrupted) as left:
        interrupt.leave_if_requested()
    assert left.value.code == 130
    with pytest.raises(SystemExit) as ended:
        run(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert ended.value.code == 130 and "the same command goes on" in capfd.readouterr().err


def test_a_ctrl_c_that_is_ignored_stays_so(listening):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt.listen()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
