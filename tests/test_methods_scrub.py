import dataclasses

import jax
import numpy as np
import pytest
from toy import tree_close
from toy_teachers import (
    BOTH,
    bias_moved,
    divergence_slope,
    make_batch,
    make_setting,
    one_step,
    outputs,
    softened,
    task_slope,
    variables,
    walk,
)

from unlearn_jax.errors import ConfigError
from unlearn_jax.methods.scrub import DISOBEY, METHOD

T = 4.0


def slopes(setting, batch, start, teacher):
    """How L and T² KL_T change with the last bias, for each sample."""
    student = outputs(setting, start, batch, train=True)
    target = softened(outputs(setting, teacher, batch, train=False), T)
    return (task_slope(student, np.asarray(batch.labels)),
            T**2 * divergence_slope(student, target, T))


@pytest.mark.parametrize("task", BOTH)
def test_on_the_forget_set_the_student_climbs_the_divergence(task):
    setting = make_setting("scrub", task)
    batch = make_batch(task, range(8), kind=DISOBEY, weights=[1] * 6 + [0, 0])
    teacher = variables(setting, 2)
    new, loss, start = one_step(setting, batch, teacher)
    _, distance = slopes(setting, batch, start, teacher)
    np.testing.assert_allclose(bias_moved(new, start), 0.1 * distance[:6].mean(0), rtol=1e-3)
    found = outputs(setting, start, batch, True)[:6]
    labels = np.asarray(batch.labels)[:6]
    expected = np.abs(found - labels) if task == "regression" \
        else -np.log(softened(found, 1.0)[np.arange(6), labels])
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)


@pytest.mark.parametrize("task", BOTH)
def test_on_the_retain_set_it_descends_the_task_and_the_divergence(task):
    setting = make_setting("scrub", task, gamma=0.5, alpha=0.25)
    batch, teacher = make_batch(task, weights=[1] * 6 + [0, 0]), variables(setting, 2)
    new, _, start = one_step(setting, batch, teacher)
    own, distance = slopes(setting, batch, start, teacher)
    np.testing.assert_allclose(bias_moved(new, start),
                               -0.1 * (0.5 * own + 0.25 * distance)[:6].mean(0), rtol=1e-3)


@pytest.mark.parametrize("task", BOTH)
def test_the_student_moves_and_the_teacher_stays(task):
    """A public port hands the teacher's weights to the optimiser, and never trains."""
    walked = walk(make_setting("scrub", task), 2)
    tree_close(walked.prepared.context, walked.start, rtol=0)
    tree_close(walked.prepared.variables, walked.start, rtol=0)
    for old, new in zip(jax.tree.leaves(walked.start["params"]),
                        jax.tree.leaves(walked.after["params"])):
        assert (old != new).reshape(2, -1).any(1).all()


def test_the_distance_to_the_teacher_grows_on_the_forget_set():
    setting = make_setting("scrub")
    batch, teacher = make_batch("regression", range(8), kind=DISOBEY), variables(setting, 1)
    gaps, student = [], teacher
    for _ in range(6):
        new, _, _ = one_step(setting, batch, teacher, start=student, rate=1e-3)
        student = new.variables
        gaps.append(np.abs(outputs(setting, student, batch, False)
                           - outputs(setting, teacher, batch, False)).mean())
    assert gaps == sorted(gaps) and gaps[-1] > gaps[0]


def test_a_student_like_its_teacher_has_nothing_to_disobey():
    """KL is flat where both agree: with equal statistics of batch and past, nobody moves."""
    setting, batch = make_setting("scrub"), make_batch("regression", range(8), kind=DISOBEY)
    start = variables(setting, 1)
    hidden = np.asarray(batch.images).reshape(8, -1) / 255 @ np.asarray(
        start["params"]["stem_conv"]["kernel"])
    start["batch_stats"]["mean"] = np.asarray(hidden.mean(0), np.float32)
    new, _, _ = one_step(setting, batch, start, start=start)
    tree_close(new.variables["params"], start["params"], atol=1e-5)


def test_d_f_comes_first_in_the_first_epochs():
    setting = make_setting("scrub", msteps=2)
    found = [[(p.over, p.kind) for p in METHOD.passes(setting, e)] for e in range(3)]
    both, obey = [("forget", DISOBEY), ("retain", 0)], [("retain", 0)]
    assert found == [both, both, obey]
    assert [p.over for p in METHOD.passes(make_setting("scrub", msteps=0), 0)] == ["retain"]


def test_the_climb_has_smaller_batches_and_as_many_more_steps():
    """32 samples of D_f and 128 of D_r, as published: here 2 and 8, for 7 and 15 samples."""
    whole, quarter = (walk(make_setting("scrub", forget_batch=share), 1) for share in (1.0, 0.25))
    steps = [[row["steps"] for row in w.trained.history] for w in (whole, quarter)]
    assert steps == [[3 + 1, 2 + 2], [3 + 4, 2 + 8]]
    assert [r["images"] for r in whole.trained.history] \
        == [r["images"] for r in quarter.trained.history]


@pytest.mark.parametrize("epoch, factor", [(0, 1), (2, 1), (3, 0.1), (4, 0.1), (5, 0.01),
                                           (9, 0.001)])
def test_the_rate_falls_after_epochs_three_five_and_nine(epoch, factor):
    setting = make_setting("scrub")
    teacher = variables(setting, 2)
    first, _, start = one_step(setting, make_batch("regression"), teacher)
    late, _, _ = one_step(setting, make_batch("regression", epoch=epoch), teacher)
    np.testing.assert_allclose(bias_moved(late, start), factor * bias_moved(first, start),
                               rtol=1e-3)


def test_the_climb_has_a_rate_and_a_momentum_of_its_own():
    setting = make_setting("scrub", moves=dict(momentum=0.9), forget_rate=0.25)
    plain = make_setting("scrub", moves=dict(momentum=0.9))
    teacher = variables(setting, 2)
    climb, back = (make_batch("regression", range(8), kind=kind) for kind in (DISOBEY, 0))
    slow, fast = (bias_moved(*one_step(s, climb, teacher)[::2]) for s in (setting, plain))
    np.testing.assert_allclose(slow, fast / 4, rtol=1e-4)
    begun, _, start = one_step(setting, climb, teacher)
    after, before = (jax.jit(METHOD.make_step(setting))(
        jax.random.key(0), state, back, 0.1, teacher)[0] for state in (begun, dataclasses.replace(
            begun, opt_state=setting.optimizer.init(start["params"]))))
    tree_close(after.variables, before.variables, rtol=0)


def test_without_epochs_to_fall_after_the_rate_stays():
    setting = make_setting("scrub", decay_after=())
    teacher = variables(setting, 2)
    moved = [bias_moved(*one_step(setting, make_batch("regression", epoch=e), teacher)[::2])
             for e in (0, 50)]
    np.testing.assert_array_equal(*moved)


@pytest.mark.parametrize("options, words", [
    (dict(temperature=0.0), "scrub.temperature is 0.0; allowed: at least 1e-06"),
    (dict(alpha=float("nan")), "scrub.alpha is nan; allowed: at least 0"),
    (dict(decay=1.5), "scrub.decay is 1.5; allowed: from 1e-12 to 1"),
    (dict(msteps=-1), "scrub.msteps is -1"),
    (dict(forget_rate=-1.0), "scrub.forget_rate is -1.0"),
    (dict(forget_batch=0.0), "scrub.forget_batch is 0.0; allowed: from 1e-06 to 1"),
    (dict(decay_after=(0, 3)), r"scrub.decay_after is \(0, 3\); .* of at least 1"),
])
def test_options_that_make_no_sense_are_refused(options, words):
    METHOD.check(make_setting("scrub"))
    with pytest.raises(ConfigError, match=words):
        METHOD.check(make_setting("scrub", **options))
